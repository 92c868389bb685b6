"""The servers that are compared, each in a process of its own on a free port of this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

OPEN_S = 120.0
"""A server that does not answer by then is a fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """How a server is started, and what it is called in the tables."""

    tool: str
    weights: str
    command: tuple[str, ...]
    """`{port}` stands for the port."""
    health: str
    """Path that answers 200 once requests may come."""
    threads: int
    one_at_a_time: bool = False
    """Whether further requests wait for the end of the first."""

    @property
    def name(self) -> str:
        """In tables."""
        return f"{self.tool} {self.weights}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A server that answers."""

    port: int
    pid: int

    def memory(self, kind: str) -> int:
        """Bytes of its resident memory: kind VmRSS now, VmHWM at most so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{kind}:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None, kind
        return int(found[1]) * 1024


def ours(weights: str, model: Path, threads: int, *options: str) -> Server:
    """`ptbr-slm serve`, as it is by default but for `options`."""
    command = (sys.executable, "-m", "ptbr_slm", "serve", str(model), "--port", "{port}", "--quiet", *options)
    return Server(tool="ptbr-slm", weights=weights, command=command, health="/ready", threads=threads)


def llama_server(
    binary: Path, weights: str, model: Path, *, threads: int, slots: int, context: int
) -> Server:
    """llama.cpp's own server with continuous batching: as many slots as ours, each for the whole context.

    Flash attention as its tools choose by default; no copies of finished prompts, which a load without
    repeated prompts only pays for.
    """
    command = (
        str(binary), "-m", str(model), "--port", "{port}", "-np", str(slots), "-cb",
        "-c", str(slots * context), "-t", str(threads), "-tb", str(threads), "-fa", "on",
        "--cache-ram", "0", "--no-ui",
    )  # fmt: skip
    return Server(tool="llama-server", weights=weights, command=command, health="/health", threads=threads)


def llama_cpp_python(python: Path, weights: str, model: Path, *, threads: int, context: int) -> Server:
    """llama-cpp-python's server: one request at a time, further ones wait."""
    command = (
        str(python), "-m", "llama_cpp.server", "--model", str(model), "--port", "{port}",
        "--n_ctx", str(context), "--n_threads", str(threads), "--n_threads_batch", str(threads),
        "--flash_attn", "true", "--interrupt_requests", "false", "--verbose", "false",
    )  # fmt: skip
    return Server(
        tool="llama_cpp.server", weights=weights, command=command, health="/v1/models", threads=threads,
        one_at_a_time=True,
    )  # fmt: skip


@contextmanager
def running(server: Server, *, wrapper: Sequence[str] = ()) -> Iterator[Running]:
    """Start it, wait until it is ready, and stop it. Raises RuntimeError with what it wrote where it fails.

    wrapper: words before its command.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [*wrapper, *(word.format(port=port) for word in server.command)]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(server.threads),
        "PTBR_SLM_THREADS": str(server.threads),
    }
    with tempfile.TemporaryFile() as written:
        process = subprocess.Popen(
            words, stdout=written, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        )
        try:
            deadline = time.monotonic() + OPEN_S
            while not _answers(f"http://127.0.0.1:{port}{server.health}"):
                if process.poll() is not None or time.monotonic() > deadline:
                    written.seek(0)
                    raise RuntimeError(
                        f"{' '.join(words)}\n{written.read()[-3000:].decode(errors='replace')}"
                    )
                time.sleep(0.05)
            yield Running(port=port, pid=process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
