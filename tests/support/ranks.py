"""Processes that meet as the ranks of one run."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def free_port() -> int:
    """A TCP port of this machine that no process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def run_ranks(
    command: Sequence[str | Path],
    count: int = 2,
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> str:
    """Run a command as `count` ranks, with the variables that torchrun gives; what they wrote to stderr."""
    shared = {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        **(env or {}),
    }
    ranks = [
        subprocess.Popen(
            list(map(str, command)),
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]
    return "\n".join(rank.communicate(timeout=timeout)[1] for rank in ranks)
