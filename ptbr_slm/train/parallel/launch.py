"""Several GPUs, one command: torchrun's elastic agent starts a process for each and starts all again if one
exits without an answer.

A rank answers with a value: a finished run, a stopped one, or an error that the user can correct. After an
answer nothing is started again. A failure is a process that exits without one, or loses its connections.

Signals: the ranks leave the process group of their parent, so that Ctrl-C reaches the parent alone; it
passes each signal on to each rank exactly once, and a rank that is still starting finds it waiting. The
agent's own handling, which gives the ranks 30 seconds to save, is switched off.

Arguments and answers of the ranks are pickled by Python's multiprocessing, in pipes between this process and
the ones it has started. Nothing else is pickled (`rendezvous`, `messages`).
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children, resource_tracker
from typing import TYPE_CHECKING, Any, TypeVar

from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.train.process import mark_session_start, stop_signals
from ptbr_slm.train.session import stop_preparing

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

T = TypeVar("T")

MAX_RESTARTS = 3
"""Times that all ranks are started again, from the last checkpoint, before giving up."""
KILL_AFTER = 3
"""Ctrl-C so many times: the ranks are killed. The first asks them to save, the second to leave at once."""


def launch(work: Callable[..., T], arguments: tuple[Any, ...], count: int) -> T:
    """What `work(*arguments)` returns on the main one of `count` ranks.

    Arguments and answer go through multiprocessing's pipes, so they are picklable.

    Raises E_RANKS where a rank died more than MAX_RESTARTS times, and KeyboardInterrupt.
    """
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # the agent's log: we report what a user should know
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _processors() // count)))
    if hasattr(signal, "SIGRTMIN"):  # Linux: with one machine nothing needs the name or the address of it
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mark_session_start()
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from ptbr_slm.train.parallel import rendezvous

    logging.getLogger("torch").setLevel(logging.CRITICAL)
    wanted: dict[str, Any] = {
        "min_nodes": 1,
        "max_nodes": 1,
        "nproc_per_node": count,
        "run_id": f"ptbr-slm-{os.getpid()}",
        "rdzv_backend": rendezvous.register(),
        "local_addr": rendezvous.LOOPBACK,
        "max_restarts": MAX_RESTARTS,
        "monitor_interval": 0.1,
        "signals_to_handle": "SIGQUIT",  # not one of ours, which its handlers would replace
    }
    known = {field.name for field in dataclasses.fields(LaunchConfig)}
    config = LaunchConfig(**{key: value for key, value in wanted.items() if key in known})
    with _private_temporary_folder(), _passing_signals_on() as asked:
        try:
            answer: T = elastic_launch(config, _rank)(work, arguments)[0]
            return answer
        except ChildFailedError as error:
            if _asks_to_kill(asked):
                raise KeyboardInterrupt from None
            raise _rank_died(error) from error


@contextmanager
def _private_temporary_folder() -> Iterator[None]:
    """Temporary files of this process lie where no other user can write.

    torch.multiprocessing gives each process the name of a file in the temporary folder, and opens what lies
    there as a pickle once that process has died (torch/multiprocessing/spawn.py, `error_file`).
    """
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-") as tempfile.tempdir:
        try:
            yield
        finally:
            tempfile.tempdir = before


def _rank(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """In a new process: leave the parent's group, work, answer. `work` calls `handle_signals` first.

    An exception ends the process with code 1 and reaches the agent as JSON, in the agent's own error file.
    """
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    parent = os.getppid()
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    try:
        return work(*arguments)
    except Exception as error:
        get_error_handler().record_exception(error)
        raise SystemExit(1) from None  # any other exception would be pickled into `error_file`
    finally:
        for number in stop_signals():  # the answer is on its way to the parent, which lets this process go
            signal.signal(number, signal.SIG_IGN)
        threading.Thread(target=_exit_without, args=(parent,), daemon=True).start()


def handle_signals() -> None:
    """In a rank that was launched, where the exceptions of `stop_preparing` are caught: pending signals are
    delivered now.
    """
    for number in stop_signals():
        signal.signal(number, stop_preparing)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals())


def _exit_without(parent: int) -> None:
    """End this process once its parent is gone: nobody waits for the answer then."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(Exit.INTERRUPTED)


@contextmanager
def _passing_signals_on() -> Iterator[list[int]]:
    """SIGINT, SIGTERM and SIGHUP that reach this process go to all its ranks; yields those that came.

    The main thread blocks them, which its children inherit: a rank that is still importing is not killed by
    one, but finds it when it is ready. Another thread, where they are not blocked, takes them for this
    process.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield asked
        return
    resource_tracker.ensure_running()  # starting it unblocks these signals: so it starts before
    signals = stop_signals()
    previous = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in signals}
    done = threading.Event()
    thread = threading.Thread(target=_pass_on, args=(asked, done, signals), daemon=True)
    thread.start()
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield asked
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        done.set()
        thread.join()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _pass_on(asked: list[int], done: threading.Event, signals: tuple[signal.Signals, ...]) -> None:
    """Each rank gets each signal once, a rank that was started after the signal too."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    sent: dict[int, int] = {}
    while not done.wait(0.05):
        for child in active_children():
            pid = child.pid or 0
            for number in asked[sent.get(pid, 0) :]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if _asks_to_kill(asked) else number)
                time.sleep(0.01)  # signals of one kind do not queue
            sent[pid] = len(asked)


def _asks_to_kill(asked: list[int]) -> bool:
    """Whether Ctrl-C came so often that the ranks are not waited for. A closing terminal repeats SIGHUP."""
    return asked.count(signal.SIGINT) >= KILL_AFTER


def _processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rank_died(error: ChildFailedError) -> SlmError:
    """E_RANKS for the agent's ChildFailedError."""
    rank, failure = error.get_first_failure()
    lines = [line for line in str(failure.message).splitlines() if line.strip() and "http" not in line]
    return SlmError(
        "E_RANKS",
        f"o processo {rank} do treino morreu e, depois de {MAX_RESTARTS} reinícios, de novo "
        f"(código {failure.exitcode}); o último checkpoint está intacto.",
        where=lines[0][:160] if lines else "",
        hint="Repita o mesmo comando para continuar; se voltar a acontecer, use --parallel none e --debug.",
    )
