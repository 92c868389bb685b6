"""Batches processed in worker processes; the answers come in the order of the batches."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from ptbr_slm.data.batches import Batch
from ptbr_slm.data.process import Processed, Processor
from ptbr_slm.errors import SlmError

MANY_BYTES = 64 << 20
MAX_WORKERS = 8
"""More would wait for the one process that reads and writes."""

_worker: Callable[[Batch], Processed]


def _start_worker(processor: Processor) -> None:
    global _worker
    os.environ["RAYON_NUM_THREADS"] = "1"  # the tokenizers library: a core for each worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends its workers
    _worker = processor.make()


def _work(batch: Batch) -> Processed:
    return _worker(batch)


def workers_for(input_bytes: int) -> int:
    """Processes worth starting: one a core, for inputs that outlast their start of a second or two."""
    return min(os.cpu_count() or 1, MAX_WORKERS) if input_bytes >= MANY_BYTES else 1


def process_in_order(processor: Processor, batches: Iterable[Batch], workers: int = 1) -> Iterator[Processed]:
    """Each batch processed, in the order of `batches`, whatever the number of worker processes.

    workers: 1 processes here. At most two batches a worker wait in memory. Raises E_MEMORY where the system
    ends a worker.
    """
    if workers <= 1:
        yield from map(processor.make(), batches)
        return
    waiting: deque[Future[Processed]] = deque()
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(processor,)
    )
    try:
        for batch in batches:
            waiting.append(pool.submit(_work, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise SlmError(
            "E_MEMORY",
            "o sistema encerrou um dos processos que limpam os textos: provavelmente faltou memória.",
            where=f"--workers {workers}",
            hint="Use menos processos (--workers 1).",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
