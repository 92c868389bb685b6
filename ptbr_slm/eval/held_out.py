"""Which text a model is measured on: the one named, the one its training held out, or one of our own."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import EncodedText, HeldOut, held_out_windows
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import text_to_path
from ptbr_slm.tokenizer import Tokenizer

BUILT_IN = "texto incluído no ptbr-slm"
TOKENS = 2048
"""Targets measured at most. Two precisions are compared token by token, so the text's own variation cancels:
on 8,192 targets the change of int4 had a standard error of 0.006 % (measured)."""
WINDOW = 512
"""Targets of a window, of a model whose training is not known: at 32,000 tokens its logits take 64 MiB."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the config.resolved.toml of a run says of its evaluation; None where it does not."""

    data: Path | None = None
    seq_len: int | None = None
    tokens: int | None = None
    """Targets that training's evaluation reads."""


def held_out_text(model: ModelFolder, *, data: Path | None = None, tokens: int = TOKENS) -> HeldOut:
    """About `tokens` targets at most of a model's held-out text, in the windows of its training's evaluation.

    data: prepared data whose valid split to read. Without it, the data of the run that the model lies in, and
    where there is none (or its folder is gone, or has no valid split), the text that comes with the package.
    Raises what `PreparedData.open` raises for `data`, E_TOKENIZER_MISMATCH, E_DATA_TOO_SMALL.
    """
    run = run_settings(model.path)
    context = model.config.max_seq_len
    seq_len = min(run.seq_len or WINDOW, context)
    most = min(tokens, run.tokens or tokens)
    if data is not None:
        text = _from_prepared(data, model.tokenizer, seq_len, most)
        if text is None:
            raise SlmError(
                "E_DATA_TOO_SMALL",
                "os dados não têm texto separado para validação.",
                where=data,
                hint="Prepare-os com mais documentos e --valid-fraction 0.05, ou deixe --data de fora.",
            )
        return text
    if run.data is not None and run.data.exists():
        try:
            text = _from_prepared(run.data, model.tokenizer, seq_len, most)
        except SlmError:  # moved, altered or made anew since: the report names the text that was read instead
            text = None
        if text is not None:
            return text
    return built_in_text(model.tokenizer, min(WINDOW, context), tokens=tokens)


def built_in_text(tokenizer: Tokenizer, seq_len: int, *, tokens: int = TOKENS) -> HeldOut:
    """Some 6 KB of Portuguese prose and dialogue, written for this package."""
    text = resources.files("ptbr_slm.eval").joinpath("held_out_pt.txt").read_text(encoding="utf-8")
    ids = np.array(tokenizer.encode(text.strip()), dtype=np.int64)
    found = held_out_windows(EncodedText(ids), tokenizer, seq_len, tokens, name=BUILT_IN)
    assert found is not None
    return found


def run_settings(model: Path) -> RunSettings:
    """What the run that the model folder lies in wrote of its evaluation, if it lies in a run."""
    for folder in list(model.resolve().parents)[:2]:  # RUN/final, RUN/checkpoints/step-00000500
        file = folder / "config.resolved.toml"
        if file.is_file():
            try:
                return _settings(tomllib.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, AttributeError):
                return RunSettings()
    return RunSettings()


def _settings(values: dict[str, Any]) -> RunSettings:
    data, seq_len = values.get("data"), values.get("seq_len")
    tokens = values.get("evaluation", {}).get("tokens")
    return RunSettings(
        data=text_to_path(data) if isinstance(data, str) else None,
        seq_len=seq_len if isinstance(seq_len, int) and seq_len > 0 else None,
        tokens=tokens if isinstance(tokens, int) and tokens > 0 else None,
    )


def _from_prepared(folder: Path, tokenizer: Tokenizer, seq_len: int, tokens: int) -> HeldOut | None:
    prepared = PreparedData.open(folder, verify=False)
    prepared.check_tokenizer(tokenizer, folder)
    split = prepared.split("valid")
    return held_out_windows(
        split,
        tokenizer,
        seq_len,
        tokens,
        name=str(folder),
        data_sha256=prepared.sha256,
        offsets=split.document_offsets(),
    )
