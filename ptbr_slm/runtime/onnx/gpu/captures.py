"""Ids of the CUDA graphs that one session captures, and an end to their number.

ONNX Runtime's CUDA provider (1.31.1) keeps what it captured until the session ends: `release_captured_graph`
does nothing there. A server whose buffers come and go would fill the card with graphs of buffers that went.
"""

from __future__ import annotations

import logging
from typing import Any

import onnxruntime as ort

LIMIT = 512
"""Graphs of one session: some for each range of rows and each size of the buffers."""

_NOT_CAPTURED = "-1"
"""The CUDA provider's id for a run that is neither captured nor replayed."""

_log = logging.getLogger(__name__)


class Captures:
    """The graphs of one session."""

    def __init__(self) -> None:
        self._made = 0

    def next(self) -> tuple[Any, int]:
        """RunOptions of runs that are captured under an id of their own, and the id.

        Once there are `LIMIT`, those of a run that is not captured, and 0.
        """
        if self._made >= LIMIT:
            if self._made == LIMIT:
                self._made += 1
                _log.warning(
                    "Já há %d CUDA graphs gravados: os passos novos rodam sem gravação, um pouco mais "
                    "devagar. Abra o modelo de novo para recomeçar.",
                    LIMIT,
                )
            return free_run(), 0
        self._made += 1
        return _options(str(self._made)), self._made


def free_run() -> Any:
    """RunOptions of a run whose shapes vary."""
    return _options(_NOT_CAPTURED)


def _options(graph: str) -> Any:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph)
    return options
