"""Which text a model is measured on: the one named, the one its training held out, or one of our own."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.prepared import PreparedData, Split
from ptbr_slm.errors import SlmError
from ptbr_slm.text import text_to_path
from ptbr_slm.tokenizer import Tokenizer

Ids = npt.NDArray[np.int64]

BUILT_IN = "texto incluído no ptbr-slm"
TOKENS = 2048
"""Targets measured at most. Two precisions are compared token by token, so the text's own variation cancels:
on 8,192 targets the change of int4 had a standard error of 0.006 % (measured)."""


@dataclass(frozen=True, slots=True)
class HeldOutText:
    """Windows of token ids, and where they come from."""

    name: str
    """For people and the manifest: a folder, or `BUILT_IN`."""
    windows: tuple[Ids, ...]
    """Each (T + 1,) with T <= seq_len: T targets, predicted from what is before them in the window."""


def held_out_text(
    source: Path, tokenizer: Tokenizer, seq_len: int, *, data: Path | None = None, tokens: int = TOKENS
) -> HeldOutText:
    """The held-out text for the model folder `source`, about `tokens` targets in windows of `seq_len`.

    data: prepared data whose valid split to read. Without it, the data of the run that `source` lies in, and
    where there is none (or its folder is gone, or has no valid split), the text that comes with the package.
    Raises what `PreparedData.open` raises for `data`, E_TOKENIZER_MISMATCH, E_DATA_TOO_SMALL.
    """
    if data is not None:
        text = _from_prepared(data, tokenizer, seq_len, tokens)
        if text is None:
            raise SlmError(
                "E_DATA_TOO_SMALL",
                "os dados não têm texto separado para validação.",
                where=data,
                hint="Prepare-os com mais documentos e --valid-fraction 0.05, ou deixe --data de fora.",
            )
        return text
    of_the_run = run_data(source)
    if of_the_run is not None and of_the_run.exists():
        try:
            text = _from_prepared(of_the_run, tokenizer, seq_len, tokens)
        except SlmError:  # moved, altered or made anew since: the report names the text that was read instead
            text = None
        if text is not None:
            return text
    return built_in_text(tokenizer, seq_len, tokens=tokens)


def built_in_text(tokenizer: Tokenizer, seq_len: int, *, tokens: int = TOKENS) -> HeldOutText:
    """Some 6 KB of Portuguese prose and dialogue, written for this package."""
    text = resources.files("ptbr_slm.eval").joinpath("held_out_pt.txt").read_text(encoding="utf-8")
    ids = np.array(tokenizer.encode(text.strip()), dtype=np.int64)
    starts = range(0, len(ids) - 1, seq_len)
    windows = [ids[start : start + seq_len + 1] for start in starts]
    return HeldOutText(BUILT_IN, tuple(windows[: max(1, tokens // seq_len)]))


def run_data(source: Path) -> Path | None:
    """The prepared data named by the config.resolved.toml of the run that `source` lies in, if any."""
    for folder in list(source.resolve().parents)[:2]:  # RUN/final, RUN/checkpoints/step-00000500
        settings = folder / "config.resolved.toml"
        if settings.is_file():
            try:
                return text_to_path(tomllib.loads(settings.read_text(encoding="utf-8"))["data"])
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return None
    return None


def _from_prepared(folder: Path, tokenizer: Tokenizer, seq_len: int, tokens: int) -> HeldOutText | None:
    prepared = PreparedData.open(folder, verify=False)
    prepared.check_tokenizer(tokenizer, folder)
    windows = _spread(prepared.split("valid"), seq_len, tokens)
    readable = any(int(tokenizer.byte_lengths[window[1:]].sum()) for window in windows)
    return HeldOutText(str(folder), windows) if readable else None


def _spread(split: Split, seq_len: int, tokens: int) -> tuple[Ids, ...]:
    """Windows spread evenly over the split, as training's evaluation reads it."""
    available = math.ceil(max(0, split.tokens - 1) / seq_len)
    wanted = min(available, max(1, tokens // seq_len))
    starts = [index * available // wanted * seq_len for index in range(wanted)]
    return tuple(split.read(start, min(split.tokens, start + seq_len + 1)) for start in starts)
