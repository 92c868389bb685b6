"""One thread for all runs of a card's sessions, whichever thread asks.

ONNX Runtime's CUDA provider keeps captured graphs and cuBLAS handles for each thread that runs a session (its
PerThreadContext): a server's threads would capture every step anew, each in memory of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Found = TypeVar("Found")


class HomeThread:
    """The thread; it ends with the last session that it runs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ptbr-slm-gpu")
        self._here = threading.local()

    def bound(self, session: Any) -> Any:
        """The session, its runs moved here."""
        return _BoundSession(session, self)

    def run(self, work: Callable[[], Found]) -> Found:
        """What `work` returns, run here; raises what it raises.

        Several runs in one `work` cost one change of threads, not one each.
        """
        if getattr(self._here, "at_home", False):
            return work()
        return self._pool.submit(self._work, work).result()

    def _work(self, work: Callable[[], Found]) -> Found:
        self._here.at_home = True
        return work()


class _BoundSession:
    def __init__(self, session: Any, home: HomeThread) -> None:
        self._session, self._home = session, home

    def run_with_iobinding(self, io: Any, options: Any = None) -> None:
        """As the session's own; waits for it, and raises what it raises."""
        self._home.run(lambda: self._session.run_with_iobinding(io, options))

    def release_captured_graph(self, number: int) -> None:
        """As the session's own, where it has that (1.26 has not): what was captured belongs to the thread."""
        release = getattr(self._session, "release_captured_graph", None)
        if release is not None:
            self._home.run(lambda: release(number))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
