"""The engine's thread: one thread a model steps its batch; callers of any number of threads and event loops
hand requests in and read their chunks.

The thread begins with the first request. Between two steps it lends the engine to one caller that wants it
for itself (`turn`), so that neither texts nor scores starve. `Call.close` takes no lock: the garbage
collector may call it anywhere. A loop that nobody refers to any longer ends its thread.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from ptbr_slm.runtime.batch import Batch, BatchFigures, BatchLimits, internal_error
from ptbr_slm.runtime.protocol import Engine, closed_error
from ptbr_slm.runtime.results import GenerationChunk
from ptbr_slm.runtime.sequence import SequenceState


class Call:
    """What one caller asked for: some sequences, and their chunks that it has not read yet.

    Read it with `next_chunk` from threads, with `async for` from one coroutine. What is generated waits for
    its reader, at most `max_new_tokens` chunks a text.
    """

    def __init__(self, loop: EngineLoop, sequences: Sequence[SequenceState], wake_interval_s: float) -> None:
        self.sequences = tuple(sequences)
        self._loop = loop  # while it is read, the thread stays
        self._wake_interval_s = wake_interval_s
        self._wake_at = 0.0
        """When the coroutine may be woken again, in seconds of `time.perf_counter`; the first chunk and the
        last of a text do not wait for it."""
        self._ready: deque[GenerationChunk] = deque()
        self._error: Exception | None = None
        self._running = len(self.sequences)
        self._condition = threading.Condition()
        self._blocked = 0
        """Threads in `next_chunk`."""
        self._waiter: asyncio.Future[None] | None = None
        """Of the coroutine in `__anext__`."""

    def next_chunk(self) -> GenerationChunk | None:
        """The next chunk of any of the sequences; None after the last. Waits for it.

        Raises what ended a sequence wrongly, E_MEMORY or E_CLOSED for example, after the chunks before it.
        """
        if not self._can_take():
            with self._condition:
                self._blocked += 1
                try:
                    while not self._can_take():
                        self._condition.wait()
                finally:
                    self._blocked -= 1
        return self._take()

    def __aiter__(self) -> AsyncIterator[GenerationChunk]:
        return self

    async def __anext__(self) -> GenerationChunk:
        """As `next_chunk`."""
        while not self._can_take():
            waiter = asyncio.get_running_loop().create_future()
            self._waiter = waiter
            if not self._can_take():  # looked at once more: the thread looks at the waiter after it delivers
                await waiter
        chunk = self._take()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    @property
    def ready(self) -> bool:
        """Whether the next chunk is here: reading it does not wait."""
        return bool(self._ready)

    def close(self) -> None:
        """End what still runs, within a token; from any thread, at any time, again and again. Never waits."""
        for sequence in self.sequences:
            sequence.abandoned = True

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(self, sequence: SequenceState, what: GenerationChunk | Exception) -> None:
        """Take a chunk, or what ended the call. In the engine's thread; `wake` follows."""
        if isinstance(what, Exception):
            self._error = what
            self.close()  # a call ends whole
        else:
            self._ready.append(what)
            if what.finish_reason is not None:
                self._running -= 1
                self._wake_at = 0.0

    def wake(self) -> asyncio.Future[None] | None:
        """Wake the threads that wait. The coroutine's future, where one waits, is the caller's to resolve."""
        if self._blocked:
            with self._condition:
                self._condition.notify_all()
        if self._waiter is None or not self._wakes_now():
            return None
        waiter, self._waiter = self._waiter, None
        return waiter

    def _wakes_now(self) -> bool:
        """Whether the coroutine is woken for what has come; if not, for what comes next."""
        if not self._wake_interval_s or self._error is not None:
            return True
        now = time.perf_counter()
        if now < self._wake_at:
            return False
        self._wake_at = now + self._wake_interval_s
        return True

    def _can_take(self) -> bool:
        """Whether `_take` has something to return or to raise."""
        return bool(self._ready) or self._error is not None or self._over

    @property
    def _over(self) -> bool:
        """Whether nothing more will come."""
        return not self._running or all(sequence.abandoned for sequence in self.sequences)

    def _take(self) -> GenerationChunk | None:
        """A chunk that is ready, None when there will be no more, or the error."""
        if self._ready:
            return self._ready.popleft()
        if self._error is not None:
            raise self._error
        return None


class EngineLoop:
    """A model's batch and the thread that steps it."""

    def __init__(self, engine: Engine, limits: BatchLimits | None = None) -> None:
        self._stepper = _Stepper(engine, limits)
        weakref.finalize(self, self._stepper.abandon).atexit = False  # `_stop_all` sees to that

    @property
    def thread(self) -> threading.Thread | None:
        """The engine's thread, once a request has begun it."""
        return self._stepper.thread

    def submit(self, sequences: Sequence[SequenceState], *, wake_interval_s: float = 0.0) -> Call:
        """Queue sequences, which run without being read. Raises E_CLOSED, E_BUSY.

        wake_interval_s: see `Model.submit`.
        """
        call = Call(self, sequences, wake_interval_s)
        for sequence in sequences:
            sequence.start_clock()
            sequence.deliver = partial(self._stepper.deliver, call, sequence)
        self._stepper.submit(sequences)
        return call

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """The engine for the caller alone, between two steps; True while there are texts to generate.

        Between two turns there is a step, where a text waits for one. Raises E_CLOSED.
        """
        with self._stepper.turn() as generating:
            yield generating

    def figures(self) -> BatchFigures:
        """See `BatchFigures`."""
        return self._stepper.batch.figures()

    def forget(self) -> None:
        """Give back the slots that are cached for their prefixes."""
        with self.turn():
            self._stepper.batch.forget()

    def drain(self, timeout_s: float) -> bool:
        """Refuse requests from now on with E_CLOSED, and let those that were taken end; whether they have."""
        return self._stepper.drain(timeout_s)

    def close(self) -> None:
        """Close the engine. Calls still open end with E_CLOSED. Returns when it is done."""
        self._stepper.close()


class _Stepper:
    """What the thread holds. It knows no `EngineLoop`, so that one that nobody refers to is collected."""

    def __init__(self, engine: Engine, limits: BatchLimits | None) -> None:
        self.batch = Batch(engine, limits)
        self.thread: threading.Thread | None = None
        self._engine = engine
        self._lock = threading.RLock()  # the garbage collector may call `abandon` in a thread that holds it
        self._work = threading.Condition(self._lock)
        """Notified when there is something to step or to end."""
        self._free = threading.Condition(self._lock)
        """Notified when the engine is free for a turn, and when the last text has ended."""
        self._holder: object = None
        """Who runs the engine now: this stepper, the ticket of a turn, or nobody."""
        self._tickets: deque[object] = deque()
        """Turns that wait."""
        self._step_due = False
        """Whether a turn was the last to use the engine: it is the texts' turn now."""
        self._refusing = self._ending = self._closed = False
        self._touched: dict[Call, None] = {}
        """Calls with something new since the last wake-up."""

    def submit(self, sequences: Sequence[SequenceState]) -> None:
        """See `EngineLoop.submit`."""
        with self._lock:
            if self._refusing:
                raise closed_error()
            self.batch.submit(sequences)
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="ptbr-slm-engine", daemon=True)
                self.thread.start()
                _steppers.add(self)
            self._work.notify()

    def deliver(self, call: Call, sequence: SequenceState, what: GenerationChunk | Exception) -> None:
        """See `SequenceState.deliver`."""
        call.receive(sequence, what)
        self._touched[call] = None

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """See `EngineLoop.turn`."""
        ticket = object()
        try:
            with self._lock:
                self._tickets.append(ticket)
                while not self._closed and not self._may_take(ticket):
                    self._free.wait()
                if self._closed:
                    raise closed_error()
                self._holder = ticket
                self._tickets.popleft()
            yield not self.batch.idle
        finally:  # also at a Ctrl-C anywhere above
            with self._lock:
                if self._holder is ticket:
                    self._holder = None
                    self._step_due = True
                elif ticket in self._tickets:
                    self._tickets.remove(ticket)
                self._work.notify()
                self._free.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """See `EngineLoop.drain`."""
        with self._lock:
            self._refusing = True
            return self._free.wait_for(lambda: self.batch.idle, timeout_s)

    def abandon(self) -> None:
        """Nobody refers to the loop any longer: let the thread end."""
        with self._lock:
            self._refusing = self._ending = True
            self._work.notify()

    def close(self) -> None:
        """See `EngineLoop.close`."""
        self.abandon()
        if self.thread is not None:
            self.thread.join()
        with self._lock:
            while self._holder is not None:
                self._free.wait()
            if not self._closed:
                self._closed = True
                self._engine.close()
            self._free.notify_all()

    def _may_take(self, ticket: object) -> bool:
        """Whether a turn may begin. Holds the lock."""
        waits = self._step_due and self._steps_next()
        return self._holder is None and self._tickets[0] is ticket and not waits

    def _steps_next(self) -> bool:
        """Whether the thread has something to do. Holds the lock."""
        return self._ending or not self.batch.idle

    def _run(self) -> None:
        """The thread."""
        while True:
            with self._lock:
                while not self._may_step():
                    self._work.wait()
                if self._ending:
                    break
                self._holder = self
            self._step()
            with self._lock:
                self._holder = None
                self._step_due = False
                if self._tickets or self.batch.idle:
                    self._free.notify_all()
        self.batch.fail_all(closed_error)
        self._wake()
        _steppers.discard(self)

    def _may_step(self) -> bool:
        """Whether the thread has work and may run the engine. Holds the lock."""
        mine = self._step_due or not self._tickets
        return self._holder is None and self._steps_next() and (mine or self._ending)

    def _step(self) -> None:
        """One step; chunks reach their readers before a piece of a prompt runs."""
        batch = self.batch
        try:
            batch.decode()
            self._wake()
            batch.prefill()
        except Exception as error:  # a fault of our own, for an engine's errors stay with their sequences
            detail = f"o passo de geração falhou ({type(error).__name__}: {error})."
            batch.fail_all(lambda: internal_error(detail))
        self._wake()

    def _wake(self) -> None:
        """Wake the readers of what was delivered: one call into each event loop, however many wait there."""
        touched, self._touched = self._touched, {}
        waiters: dict[asyncio.AbstractEventLoop, dict[asyncio.Future[None], Call]] = {}
        for call in touched:
            if (waiter := call.wake()) is not None:
                waiters.setdefault(waiter.get_loop(), {})[waiter] = call
        for loop, calls in waiters.items():
            try:
                loop.call_soon_threadsafe(_resolve, tuple(calls))
            except RuntimeError:  # the event loop is closed: nobody reads there
                for call in calls.values():
                    call.close()


def _resolve(waiters: Sequence[asyncio.Future[None]]) -> None:
    """In the event loop's own thread."""
    for waiter in waiters:
        if not waiter.done():  # cancelled meanwhile
            waiter.set_result(None)


_steppers: weakref.WeakSet[_Stepper] = weakref.WeakSet()
"""Those whose thread runs."""


@atexit.register
def _stop_all() -> None:
    """Daemon threads that run native code when the interpreter goes down can crash it: end them before."""
    for stepper in list(_steppers):
        stepper.abandon()
        if stepper.thread is not None:
            stepper.thread.join()
