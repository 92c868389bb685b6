"""The text that `kquant` and `gptq` watch a model read: never the one that its quality is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.eval.held_out import run_settings
from ptbr_slm.tokenizer import Tokenizer

Ids = npt.NDArray[np.int64]

BUILT_IN = "texto de calibração do ptbr-slm"
TOKENS = 8192
"""Read at most. On a trained model 512 were too few and 32,768 no better.

See docs/decisions/0048-int4-gptq.md."""
WINDOW = 256
"""Tokens of context."""


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """Windows of token ids, and where they come from."""

    name: str
    """For people and the manifest, which others may read: of a path its last part only."""
    windows: tuple[Ids, ...]
    """Each (T,), T at most `WINDOW` and the model's context."""


def calibration_text(
    source: Path, tokenizer: Tokenizer, context: int, text: Path | None = None
) -> CalibrationText:
    """About `TOKENS` tokens for the model folder `source`.

    text: a text file, or prepared data, of which the training part is read. Without it the training part of
    the data of the run that `source` lies in, and where there is none 6 KB of Portuguese that come with this
    package. Raises E_NOT_FOUND, E_DATA_EMPTY, E_TOKENIZER_MISMATCH and what `PreparedData.open` raises.
    """
    window = min(WINDOW, context)
    if text is not None:
        windows = (
            _prepared(text, tokenizer, window) if text.is_dir() else _cut(_read(text), tokenizer, window)
        )
        if not windows:
            raise SlmError(
                "E_DATA_EMPTY",
                "o texto de calibração está vazio.",
                where=text,
                hint="Aponte --calibration para um arquivo de texto ou para dados preparados.",
            )
        return CalibrationText(text.name, windows)
    of_the_run = run_settings(source).data
    if of_the_run is not None and of_the_run.exists():
        try:
            return CalibrationText(of_the_run.name, _prepared(of_the_run, tokenizer, window))
        except SlmError:  # moved, altered or made anew since: the report names the text that was read instead
            pass
    return built_in_calibration(tokenizer, context)


def built_in_calibration(tokenizer: Tokenizer, context: int) -> CalibrationText:
    """The 6 KB of Portuguese that come with this package."""
    ours = resources.files("ptbr_slm_export.quantization").joinpath("calibration_pt.txt")
    cut = _cut(ours.read_text(encoding="utf-8"), tokenizer, min(WINDOW, context))
    return CalibrationText(BUILT_IN, cut)


def _read(path: Path) -> str:
    with os_errors(path):
        return path.read_text(encoding="utf-8-sig", errors="replace")


def _cut(text: str, tokenizer: Tokenizer, window: int) -> tuple[Ids, ...]:
    """The first `TOKENS` tokens of a text; nothing of an empty one."""
    if not text.strip():
        return ()
    ids = np.array(tokenizer.encode(text.strip()), dtype=np.int64)[:TOKENS]
    return tuple(ids[start : start + window] for start in range(0, len(ids), window))


def _prepared(folder: Path, tokenizer: Tokenizer, window: int) -> tuple[Ids, ...]:
    """Windows spread evenly over the training part."""
    prepared = PreparedData.open(folder, verify=False)
    prepared.check_tokenizer(tokenizer, folder)
    split = prepared.split("train")
    available = split.tokens // window
    wanted = min(available, max(1, TOKENS // window))
    starts = [index * available // wanted * window for index in range(wanted)]
    return tuple(split.read(start, start + window) for start in starts)
