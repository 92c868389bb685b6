"""`ptbr_slm.generate`, `stream` and `load`: the functions of the package itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, overload

from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.types import GenerationChunk

_Key = tuple[Path, str, int]

_last: tuple[_Key, Model] | None = None
_last_lock = Lock()


def load(path: Path | str, device: str = "auto") -> Model:
    """Open an export or a model folder. device: `auto`, `cpu` or `cuda`."""
    return Model(path, device)


@overload
def generate(prompt: str, *, model: Path | str, device: str = ..., **sampling: Any) -> str: ...
@overload
def generate(
    prompt: Sequence[str], *, model: Path | str, device: str = ..., **sampling: Any
) -> list[str]: ...
def generate(
    prompt: str | Sequence[str], *, model: Path | str, device: str = "auto", **sampling: Any
) -> str | list[str]:
    """Continue a prompt, or a list of them in one batch, with the model in the folder `model`.

    Sampling options are the fields of `SamplingParams`. The last model used stays open, so repeated calls
    do not load it again; it is opened anew when its files change.
    """
    return _cached(model, device).generate(prompt, **sampling)


def stream(
    prompt: str | Sequence[str], *, model: Path | str, device: str = "auto", **sampling: Any
) -> Iterator[GenerationChunk]:
    """As `generate`, chunk by chunk as the tokens come."""
    return _cached(model, device).stream(prompt, **sampling)


def _cached(path: Path | str, device: str) -> Model:
    """The last model, while path, device and files are the same. The one before is left to its streams."""
    global _last
    folder = Path(path).resolve()
    key = (folder, device, _stamp(folder))
    with _last_lock:
        if _last is None or _last[0] != key:
            _last = None  # free the old one before the new one is loaded
            _last = (key, Model(folder, device))
        return _last[1]


def _stamp(folder: Path) -> int:
    """Newest change of the files that name the folder's content, in ns."""
    times = [
        (folder / name).stat().st_mtime_ns
        for name in ("manifest.json", "config.json")
        if (folder / name).exists()
    ]
    return max(times, default=0)
