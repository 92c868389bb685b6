"""One thread for all runs of a GPU's sessions, whichever thread asks.

ONNX Runtime's CUDA provider has captured graphs and cuBLAS handles for each thread that runs a session (its
PerThreadContext): a server's threads would capture every step anew, each in memory of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import onnxruntime as ort

from ptbr_slm.runtime.engines.onnx.providers.session import IOBinding, NodeArg, RunOptions, Session

Answer = TypeVar("Answer")


class _ThreadFlag(threading.local):
    is_worker = False


class WorkerThread:
    """The thread; it ends with the last session that it runs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ptbr-slm-gpu")
        self._flag = _ThreadFlag()

    def wrap(self, session: Session) -> ThreadSession:
        """The session, its runs moved to this thread."""
        return ThreadSession(session, self)

    def run(self, work: Callable[[], Answer]) -> Answer:
        """What `work` returns, run in this thread; raises what it raises.

        Several runs in one `work` cost one change of threads, not one each.
        """
        if self._flag.is_worker:
            return work()
        return self._pool.submit(self._work, work).result()

    def _work(self, work: Callable[[], Answer]) -> Answer:
        self._flag.is_worker = True
        return work()


class ThreadSession:
    """A `Session` whose runs happen in one thread."""

    def __init__(self, session: Session, worker: WorkerThread) -> None:
        self._session, self._worker = session, worker

    def get_inputs(self) -> Sequence[NodeArg]:
        """See `Session.get_inputs`."""
        return self._session.get_inputs()

    def get_outputs(self) -> Sequence[NodeArg]:
        """See `Session.get_outputs`."""
        return self._session.get_outputs()

    def io_binding(self) -> IOBinding:
        """See `Session.io_binding`."""
        return self._session.io_binding()

    def run_with_iobinding(self, io: IOBinding, options: RunOptions | None = None, /) -> None:
        """As the session's own; waits for it, and raises what it raises."""
        self._worker.run(lambda: self._session.run_with_iobinding(io, options))

    def release_captured_graph(self, graph_id: int) -> None:
        """As the session's own, where it has that (1.26 has not): what was captured belongs to the thread."""
        if hasattr(self._session, "release_captured_graph"):
            release = self._session.release_captured_graph
            self._worker.run(lambda: release(graph_id))

    def create_ortvalue_from_shape_and_type(
        self, shape: Sequence[int], dtype: type[Any], device: str, device_id: int
    ) -> Any:
        """See `new_ortvalue`."""
        return new_ortvalue(self._session, shape, dtype, device, device_id)


def new_ortvalue(
    session: Session | None, shape: Sequence[int], dtype: type[Any], device: str, device_id: int = 0
) -> Any:
    """An `onnxruntime.OrtValue` of undefined content.

    session: whose allocator it comes from; None, and onnxruntime 1.26, take Python's own.
    """
    if session is not None and hasattr(session, "create_ortvalue_from_shape_and_type"):
        return session.create_ortvalue_from_shape_and_type(list(shape), dtype, device, device_id)
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, device, device_id)
