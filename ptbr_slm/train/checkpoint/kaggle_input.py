"""The run of an earlier notebook version, mounted read-only below /kaggle/input: found, copied, checked.

A version's output is an input of the next one. Where it holds this very run (same data, tokenizer and shape
of the model), its newest complete checkpoint is copied into the run's folder, and training goes on there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import atomic_folder, write_bytes, write_text
from ptbr_slm.system import kaggle_root
from ptbr_slm.train.checkpoint.files import checkpoint_bytes, list_checkpoints, read_state
from ptbr_slm.train.checkpoint.retention import ensure_space
from ptbr_slm.train.config import AUTO, TrainConfig
from ptbr_slm.train.events import Copied, Listener, Warned
from ptbr_slm.train.run_folder import SESSIONS
from ptbr_slm.train.state import TrainState, began_with

_DEEPEST = 8
"""Folders below /kaggle/input that are looked into: a notebook's output, its runs, a run, its checkpoints."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes two checkpoints those of one run, whatever folder they lie in."""

    model: dict[str, Any]
    """The model's config.json."""
    data_sha256: str
    tokenizer_sha256: str

    def is_of(self, body: dict[str, Any]) -> bool:
        """Whether a state.json belongs to it."""
        found = (body.get("model"), began_with(body), body.get("tokenizer_sha256"))
        return found == (self.model, self.data_sha256, self.tokenizer_sha256)


def bring_newer(
    config: TrainConfig,
    identity: Identity,
    than: int,
    differences: Callable[[dict[str, Any]], str],
    listener: Listener,
) -> tuple[Path, TrainState] | None:
    """Copy the newest complete checkpoint of this run that is newer than step `than`; None where none is.

    Where several runs qualify, those without `differences` in their settings come first. A corrupt one is
    named and skipped. The run's metrics.jsonl comes along. Raises E_DISK_FULL; and E_CONFIG_CHANGED, before
    copying, where the settings differ and config.allow_config_change is not set.
    """
    found = []
    for path, body in _states_below(kaggle_root() / "input"):
        if body is None:
            _skip(path, "E_CHECKPOINT_CORRUPT", "training/state.json não se lê.", listener)
        elif identity.is_of(body) and body["step"] > than:
            found.append((differences(body.get("config", {})), body["step"], path))
    for changed, step, source in sorted(found, key=lambda item: (not item[0], item[1]), reverse=True):
        if changed and not config.allow_config_change:
            raise _settings_changed(source, changed)
        try:
            state = _copy(source, config)
        except SlmError as error:
            if error.code != "E_CHECKPOINT_CORRUPT":
                raise
            _skip(source, error.code, error.message, listener)
            continue
        target = _target(config, source)
        message = f"Checkpoint do passo {step} copiado de {source}, com os sha256 conferidos."
        listener.event(Copied(step=step, source=str(source), path=str(target), message=message))
        return target, state
    return None


def _skip(source: Path, code: str, why: str, listener: Listener) -> None:
    message = f"{why} Pulado: {source}."
    listener.event(Warned(code=code, where=str(source), message=message))


def _settings_changed(source: Path, changed: str) -> SlmError:
    return SlmError(
        "E_CONFIG_CHANGED",
        f"este treino já começou numa versão anterior do notebook, com outra configuração: {changed}.",
        where=source,
        hint="Repita com os valores de antes, aceite os novos com --allow-config-change, ou comece outro "
        "treino com --resume never.",
    )


def _copy(source: Path, config: TrainConfig) -> TrainState:
    """Put a checked copy into the run's folder. Raises E_CHECKPOINT_CORRUPT, E_DISK_FULL or E_IO."""
    target = _target(config, source)
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    ensure_space(target.parent, list_checkpoints(target.parent), size + checkpoint_bytes(0), AUTO)
    with atomic_folder(target) as temporary:
        for file in (path for path in source.rglob("*") if path.is_file()):
            copy = temporary / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)  # contents only: the mount's folders and files are read-only
        state = read_state(temporary)
        for name in ("metrics.jsonl", SESSIONS):  # first: a kill in between leaves no run without its past
            past = source.parent.parent / name
            if past.is_file():
                write_bytes(config.output / name, past.read_bytes())
    write_text(target.parent / "latest", target.name + "\n")
    return state


def _target(config: TrainConfig, source: Path) -> Path:
    return config.output / "checkpoints" / source.name


def _states_below(root: Path) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """(checkpoint, its state.json, not checked, None where it cannot be read) of every run below `root`."""
    for folder, names, _ in os.walk(root):
        if Path(folder).name == "checkpoints":
            names.clear()
            for checkpoint in list_checkpoints(Path(folder)):
                yield checkpoint, _state(checkpoint)
        elif len(Path(folder).relative_to(root).parts) >= _DEEPEST:
            names.clear()


def _state(checkpoint: Path) -> dict[str, Any] | None:
    try:
        body = json.loads((checkpoint / "training" / "state.json").read_bytes())
    except (OSError, ValueError):
        return None
    return body if isinstance(body, dict) and isinstance(body.get("step"), int) else None
