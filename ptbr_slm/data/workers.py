"""Batches processed in worker processes; the answers come in the order of the batches."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from ptbr_slm.data.batches import Batch
from ptbr_slm.data.encode import Encoder
from ptbr_slm.data.process import Cleaned, Processed, Processor
from ptbr_slm.errors import SlmError

MANY_BYTES = 64 << 20
MAX_WORKERS = 8
"""More would wait for the one process that reads and writes."""

Between = Callable[[Cleaned], Cleaned]
"""What needs the documents of all batches in order, after their cleaning and before their tokens."""

Given = TypeVar("Given")
Answer = TypeVar("Answer")

_processor: Processor
_encoder: Encoder


def _start_worker(processor: Processor) -> None:
    global _processor, _encoder
    os.environ["RAYON_NUM_THREADS"] = "1"  # the tokenizers library: a core for each worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, and ends its workers
    _processor, _encoder = processor, processor.encoder()


def _clean(batch: Batch) -> Cleaned:
    return _processor.clean(batch)


def _finish(cleaned: Cleaned) -> Processed:
    return _processor.finish(cleaned, _encoder)


def _process(batch: Batch) -> Processed:
    return _finish(_clean(batch))


def workers_for(input_bytes: int) -> int:
    """Processes worth starting: one a core, for inputs that outlast their start of a second or two."""
    return min(os.cpu_count() or 1, MAX_WORKERS) if input_bytes >= MANY_BYTES else 1


def process_in_order(
    processor: Processor, batches: Iterable[Batch], workers: int = 1, between: Between | None = None
) -> Iterator[Processed]:
    """Each batch processed, in the order of `batches`, whatever the number of worker processes.

    workers: 1 processes here. At most four batches a worker wait in memory. between: runs in this process, on
    every batch in order, ahead of those that are yielded. Raises E_MEMORY where the system ends a worker.
    """
    if workers <= 1:
        encoder = processor.encoder()
        for batch in batches:
            cleaned = processor.clean(batch)
            yield processor.finish(between(cleaned) if between else cleaned, encoder)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(processor,)
    )
    waiting = 2 * workers
    try:
        if between is None:
            yield from _in_order(pool, _process, batches, waiting)
        else:
            cleaned_batches = _in_order(pool, _clean, batches, waiting)
            yield from _in_order(pool, _finish, map(between, cleaned_batches), waiting)
    except BrokenProcessPool as error:
        raise SlmError(
            "E_MEMORY",
            "o sistema encerrou um dos processos que limpam os textos: provavelmente faltou memória.",
            where=f"--workers {workers}",
            hint="Use menos processos (--workers 1).",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ProcessPoolExecutor, work: Callable[[Given], Answer], items: Iterable[Given], most: int
) -> Iterator[Answer]:
    """What `work` answers for each item, in order; at most `most` items wait."""
    waiting: deque[Future[Answer]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
