"""Many threads over one batch: a thread that needs a token runs the step for all of them.

There is no thread of its own. A caller that finds none of its chunks ready runs one step of the whole batch,
unless another caller is running one; then it waits for the end of that step. A caller that leaves with its
chunk wakes one that still waits. So no step runs that nobody asked for, and a caller that stops reading
blocks nobody: its sequences pause once `MAX_UNREAD` chunks are unread, and give up their slots to others.

`_lock` guards who steps and who waits, for moments only; the batch and the engine belong to the stepping
thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Condition, Lock, get_ident

from ptbr_slm.runtime.batch import Batch, internal_error
from ptbr_slm.runtime.protocol import Engine, closed_error
from ptbr_slm.runtime.results import GenerationChunk
from ptbr_slm.runtime.sequence import SequenceState


class Call:
    """What one caller asked for: some sequences, and their chunks that it has not read yet."""

    def __init__(self, loop: EngineLoop, sequences: Sequence[SequenceState], lock: Lock) -> None:
        self.sequences = tuple(sequences)
        for sequence in self.sequences:
            sequence.deliver = partial(self._receive, sequence)
        self.ready: deque[tuple[SequenceState, GenerationChunk]] = deque()
        self.error: Exception | None = None
        self.running = len(self.sequences)
        self.blocked = 0
        """Threads waiting in `next_chunk`."""
        self.wakeup = Condition(lock)
        self._loop = loop

    def next_chunk(self) -> GenerationChunk | None:
        """The next chunk of any of the sequences; None after the last. Waits, or runs a step.

        Raises what ended a sequence wrongly, E_MEMORY or E_CLOSED for example, after the chunks before it.
        """
        return self._loop.next_chunk(self)

    async def __aiter__(self) -> AsyncIterator[GenerationChunk]:
        """The chunks, for a coroutine; raises as `next_chunk`."""
        while (chunk := await asyncio.to_thread(self.next_chunk)) is not None:
            yield chunk

    def close(self) -> None:
        """End what still runs; from any thread, at any time, again and again. Never waits."""
        for sequence in self.sequences:
            sequence.abandoned = True
        self._loop.collect()

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def can_take(self) -> bool:
        """Whether `take` has something to return or to raise."""
        return bool(self.ready) or self.error is not None or self.over

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return not self.running or all(sequence.abandoned for sequence in self.sequences)

    def take(self) -> GenerationChunk | None:
        """A chunk that is ready, None when there will be no more, or the error."""
        if self.ready:
            sequence, chunk = self.ready.popleft()
            sequence.consumed += 1
            return chunk
        if self.error is not None:
            raise self.error
        return None

    def _receive(self, sequence: SequenceState, what: GenerationChunk | Exception) -> None:
        """Called by the batch, in the stepping thread."""
        if isinstance(what, Exception):
            self.error = what
            for other in self.sequences:  # a call ends whole
                other.abandoned = True
        else:
            self.ready.append((sequence, what))
            self.running -= what.finish_reason is not None


class EngineLoop:
    """Hands a batch's chunks to the callers of any number of threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._batch = Batch(engine)
        self._stepper = 0
        """The thread that runs the engine now; 0 is none."""
        self._idle = Condition(self._lock)
        self._step_due = False
        """Whether a turn was the last to use the engine: it is the texts' turn now."""
        self._progress = Condition(self._lock)
        """Notified after each step, and when a call stops waiting for one."""
        self._exclusive = 0
        """Threads that want the engine between two steps: they go first."""
        self._blocked: dict[Call, None] = {}
        """Calls that threads wait for, the longest wait first."""
        self._closed = False

    def submit(self, sequences: Sequence[SequenceState]) -> Call:
        """Queue sequences; nothing runs before someone asks for a chunk. Raises E_CLOSED."""
        call = Call(self, sequences, self._lock)
        with self._lock:
            if self._closed:
                raise closed_error()
            for sequence in sequences:
                sequence.start_clock()
                self._batch.submit(sequence)
        return call

    def next_chunk(self, call: Call) -> GenerationChunk | None:
        """See `Call.next_chunk`."""
        while True:
            with self._lock:
                if call.can_take():
                    self._wake_next()
                    return call.take()
                if self._busy() or self._exclusive:
                    self._wait(call)
                    continue
                self._stepper = get_ident()
            self._step()

    def collect(self) -> None:
        """Give back at once what was closed, unless a thread is stepping, which will do it.

        Never waits: the garbage collector may close a stream in a thread that holds the lock.
        """
        if self._lock.acquire(blocking=False):
            try:
                if not self._stepper and not self._closed:
                    self._batch.sweep()
                self._notify_ready()
            finally:
                self._lock.release()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The engine for the caller alone, between two steps. Raises E_CLOSED."""
        with self._lock:
            self._exclusive += 1
            try:
                while self._busy():
                    self._idle.wait()
                if self._closed:
                    raise closed_error()
                self._stepper = get_ident()
            finally:
                self._exclusive -= 1
                self._wake_next()
        try:
            yield
        finally:
            with self._lock:
                self._stop_stepping()

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """As `paused`, for one of many short uses; True while there are texts to generate.

        Between two turns a text that waits for its next step has it.
        """
        with self._lock:
            while self._step_due and self._next_waiting() is not None:
                self._progress.wait()
        with self.paused():
            self._step_due = True
            yield bool(self._batch.sequences)

    def forget(self) -> None:
        """Give back the slots that are cached for their prefixes."""
        with self.paused():
            self._batch.forget()

    def close(self) -> None:
        """Close the engine. Calls still open end with E_CLOSED."""
        with self.paused():
            self._batch.fail_all(closed_error)
            self._closed = True
            self._engine.close()

    def _step(self) -> None:
        """One step for everybody. Nothing that goes wrong in it leaves a caller waiting."""
        try:
            self._batch.step()
        except Exception as error:  # a fault of our own, for an engine's errors stay with their sequences
            detail = f"o passo de geração falhou ({type(error).__name__}: {error})."
            self._batch.fail_all(lambda: internal_error(detail))
        except BaseException:  # Ctrl-C is for this thread, not for the others' texts
            self._batch.recover()
            raise
        finally:
            with self._lock:
                try:
                    self._batch.sweep()  # streams closed during the step
                finally:
                    self._step_due = False
                    self._progress.notify_all()
                    self._stop_stepping()

    def _busy(self) -> bool:
        """Whether another thread is stepping; our own id there is left over from a Ctrl-C."""
        return self._stepper not in (0, get_ident())

    def _wait(self, call: Call) -> None:
        """Until the call can take something, or it is our turn to step. Holds the lock before and after."""
        call.blocked += 1
        self._blocked[call] = None
        try:
            call.wakeup.wait()
        except BaseException:
            self._wake_next()
            raise
        finally:
            call.blocked -= 1
            if not call.blocked:
                del self._blocked[call]
                self._progress.notify_all()

    def _stop_stepping(self) -> None:
        """Wake those who can take something, and one for the next step. Holds the lock."""
        self._stepper = 0
        self._notify_ready()
        self._wake_next()

    def _notify_ready(self) -> None:
        """Wake those who can take something. Holds the lock."""
        for call in self._blocked:
            if call.can_take():
                call.wakeup.notify_all()

    def _wake_next(self) -> None:
        """See that a thread that waits runs the next step. Holds the lock."""
        if self._exclusive:
            self._idle.notify()
        elif not self._stepper:
            waiting = self._next_waiting()
            if waiting is not None:
                waiting.wakeup.notify()

    def _next_waiting(self) -> Call | None:
        """The call that has waited longest for a step. Holds the lock."""
        return next((call for call in self._blocked if not call.can_take()), None)
