"""A run in a process of its own: one library's threads and memory never meet another's."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol, TypeVar


class Job(Protocol):
    """What a run is given."""

    @property
    def threads(self) -> int:
        """Of its matrix products."""


AnyJob = TypeVar("AnyJob", bound=Job)
Result = TypeVar("Result")


def alone(run: Callable[[AnyJob], Result], job: AnyJob) -> Result:
    """Run it in a fresh process. Raises RuntimeError where it fails."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    os.environ["OMP_NUM_THREADS"] = str(job.threads)  # the child inherits it
    process = context.Process(target=_answer, args=(theirs, run, job))
    process.start()
    theirs.close()
    try:
        result: Result = mine.recv()
    except EOFError:
        raise RuntimeError(f"{getattr(run, '__name__', run)} failed; its error is above") from None
    finally:
        process.join()
    return result


def _answer(pipe: Connection, run: Callable[[AnyJob], Result], job: AnyJob) -> None:
    pipe.send(run(job))
