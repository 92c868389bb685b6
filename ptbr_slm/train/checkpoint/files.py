"""Checkpoints that survive: written whole or not at all, read only where every sha256 agrees.

    checkpoints/step-00000500/   a model folder
      training/optimizer.safetensors   AdamW's moments, PyTorch's random state
      training/adapter.safetensors     what is trained, where the model's own weights are frozen
      training/state.json              step, cursor, scaler, settings, identities of data and tokenizer
    checkpoints/latest           the name of the newest complete one

No pickle anywhere: NumPy's random state cannot be read under `weights_only`, and pickles run code.
"""

from __future__ import annotations

import json
import platform
import random
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open

from ptbr_slm.errors import SlmError
from ptbr_slm.faults import maybe_fail
from ptbr_slm.model import Llama
from ptbr_slm.storage.atomic import atomic_folder, write_json, write_text
from ptbr_slm.storage.manifest import read_manifest, write_manifest
from ptbr_slm.storage.model_folder import write_model_files
from ptbr_slm.storage.weights import Array, WeightReader, stored_arrays, write_safetensors
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.checkpoint.retention import BYTES_PER_PARAMETER, drop_old, ensure_space
from ptbr_slm.train.optim import deferred, deferred_state, load_optimizer_arrays
from ptbr_slm.train.parallel.shards import FOLDER as SHARDS
from ptbr_slm.train.parallel.shards import (
    fill,
    gather,
    is_sharded,
    load_into_shards,
    load_shards,
    save_shards,
)
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks
from ptbr_slm.train.state import ADDED, STATE_SCHEMA, TrainState, first_data
from ptbr_slm.version import __version__

_NAME = re.compile(r"step-(\d{8,})")
ADAPTER = "adapter.safetensors"
"""In training/: the trained parameters of a model whose weights are frozen, by their names in `Llama`. Its
model.safetensors has them merged, from which they cannot be had back."""


def checkpoint_bytes(num_parameters: int, frozen: int = 0) -> int:
    """Disk that one checkpoint takes, about; 2 MiB for tokenizer and state. frozen: parameters among them."""
    return BYTES_PER_PARAMETER * (num_parameters - frozen) + 4 * frozen + (2 << 20)


def next_bytes(model: Llama) -> int:
    """Disk that a checkpoint of `model` takes, about."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return checkpoint_bytes(sum(n for n, _ in counts), sum(n for n, trained in counts if not trained))


def has_frozen(model: Llama) -> bool:
    """Whether some weights are not trained, but adapters beside them."""
    return any(not parameter.requires_grad for parameter in model.parameters())


def model_arrays(model: Llama) -> Mapping[str, Array]:
    """The weights of a whole model as `Llama.to_hf_weights`; without adapters each is copied only when it is
    written.
    """
    if has_frozen(model):
        return model.to_hf_weights()
    return {name: deferred(view) for name, view in model.folder_views().items()}


def write_checkpoint(
    folder: Path,
    model: Llama,
    optimizer: torch.optim.Optimizer,
    tokenizer: Tokenizer,
    state: TrainState,
    *,
    keep: int,
    companions: Mapping[str, bytes] = MappingProxyType({}),
    protected: Collection[str] = (),
    replace: bool = False,
    ranks: Ranks = SINGLE_PROCESS,
) -> Path:
    """Write folder/step-N, then `latest`, then remove old ones (`checkpoint.retention`). Returns step-N.

    All ranks call it and return when the main one has written it; of a sharded model each writes its part.
    companions: see `write_model_files`. protected: names that stay. replace: write it even where a
    checkpoint of this step exists.
    Raises E_DISK_FULL (before writing, where that can be foreseen), leaving earlier checkpoints as they were.
    """
    target = folder / f"step-{state.step:08d}"
    size = next_bytes(model)

    def write(held: ExitStack) -> Path:
        """Weights and, but for shards, moments; `held` publishes the folder at its end."""
        ensure_space(folder, list_checkpoints(folder), size, keep)
        temporary = held.enter_context(atomic_folder(target))
        write_model_files(temporary, whole.config, model_arrays(whole), tokenizer, companions)
        maybe_fail("checkpoint.after_weights")
        (temporary / "training").mkdir()
        if has_frozen(model):
            write_safetensors(temporary / "training" / ADAPTER, _trained_arrays(model))
        moments: dict[str, Array] = {} if sharded else {**deferred_state(model, optimizer)}
        write_safetensors(temporary / "training" / "optimizer.safetensors", moments | _random_arrays())
        return temporary

    def publish(held: ExitStack, temporary: Path) -> None:
        maybe_fail("checkpoint.after_optimizer")
        body = asdict(state) | {"random": _random_json(), "versions": _versions()}
        write_json(temporary / "training" / "state.json", {"schema": STATE_SCHEMA} | body)
        write_manifest(temporary, "checkpoint", step=state.step)
        maybe_fail("checkpoint.before_rename")
        held.close()
        maybe_fail("checkpoint.after_rename")

    def note() -> None:
        write_text(folder / "latest", target.name + "\n")
        drop_old(folder, list_checkpoints(folder), size, keep, protected)

    # It exists where a resumed run stops before its first step.
    if ranks.from_main(lambda: replace or not target.exists()):
        sharded, whole = is_sharded(model), gather(model, ranks)
        with ExitStack() as held:
            temporary = ranks.from_main(lambda: write(held))
            if sharded:
                save_shards(temporary, model, optimizer, ranks)
            ranks.from_main(lambda: publish(held, temporary))
    ranks.from_main(note)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """The step-N folders, newest first, complete or not."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix("step-"))


def read_state(checkpoint: Path, *, hashes: bool = True) -> TrainState:
    """Check every file of a checkpoint against its manifest and read its state.

    hashes: False compares sizes only, for a checkpoint that another rank has just checked.
    Raises E_CHECKPOINT_CORRUPT, or E_SCHEMA where a newer version wrote it.
    """
    try:
        manifest = read_manifest(checkpoint, hashes=hashes, code="E_CHECKPOINT_CORRUPT")
        if manifest.kind != "checkpoint" or "training/state.json" not in manifest.files:
            raise _corrupt(checkpoint, "não é um checkpoint de treino")
        body = json.loads((checkpoint / "training" / "state.json").read_bytes())
        schema = body.get("schema", 1)
        if schema > STATE_SCHEMA:
            raise SlmError(
                "E_SCHEMA",
                f"feito por uma versão mais nova do ptbr-slm (state.json: schema {schema} > {STATE_SCHEMA}).",
                where=checkpoint,
                hint="Atualize com:  pip install -U ptbr-slm",
            )
        names = [name for name in TrainState.__dataclass_fields__ if ADDED.get(name, 1) <= schema]
        state = TrainState(**{name: body[name] for name in names})
        if schema < ADDED["data"]:
            state.data = first_data(body["data_sha256"])
        return state
    except (KeyError, ValueError, TypeError) as error:
        raise _corrupt(checkpoint, f"state.json não confere ({error})") from error
    except SlmError as error:
        if error.code == "E_NOT_FOUND":
            raise _corrupt(checkpoint, "falta o manifesto") from error
        raise


def restore(checkpoint: Path, model: Llama, optimizer: torch.optim.Optimizer) -> None:
    """Put back weights, moments and random states from a checkpoint that `read_state` accepted.

    Frozen weights stay as they are: they have to be there already. Raises E_CHECKPOINT_CORRUPT where its
    moments belong to another model.
    """
    frozen = has_frozen(model)
    if not frozen:
        read = WeightReader(checkpoint).read
        fill(model, lambda whole: whole.load_hf_weights(read))
    try:
        if frozen:
            _load_trained(checkpoint / "training" / ADAPTER, model)
        arrays = stored_arrays(checkpoint / "training" / "optimizer.safetensors")
        moments = {k: v for k, v in arrays.items() if not k.startswith("random.")}
        if (checkpoint / SHARDS).is_dir():
            load_shards(checkpoint, model, optimizer)
        elif is_sharded(model):
            load_into_shards(model, optimizer, moments)
        else:
            load_optimizer_arrays(model, optimizer, moments)
        body = json.loads((checkpoint / "training" / "state.json").read_bytes())
        _restore_random({k: v.make() for k, v in arrays.items() if k not in moments}, body["random"])
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _corrupt(checkpoint, f"o estado do otimizador não confere ({error})") from error


def _trained_arrays(model: Llama) -> dict[str, npt.NDArray[Any]]:
    trained = ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
    return {name: parameter.detach().cpu().numpy() for name, parameter in trained}


@torch.no_grad()
def _load_trained(file: Path, model: Llama) -> None:
    """Put back what `_trained_arrays` gave. Raises ValueError, KeyError or SafetensorError for another's."""
    if not file.is_file():
        raise ValueError(f"falta training/{file.name}")
    with safe_open(file, framework="np") as reader:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                array = reader.get_tensor(name)
                if array.shape != tuple(parameter.shape):
                    raise ValueError(f"{name}: {array.shape} != {tuple(parameter.shape)}")
                parameter.copy_(torch.from_numpy(array.copy()))


def _random_arrays() -> dict[str, npt.NDArray[Any]]:
    states = {"random.torch": torch.get_rng_state().numpy()}
    if torch.cuda.is_available():
        states |= {f"random.cuda.{i}": s.numpy() for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _random_json() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {"python": [version, list(words), gauss], "numpy": [name, np.asarray(keys).tolist(), *rest]}


def _restore_random(arrays: dict[str, npt.NDArray[Any]], body: dict[str, Any]) -> None:
    version, words, gauss = body["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = body["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(torch.from_numpy(arrays["random.torch"].copy()))
    if torch.cuda.is_available():
        for index, state in _cuda_states(arrays):
            if index < torch.cuda.device_count():
                torch.cuda.set_rng_state(torch.from_numpy(state.copy()), index)


def _cuda_states(arrays: dict[str, npt.NDArray[Any]]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    for name, state in arrays.items():
        if name.startswith("random.cuda."):
            yield int(name.rpartition(".")[2]), state


def _versions() -> dict[str, str]:
    return {"ptbr_slm": __version__, "torch": torch.__version__, "numpy": np.__version__,
            "python": platform.python_version()}  # fmt: skip


def _corrupt(checkpoint: Path, message: str) -> SlmError:
    return SlmError(
        "E_CHECKPOINT_CORRUPT",
        f"checkpoint inutilizável: {message}.",
        where=checkpoint,
        hint="Repita com --resume auto, que usa o último checkpoint íntegro.",
    )
