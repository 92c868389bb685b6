"""One thread for all runs of a card's sessions, whichever thread asks.

ONNX Runtime's CUDA provider keeps captured graphs and cuBLAS handles for each thread that runs a session (its
PerThreadContext): a server's threads would capture every step anew, each in memory of its own.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any


class HomeThread:
    """The thread; it ends with the last session that it runs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ptbr-slm-gpu")

    def bound(self, session: Any) -> Any:
        """The session, its runs moved here."""
        return _BoundSession(session, self._pool)


class _BoundSession:
    def __init__(self, session: Any, pool: ThreadPoolExecutor) -> None:
        self._session, self._pool = session, pool

    def run_with_iobinding(self, io: Any, options: Any = None) -> None:
        """As the session's own; waits for it, and raises what it raises."""
        self._pool.submit(self._session.run_with_iobinding, io, options).result()

    def release_captured_graph(self, number: int) -> None:
        """As the session's own: what was captured belongs to the thread."""
        self._pool.submit(self._session.release_captured_graph, number).result()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)
