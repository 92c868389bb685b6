"""Adapters on disk, as the `peft` library (0.21) writes and reads them.

    adapter_config.json          what is trained, and of which model
    adapter_model.safetensors    A and B of each matrix, and the trained rows of embedding and head, in fp32

`load_adapter` also reads those that peft trained, and refuses what `ptbr_slm.tune.lora` does not do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.model import Block, Llama
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.storage.weights import WeightReader, parse_json_object, write_safetensors
from ptbr_slm.tune.lora import TARGETS, LoraConfig, LowRank, add_adapters, fused_matrices

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
"""Of peft's names: its wrapper, and the model that it wraps."""
_GROUP = {name: "self_attn" if name[0] in "qkvo" else "mlp" for name in TARGETS}
"""Llama's matrix -> the module that it is part of."""


def write_adapter(folder: Path, model: Llama, config: LoraConfig, base: str) -> None:
    """Write both files into `folder`, which exists (inside an `atomic_folder`).

    base: path or name of the frozen model. Raises E_DISK_FULL, E_PERMISSION or E_IO.
    """
    write_json(folder / CONFIG, _to_peft(config, base))
    arrays = {
        name: tensor.detach().float().cpu().contiguous().numpy() for name, tensor in adapter_tensors(model)
    }
    write_safetensors(folder / WEIGHTS, arrays)


def load_adapter(model: Llama, folder: Path) -> LoraConfig:
    """Put the adapter of this folder into a model that has none; the model's own weights stay frozen.

    Raises E_ADAPTER for what is not an adapter of this model, or does what ours do not; E_NOT_FOUND,
    E_PICKLE, E_PERMISSION or E_IO.
    """
    body = _read_config(folder)
    try:
        reader = WeightReader(folder, WEIGHTS)
        config = _config(body, reader.names(), folder / CONFIG)
        add_adapters(model, config)
        tensors = dict(adapter_tensors(model))
        strange = next((name for name in reader.names() if name not in tensors), None)
        if strange is not None:
            raise _refused(f"o adaptador tem o tensor {strange}, que não sabemos usar", folder / WEIGHTS)
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(torch.from_numpy(reader.read(name, tuple(tensor.shape))))
    except SlmError as error:
        if error.code != "E_MODEL_INVALID":
            raise
        raise _refused(error.message.rstrip("."), folder / WEIGHTS) from error
    return config


def adapter_tensors(model: Llama) -> Iterator[tuple[str, Tensor]]:
    """(peft's name, a view of the parameter) of all that is trained in an adapted model."""
    for index, block in enumerate(model.layers):
        assert isinstance(block, Block)
        for projection, _ in fused_matrices(block, model.config):
            if isinstance(projection.adapter, LowRank):
                for name, a, b in projection.adapter.pairs():
                    module = f"{_PREFIX}model.layers.{index}.{_GROUP[name]}.{name}"
                    yield f"{module}.lora_A.weight", a
                    yield f"{module}.lora_B.weight", b
    tied = model.config.tie_embeddings
    for module, rows in (("model.embed_tokens", model.embed_rows), ("lm_head", model.head_rows)):
        if rows is not None and not (module == "lm_head" and tied):
            yield f"{_PREFIX}{module}.token_adapter.trainable_tokens_delta", rows.values


def _to_peft(config: LoraConfig, base: str) -> dict[str, Any]:
    rows = {"embed_tokens": config.embed_rows, "lm_head": config.head_rows}
    trained = {name: list(ids) for name, ids in rows.items() if ids}
    return {
        "base_model_name_or_path": base,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": int(config.alpha) if float(config.alpha).is_integer() else config.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "r": config.rank,
        "target_modules": sorted(config.targets),
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": trained or None,
        "use_dora": False,
        "use_rslora": config.rank_stabilized,
    }


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise SlmError(
            "E_NOT_FOUND",
            f"a pasta não tem um adaptador (falta {CONFIG}).",
            where=folder,
            hint="Aponte para uma pasta como RUN/final/adapter.",
        )
    with os_errors(file):
        content = file.read_bytes()
    try:
        return parse_json_object(content, file)
    except SlmError as error:
        raise _refused(error.message.rstrip("."), file) from error


def _config(body: Mapping[str, Any], tensors: Sequence[str], file: Path) -> LoraConfig:
    """What is trained. Which matrices: those that have tensors, since peft's `target_modules` may be a list,
    a word or an expression.
    """
    _refuse_unknown(body, file)
    try:
        rows = _rows(body.get("trainable_token_indices"))
        named = {name.removesuffix(".lora_A.weight").rpartition(".")[2] for name in tensors}
        config = LoraConfig(
            rank=int(body["r"]),
            alpha=float(body["lora_alpha"]),
            targets=tuple(name for name in TARGETS if name in named),
            embed_rows=rows["embed_tokens"],
            head_rows=rows["lm_head"],
            rank_stabilized=bool(body.get("use_rslora")),
        )
        if config.rank < 1:
            raise ValueError(f"r {config.rank}")
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(f"{CONFIG} tem um valor inválido ({type(error).__name__}: {error})", file) from error
    return config


_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "true", "false")
"""`init_lora_weights` that leave the frozen weights as they are; others move a part of them into A and B."""
_UNKNOWN = (
    "use_dora", "use_qalora", "lora_bias", "fan_in_fan_out", "modules_to_save", "rank_pattern",
    "alpha_pattern", "layers_to_transform", "layers_pattern", "layer_replication", "target_parameters",
    "exclude_modules", "alora_invocation_tokens", "megatron_config", "use_bdlora", "arrow_config",
    "kasa_config", "velora_config", "monteclora_config", "loftq_config", "corda_config",
)  # fmt: skip
"""Settings of peft's LoraConfig that change what an adapter computes, and that ours does not know."""


def _refuse_unknown(body: Mapping[str, Any], file: Path) -> None:
    if body.get("peft_type") != "LORA":
        raise _refused(f"o adaptador é do tipo {body.get('peft_type')!r}, e só abrimos LORA", file)
    found = [f"{name}={json.dumps(body[name])}" for name in _UNKNOWN if body.get(name)]
    if body.get("bias", "none") != "none":
        found.append(f"bias={body['bias']!r}")
    if body.get("init_lora_weights", True) not in _PLAIN_STARTS:
        found.append(f"init_lora_weights={body['init_lora_weights']!r}")
    if found:
        raise _refused(f"o adaptador usa {', '.join(found)}, que não sabemos fazer", file)


def _rows(value: object) -> dict[str, tuple[int, ...]]:
    """`trainable_token_indices`: a list for the embedding, or lists by the name of the module."""
    named = value if isinstance(value, dict) else {"embed_tokens": value or []}
    found: dict[str, tuple[int, ...]] = {"embed_tokens": (), "lm_head": ()}
    for name, ids in named.items():
        short = str(name).rpartition(".")[2]
        if short not in found or not isinstance(ids, list):
            raise ValueError(f"trainable_token_indices {name}")
        found[short] = tuple(map(int, ids))
    return found


def _refused(message: str, where: Path) -> SlmError:
    return SlmError(
        "E_ADAPTER",
        f"{message}.",
        where=where,
        hint="Funda o adaptador no modelo com peft (merge_and_unload) e use a pasta que resultar.",
    )
