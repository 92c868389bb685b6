"""What onnxruntime-genai reads beside the graph: genai_config.json, and a padding id that no text has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.tokenizer import Tokenizer

_PADDING = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>")
"""Tokens that no text has."""


def write_companions(folder: Path, config: ModelConfig) -> None:
    """Write genai_config.json, and tokenizer_config.json where the model came without.

    Raises E_MODEL_INVALID where no id can serve as padding.
    """
    tokenizer = Tokenizer.load(folder)
    write_json(folder / "genai_config.json", genai_config(config, padding_id(config, tokenizer, folder)))
    if not (folder / "tokenizer_config.json").exists():
        names = tokenizer.hf_config(
            config.max_seq_len, bos=config.bos_token_id, eos=config.eos_token_ids[0], pad=None
        )
        write_json(folder / "tokenizer_config.json", names)


def genai_config(config: ModelConfig, pad: int) -> dict[str, Any]:
    """The settings of a decoder for a CPU (onnxruntime-genai 0.18, src/config.h)."""
    return {
        "model": {
            "type": "llama",
            "bos_token_id": config.bos_token_id,
            "eos_token_id": list(config.eos_token_ids),
            "pad_token_id": pad,
            "vocab_size": config.vocab_size,
            "context_length": config.max_seq_len,
            "decoder": {
                "filename": "model.onnx",
                "head_size": config.head_dim,
                "hidden_size": config.hidden_size,
                "num_attention_heads": config.num_heads,
                "num_hidden_layers": config.num_layers,
                "num_key_value_heads": config.num_kv_heads,
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": config.max_seq_len,
            "min_length": 0,
            "num_beams": 1,
            "past_present_share_buffer": True,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
            "repetition_penalty": 1.0,
        },
    }


def padding_id(config: ModelConfig, tokenizer: Tokenizer, where: Path) -> int:
    """An id that no prompt holds: genai finds a row's last token by scanning for the padding.

    The model's own where it is a token of its own, else a token for it, else what the vocabulary leaves free,
    else an `<unk>` that byte tokens make needless. Raises E_MODEL_INVALID.
    """
    taken = {config.bos_token_id, *config.eos_token_ids}
    named = [tokenizer.token_id(name) for name in _PADDING]
    free = [tokenizer.vocab_size] if tokenizer.vocab_size < config.vocab_size else []
    unknown = [_needless_unknown(tokenizer)]
    for candidate in (config.pad_token_id, *named, *free, *unknown):
        if candidate is not None and 0 <= candidate < config.vocab_size and candidate not in taken:
            return candidate
    raise SlmError(
        "E_MODEL_INVALID",
        "o onnxruntime-genai precisa de um token só para preencher linhas, e este modelo não tem nenhum.",
        where=where,
        hint="Exporte para o ptbr-slm:  ptbr-slm export MODELO -o PASTA --target cpu",
    )


def _needless_unknown(tokenizer: Tokenizer) -> int | None:
    model = json.loads(tokenizer.to_json())["model"]
    name = model.get("unk_token")
    return tokenizer.token_id(name) if name and model.get("byte_fallback") else None


def check_mask(folder: Path, twin: Path) -> float:
    """The largest logit difference between the graph, read through a mask, and its `gqa` twin's rows.

    A ragged batch of three, padded on the right, is read at once, then two tokens more of each row. In
    standard deviations of the logits; infinite for what is not a number.
    """
    import onnxruntime as ort

    from ptbr_slm.runtime.load import open_engine
    from ptbr_slm.storage.model_folder import read_config

    config = read_config(folder)
    length = min(7, config.max_seq_len - 2)
    lengths = [length, max(1, length - 3), max(1, length - 5)]
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (3, length + 2))
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    shape = (3, config.num_kv_heads, length + 2, config.head_dim)
    past = {
        f"past_key_values.{layer}.{part}": np.zeros(shape, np.float32)
        for layer in range(config.num_layers)
        for part in ("key", "value")
    }
    engine, worst, spread = open_engine(twin, "cpu"), 0.0, 0.0
    engine.reset(3, length + 2)
    mask = np.array([[int(at < size) for at in range(length)] for size in lengths], dtype=np.int64)
    chunk = ids[:, :length].astype(np.int64)
    for step in range(3):
        logits, *present = session.run(None, {"input_ids": chunk, "attention_mask": mask, **past})
        for row, size in enumerate(lengths):
            new = ids[row, :size] if step == 0 else chunk[row]
            alone = engine.prefill(row, new.tolist())  # (V,)
            difference = np.nan_to_num(np.abs(alone - logits[row, 0]), nan=np.inf)
            worst, spread = max(worst, float(difference.max())), max(spread, float(alone.std()))
        past = dict(zip(past, present, strict=True))
        mask = np.concatenate([mask, np.ones((3, 1), np.int64)], axis=1)
        chunk = ids[:, length + min(step, 1)][:, None].astype(np.int64)
    engine.close()
    return worst / spread if spread else worst
