"""A process at a terminal of its own, as a person has it: what is typed, what is shown, Ctrl-C, a hang-up."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

CTRL_C, CTRL_D = "\x03", "\x04"


class Terminal:
    """`ptbr-slm ARGUMENTS` on a new pseudo-terminal of 24 lines, in a session of its own.

    stdout: a file that standard output goes to instead. nohup: whether the process ignores a hang-up.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        cwd: Path,
        *,
        stdout: str = "",
        nohup: bool = False,
        columns: int = 80,
        **environment: str,
    ) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

        def prepare() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # whatever the tests' own process was given
            signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)

        # xdist tells its workers the width of its own terminal.
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        output = (cwd / stdout).open("wb") if stdout else None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ptbr_slm", *map(str, arguments)],
            stdin=slave, stdout=output or slave, stderr=slave, cwd=cwd, start_new_session=True,
            preexec_fn=prepare,
            env={**kept, "TERM": "dumb", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8", **environment},
        )  # fmt: skip
        os.close(slave)
        if output is not None:
            output.close()
        self.shown = ""
        self._bytes = b""
        self._seen = 0

    def expect(self, text: str, seconds: float = 30) -> str:
        """What is shown up to `text`, from where the last `expect` ended."""
        deadline = time.monotonic() + seconds
        while (at := self.shown.find(text, self._seen)) < 0:
            assert self._read(deadline - time.monotonic()), (
                f"{text!r} never came:\n{self.shown[self._seen :]}"
            )
        before, self._seen = self.shown[self._seen : at], at + len(text)
        return before

    def expect_more(self, seconds: float = 30) -> None:
        """Until anything is shown behind what the last `expect` found."""
        deadline = time.monotonic() + seconds
        while len(self.shown) == self._seen:
            assert self._read(deadline - time.monotonic()), "nothing more came"

    def wait_idle(self) -> None:
        """Until the process waits for input: CPython's readline overlooks a signal just before its select.

        It then notices it with the next key (Modules/readline.c, readline_until_enter_or_signal).
        """
        stat = Path(f"/proc/{self.process.pid}/stat")
        if not stat.exists():  # no Linux
            time.sleep(0.5)
            return
        quiet = 0
        while quiet < 5:
            before = stat.read_text().rpartition(")")[2].split()
            time.sleep(0.02)
            after = stat.read_text().rpartition(")")[2].split()
            quiet = quiet + 1 if after[0] == "S" and before[11:13] == after[11:13] else 0

    def send(self, text: str) -> None:
        """Type."""
        os.write(self._master, text.encode())

    def end(self, seconds: float = 30) -> int:
        """The exit code, once the process has ended; what it still showed is in `shown`."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def hang_up(self) -> None:
        """Close the window."""
        os.close(self._master)
        self._master = -1

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._master >= 0:
            os.close(self._master)

    def _read(self, seconds: float) -> bool:
        """Take what the process wrote; False at its end, or where nothing comes in time."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, seconds))
        piece = b""
        if ready:
            with contextlib.suppress(OSError):  # EIO: nobody has the other end open
                piece = os.read(self._master, 1 << 16)
        self._bytes += piece
        self.shown = self._bytes.decode(errors="replace").replace("\r\n", "\n")
        return bool(piece)
