"""Runs one section: `python -m ptbr_slm.bench.gpu.section ASKED.json ANSWER.json`."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from ptbr_slm.bench.gpu.asked import Asked
from ptbr_slm.bench.gpu.results import Answer, explain
from ptbr_slm.faults import maybe_fail

_MODULES = {"onnx": "exports", "tests": "gpu_tests"}
"""Section -> module here, where the names differ."""


def main() -> None:
    """Measure what the first file asks, and write each line into the second as it comes."""
    asked = Asked(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    answer = Answer(path=Path(sys.argv[2]))
    answer.save()
    try:
        maybe_fail(f"bench.{asked.section}")
        measure_of(asked.section)(asked, answer)
    except Exception as error:
        answer.status, answer.reason = explain(error)
    answer.save()


def measure_of(section: str) -> Callable[[Asked, Answer], None]:
    """The function of a section, imported where it is needed: some need torch, some must not have it."""
    module = importlib.import_module(f"ptbr_slm.bench.gpu.{_MODULES.get(section, section)}")
    measure: Callable[[Asked, Answer], None] = module.measure
    return measure


if __name__ == "__main__":
    main()
