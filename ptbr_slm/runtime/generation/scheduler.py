"""Many threads over one batch: whoever needs a token runs the step for everybody.

There is no thread of its own. A caller that finds none of its chunks ready runs one step of the whole batch,
unless another caller is at it already; then it waits for the end of that step. A caller that leaves with its
chunk wakes one that still waits. So no step runs that nobody asked for, and a caller that stops reading
blocks nobody: its rows pause once they are `AHEAD` tokens ahead, and give up their slots to others.

`_lock` guards who steps and who waits, for moments only; the batch and the engine belong to the stepper.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Condition, Lock, get_ident

from ptbr_slm.runtime.generation.batch import Batch, internal_error
from ptbr_slm.runtime.generation.row import Row
from ptbr_slm.runtime.slots import closed_error
from ptbr_slm.runtime.types import Engine, GenerationChunk


class Call:
    """What one caller asked for: some rows, and their chunks that he has not read yet."""

    def __init__(self, scheduler: Scheduler, rows: Sequence[Row], lock: Lock) -> None:
        self.rows = tuple(rows)
        for row in self.rows:
            row.deliver = partial(self._receive, row)
        self.ready: deque[tuple[Row, GenerationChunk]] = deque()
        self.error: Exception | None = None
        self.running = len(self.rows)
        self.blocked = 0
        """Threads waiting in `next_chunk`."""
        self.wakeup = Condition(lock)
        self._scheduler = scheduler

    def next_chunk(self) -> GenerationChunk | None:
        """The next chunk of any of the rows; None after the last. Waits, or runs a step.

        Raises what ended a row wrongly, E_MEMORY or E_CLOSED for example, after the chunks before it.
        """
        return self._scheduler.next_chunk(self)

    def close(self) -> None:
        """End what still runs; from any thread, at any time, again and again. Never waits."""
        for row in self.rows:
            row.abandoned = True
        self._scheduler.collect()

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def has_news(self) -> bool:
        """Whether `take` would answer."""
        return bool(self.ready) or self.error is not None or self.over

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return not self.running or all(row.abandoned for row in self.rows)

    def take(self) -> GenerationChunk | None:
        """A chunk that is ready, None when there will be no more, or the error."""
        if self.ready:
            row, chunk = self.ready.popleft()
            row.read += 1
            return chunk
        if self.error is not None:
            raise self.error
        return None

    def _receive(self, row: Row, what: GenerationChunk | Exception) -> None:
        """Called by the batch, in the stepper's thread."""
        if isinstance(what, Exception):
            self.error = what
            for other in self.rows:  # a call ends whole
                other.abandoned = True
        else:
            self.ready.append((row, what))
            self.running -= what.finish_reason is not None


class Scheduler:
    """Hands a batch's chunks to the callers of any number of threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._batch = Batch(engine)
        self._stepper = 0
        """The thread that runs the engine now; 0 is none."""
        self._turn = Condition(self._lock)
        self._asking = 0
        """Threads that want the engine between two steps: they go first."""
        self._blocked: dict[Call, None] = {}
        """Calls that threads wait for, the longest wait first."""
        self._closed = False

    def submit(self, rows: Sequence[Row]) -> Call:
        """Queue rows; nothing runs before someone asks for a chunk. Raises E_CLOSED."""
        call = Call(self, rows, self._lock)
        with self._lock:
            if self._closed:
                raise closed_error()
            for row in rows:
                row.begin()
                self._batch.submit(row)
        return call

    def next_chunk(self, call: Call) -> GenerationChunk | None:
        """See `Call.next_chunk`."""
        while True:
            with self._lock:
                if call.has_news():
                    self._pass_on()
                    return call.take()
                if self._taken() or self._asking:
                    self._wait(call)
                    continue
                self._stepper = get_ident()
            self._step()

    def collect(self) -> None:
        """Give back at once what was closed, unless someone is at work, who will do it.

        Never waits: the garbage collector may close a stream in a thread that holds the lock.
        """
        if self._lock.acquire(blocking=False):
            try:
                if not self._stepper and not self._closed:
                    self._batch.sweep()
                self._tell()
            finally:
                self._lock.release()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The engine for the caller alone, between two steps. Raises E_CLOSED."""
        with self._lock:
            self._asking += 1
            try:
                while self._taken():
                    self._turn.wait()
                if self._closed:
                    raise closed_error()
                self._stepper = get_ident()
            finally:
                self._asking -= 1
                self._pass_on()
        try:
            yield
        finally:
            with self._lock:
                self._stop_stepping()

    def forget(self) -> None:
        """Give back the slots kept for their beginnings."""
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
        except Exception as error:  # a fault of our own, for an engine's errors stay with their rows
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
                    self._stop_stepping()

    def _taken(self) -> bool:
        """Whether another thread is at work; our own name there is left over from a Ctrl-C."""
        return self._stepper not in (0, get_ident())

    def _wait(self, call: Call) -> None:
        """Until the call has news, or it is our turn to step. Holds the lock before and after."""
        call.blocked += 1
        self._blocked[call] = None
        try:
            call.wakeup.wait()
        except BaseException:
            self._pass_on()
            raise
        finally:
            call.blocked -= 1
            if not call.blocked:
                del self._blocked[call]

    def _stop_stepping(self) -> None:
        """Wake those who have news, and someone for the next step. Holds the lock."""
        self._stepper = 0
        self._tell()
        self._pass_on()

    def _tell(self) -> None:
        """Wake those who have news. Holds the lock."""
        for call in self._blocked:
            if call.has_news():
                call.wakeup.notify_all()

    def _pass_on(self) -> None:
        """See that someone who waits runs the next step. Holds the lock."""
        if self._asking:
            self._turn.notify()
        elif not self._stepper:
            heir = next((call for call in self._blocked if not call.has_news()), None)
            if heir is not None:
                heir.wakeup.notify()
