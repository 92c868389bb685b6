"""The first runs of a session that has to prove itself: what would fail later, and cost time, does so now.

Kernels are loaded (onnxruntime#21541), steps captured, and every kind of call is made once: a single token,
chunks up to a whole one, a choice of each kind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ptbr_slm.runtime.sampling.draws import GREEDY, Draw
from ptbr_slm.runtime.slots import PREFILL_CHUNK

if TYPE_CHECKING:
    from ptbr_slm.runtime.onnx.engine import OnnxEngine

_CHUNKS = tuple(size for size in (16, 32, 64, 128, 256, 512) if size <= PREFILL_CHUNK)
"""Weight-only products choose a kernel for each power of two, from 16 on without one that takes any size
(onnxruntime#29691)."""

_DRAWN = Draw(temperature=1.0, top_k=1, top_p=1.0, min_p=0.0, uniform=0.5)
_log = logging.getLogger(__name__)


def warm_up(engine: OnnxEngine, check: Callable[[], None]) -> None:
    """Run on a slot that is closed afterwards. check: called once, after the first run.

    Where choosing tokens on the device fails, the host chooses them from then on.
    """
    row = engine.open_slot()
    engine.prefill(row, [0])
    check()
    for tokens in _CHUNKS:
        engine.truncate(row, 0)
        engine.prefill(row, [0] * min(tokens, engine.config.max_seq_len - 1))
    engine.truncate(row, 1)
    engine.decode([row], [0])
    for draw in (GREEDY, _DRAWN) if engine.draws_tokens else ():
        engine.truncate(row, 1)
        try:
            engine.decode_drawn([row], [0], [draw])
        except Exception as error:
            cause = " ".join(str(error.__cause__ or error).split())[:160]
            _log.warning("A placa não escolhe os tokens (%s): o processador os escolhe.", cause)
            engine.choose_on_host()
            break
    engine.close_slot(row)
