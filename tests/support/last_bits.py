"""A pytest plugin that moves the last bits of the logits, as another CPU's kernels would.

    LAST_BITS=1 PYTHONPATH=tests/support pytest -p last_bits tests/runtime

What is added depends on how many tokens and rows a run takes and on LAST_BITS (any number), not on what was
run before: two runs of one shape stay equal to the bit, as they are on every CPU, and two of other shapes do
not. A prefill of a quantised model is left alone, since its equality is promised (`pace.GRAIN`). Tests
that fail under some number hold only on the CPU where they were written.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

MOVED = float(os.environ.get("LAST_BITS_BY", "2e-6"))
"""Logits move by at most this. The small model of tests/runtime shows 1.1e-6 on AVX2 (qemu, EPYC-Rome)."""


@pytest.fixture(scope="session", autouse=True)
def moved_last_bits() -> Any:
    """Logits of every engine, from its first run on."""
    from ptbr_slm.runtime.engines.onnx.bindings import GqaDecodeBinding, StdDecodeBinding
    from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
    from ptbr_slm.runtime.engines.torch import TorchEngine

    with pytest.MonkeyPatch.context() as patch:
        for binding in (GqaDecodeBinding, StdDecodeBinding):
            patch.setattr(binding, "_launch", _moved_step(binding._launch))
        patch.setattr(OnnxEngine, "_append", _moved_prefill(OnnxEngine._append))
        for name in ("prefill", "extend", "decode", "logits"):
            patch.setattr(TorchEngine, name, _moved_result(getattr(TorchEngine, name)))
        yield


def _move(logits: Any, *shape: int) -> None:
    """Move logits (..., V) in place."""
    salt = int(os.environ.get("LAST_BITS", "1"))
    for row, scores in enumerate(logits.reshape(-1, logits.shape[-1])):
        numbers = np.random.default_rng([salt, *shape, row])
        scores += numbers.uniform(-MOVED, MOVED, scores.shape).astype(np.float32)


def _moved_step(launch: Any) -> Any:
    def moved(self: Any) -> None:
        launch(self)
        logits = self.logits.read()
        _move(logits, 1, len(logits))
        if not self._memory.shared:
            self.logits.upload(logits)

    return moved


def _moved_prefill(append: Any) -> Any:
    def moved(self: Any, slot: int, tokens: Any, wanted: Any, logits: Any) -> None:
        append(self, slot, tokens, wanted, logits)
        if self.precision == "fp32":
            _move(logits, 2, len(tokens))

    return moved


def _moved_result(run: Any) -> Any:
    def moved(self: Any, *arguments: Any, **options: Any) -> Any:
        logits = run(self, *arguments, **options)
        _move(logits, 3, len(logits))
        return logits

    return moved
