"""Where the messages of `ptbr-slm chat` come from: a person at a terminal, or lines of a pipe."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, ModuleType

from ptbr_slm.cli.output import Output
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.runtime.sequence import Cancel
from ptbr_slm.text import decode, is_utf16


class Interrupts:
    """What Ctrl-C does in a conversation: it stops the answer, or interrupts the reading of a line.

    Between the two it does nothing, so that one that comes as an answer ends does not end the program. A
    second one during an answer that does not stop is a KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self._cancel: Cancel | None = None
        self._reading = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, Ctrl-C is ours. Not outside the main thread, nor where it is ignored (`nohup`, `&`)."""
        former = signal.getsignal(signal.SIGINT)
        ours = threading.current_thread() is threading.main_thread() and former is not signal.SIG_IGN
        if ours:
            signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            if ours:
                signal.signal(signal.SIGINT, former)

    @contextmanager
    def answering(self) -> Iterator[Cancel]:
        """Inside, Ctrl-C cancels what is given."""
        self._cancel = Cancel()
        try:
            yield self._cancel
        finally:
            self._cancel = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, Ctrl-C raises KeyboardInterrupt."""
        self._reading = True
        try:
            yield
        finally:
            self._reading = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._reading or (self._cancel is not None and self._cancel.cancelled):
            raise KeyboardInterrupt
        if self._cancel is not None:
            self._cancel.cancel()


def terminal_lines(out: Output, interrupts: Interrupts, prompt: str, history: Path | None) -> Iterator[str]:
    """Lines as a person types them, until Ctrl-D, a second Ctrl-C in a row, or the terminal's end.

    history: a file with the lines of former conversations, to which those of this one are added.
    Raises KeyboardInterrupt for the second Ctrl-C.
    """
    with _line_editing(history) as read:
        interrupted = False
        while True:
            try:
                with interrupts.reading():
                    line = read(prompt)
            except KeyboardInterrupt:
                out.error("")
                if interrupted:
                    raise
                interrupted = True
                out.note("Ctrl-C de novo encerra (ou /sair).")
                continue
            except UnicodeDecodeError:
                out.error("O que foi digitado não é texto em UTF-8.")
                continue
            except (EOFError, OSError):  # Ctrl-D, or the terminal is gone (EIO)
                out.error("")
                return
            interrupted = False
            yield line


def piped_lines() -> Iterator[str]:
    """The lines of standard input as they come. Raises E_PROMPT for what is not UTF-8."""
    number = 0
    while True:
        with os_errors("entrada padrão"):
            raw = sys.stdin.buffer.readline()
        if not raw:
            return
        number += 1
        try:
            yield decode(raw).rstrip("\r\n")
        except UnicodeDecodeError as error:
            encoding, guess = ("utf-16", " (parece UTF-16)") if is_utf16(raw) else ("latin1", "")
            raise SlmError(
                "E_PROMPT",
                f"a entrada padrão não é texto em UTF-8{guess}.",
                where=f"linha {number}, byte {error.start}",
                hint=f"Converta antes:  iconv -f {encoding} -t utf-8 T | ptbr-slm chat PASTA",
            ) from error


@contextmanager
def _line_editing(history: Path | None) -> Iterator[Callable[[str], str]]:
    """A function that reads a line after a prompt: with arrows and history where readline is there."""
    readline = _readline() if sys.stdout.isatty() else None
    if readline is None:
        yield _plain_line
        return
    if history is not None and history.exists():
        with os_errors(history):
            lines = history.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines:
            readline.add_history(line)
    before = readline.get_current_history_length()
    try:
        yield input
    finally:
        after = readline.get_current_history_length()
        typed = [str(readline.get_history_item(number)) for number in range(before + 1, after + 1)]
        if history is not None and typed:
            with os_errors(history):
                history.touch(mode=0o600)
                with history.open("a", encoding="utf-8", errors="replace") as file:
                    file.writelines(line.replace("\n", " ") + "\n" for line in typed)


def _readline() -> ModuleType | None:
    """The readline module; None on Windows. Once imported, `input` edits lines with it."""
    with suppress(ImportError):
        import readline

        return readline
    return None


def _plain_line(prompt: str) -> str:
    """A line without editing; the prompt on standard error, for standard output may be a file."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
