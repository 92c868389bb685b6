"""Calls on an `EngineLoop`, and threads that may not hang."""

from __future__ import annotations

import threading
from contextlib import contextmanager

from ptbr_slm.runtime.engine_loop import EngineLoop
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sequence import PromptState, make_sequences


def ask(scheduler, engine, *prompts, cancel=None, **options):
    states = [PromptState(ids) for ids in prompts]
    return scheduler.submit(make_sequences(engine, states, SamplingParams(**options), cancel))


def read(call):
    chunks = []
    while (chunk := call.next_chunk()) is not None:
        chunks.append(chunk)
    return chunks


def alone(engine, prompt, **options):
    return read(ask(EngineLoop(engine), engine, prompt, **options))[-1].result


@contextmanager
def at_once(*works, seconds=60):
    """Run functions in threads beside the block; what they raise is raised here, and none may hang."""
    failures = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[work], daemon=True) for work in works]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(seconds)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if failures:
        raise failures[0]
