"""With this folder on PYTHONPATH a Python process cannot pickle: an attempt raises, and stands in a log.

multiprocessing starts a process, and returns its answer, through pipes between parent and child with pickle.
That is allowed here, by the module that asks. The log is the file that PTBR_SLM_PICKLE_LOG names.
"""

from __future__ import annotations

import multiprocessing.reduction  # its pickler is a subclass of pickle's own: made before that is replaced
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any


def _refuse() -> None:
    asking = sys._getframe(2).f_globals.get("__name__", "")
    if asking.partition(".")[0] == "multiprocessing":
        return
    with Path(os.environ["PTBR_SLM_PICKLE_LOG"]).open("a", encoding="utf-8") as log:
        log.write("".join(traceback.format_stack(sys._getframe(2))) + traceback.format_exc())
    raise AssertionError(f"{asking} pickles")


def _guarded(function: Any) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        _refuse()
        return function(*arguments, **options)

    return call


class _Pickler(pickle.Pickler):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        _refuse()
        super().__init__(*arguments, **options)


class _Unpickler(pickle.Unpickler):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        _refuse()
        super().__init__(*arguments, **options)


if "PTBR_SLM_PICKLE_LOG" in os.environ:
    assert multiprocessing.reduction.ForkingPickler.__mro__[1] is pickle.Pickler
    for name in ("dump", "dumps", "load", "loads"):
        setattr(pickle, name, _guarded(getattr(pickle, name)))
    pickle.Pickler, pickle.Unpickler = _Pickler, _Unpickler  # type: ignore[misc]
