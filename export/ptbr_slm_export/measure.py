"""What an export costs and gives, measured on this machine: size, bits per byte, tokens per second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import HeldOut, bits_per_byte
from ptbr_slm.eval.held_out import held_out_text
from ptbr_slm.runtime.load import open_engine
from ptbr_slm.runtime.protocol import Engine
from ptbr_slm.storage.atomic import scratch_folder
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm_export.export import export_model
from ptbr_slm_export.targets import target_of
from ptbr_slm_export.verification.probe import window_logits

SECONDS = 1.0
"""Spent on decoding, after a step or two that are not counted."""
_WARM_UP = 3
_PROMPT, _CAPACITY = 32, 512
"""Tokens before the first step, and at most until the last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One precision of a model."""

    precision: str
    method: str | None
    bytes: int
    """Size of the graph and its weights."""
    bits_per_byte: float | None
    """On the held-out text; None where it was not measured."""
    tokens_per_second: float | None
    """Decoding one text, batch 1, on this machine as it is now; None for a target of another machine."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def decode_speed(engine: Engine, prompt: list[int], seconds: float = SECONDS) -> float:
    """Tokens per second of greedy decoding after `prompt`, the median step of about `seconds`."""
    capacity = min(_CAPACITY, engine.config.max_seq_len)
    prompt = prompt[: max(1, min(_PROMPT, capacity // 2))]
    engine.reset(1, capacity)
    token = int(np.argmax(engine.prefill(0, prompt)))
    times: list[float] = []
    began = time.perf_counter()
    for _ in range(capacity - len(prompt)):
        started = time.perf_counter()
        token = int(np.argmax(engine.decode([0], [token])[0]))
        ended = time.perf_counter()
        times.append(ended - started)
        if ended - began > seconds:
            break
    return 1 / float(np.median(times[_WARM_UP:] or times))


def measure_precisions(
    source: ModelFolder,
    beside: Path,
    *,
    target: str,
    held_out: Path | None,
    skip: str,
    on_step: Callable[[str], None] = lambda step: None,
) -> Iterator[Measured]:
    """Every other precision of a target, by its default recipe; what is written for it is thrown away.

    beside: where the temporary exports go, since they are as large as the one kept. skip: not this precision.
    A precision that the model's shape does not allow is left out and told to `on_step`.
    """
    destination = target_of(target)
    text = held_out_text(source, data=held_out)
    for precision in destination.precisions:
        if precision == skip:
            continue
        on_step(f"experimentando {precision}")
        with scratch_folder(beside, "comparando") as folder:
            out = folder / precision
            try:
                report = export_model(source, out, target=target, precision=precision, verify=False)
            except SlmError as error:
                if error.code != "E_MODEL_INVALID":
                    raise
                on_step(f"{precision} ficou de fora: {error.message}")
                continue
            bits, speed = _ask(out, text) if runs_here(target) else (None, None)
        recipe = destination.recipe_for(precision)
        yield Measured(
            precision=precision,
            method=recipe.method if recipe else None,
            bytes=report.bytes,
            bits_per_byte=bits,
            tokens_per_second=speed,
        )


def runs_here(target: str) -> bool:
    """Whether a speed measured on this computer says anything about the target."""
    return target == "cpu"


def speed_of(export: Path, source: ModelFolder, held_out: Path | None) -> float:
    """Tokens per second of one export, see `decode_speed`."""
    engine = open_engine(export, "cpu")
    try:
        return decode_speed(engine, _beginning(held_out_text(source, data=held_out)))
    finally:
        engine.close()


def _beginning(text: HeldOut) -> list[int]:
    """The first window's token ids."""
    inputs, _ = next(text.windows())
    ids: list[int] = inputs.tolist()
    return ids


def _ask(export: Path, text: HeldOut) -> tuple[float, float]:
    """Bits per byte and tokens per second."""
    engine = open_engine(export, "cpu")
    try:
        bits = bits_per_byte(lambda tokens: window_logits(engine, tokens), text)
        return bits.value, decode_speed(engine, _beginning(text))
    finally:
        engine.close()
