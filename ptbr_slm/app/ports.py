"""The port to serve on: the one asked for, or the first free one."""

from __future__ import annotations

import os
import socket

from ptbr_slm.errors import SlmError

FIRST_PORT = 7860
PORTS_TRIED = 100


def choose_port(host: str | None, port: int | None) -> tuple[int, list[str]]:
    """(port to use, notes): a given port must be free, else the first free one from 7860."""
    host = host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    if port is not None:
        if not 1 <= port <= 65_535 or not _is_free(host, port):
            raise port_error(host, port)
        return port, []
    first = int(os.environ.get("GRADIO_SERVER_PORT") or FIRST_PORT)
    for candidate in range(first, first + PORTS_TRIED):
        if _is_free(host, candidate):
            notes = [] if candidate == first else [f"A porta {first} está ocupada; usei a {candidate}."]
            return candidate, notes
    raise port_error(host, first)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def port_error(host: str | None, port: int) -> SlmError:
    """The answer where a port cannot be opened."""
    return SlmError(
        "E_PORT",
        f"não consegui abrir a porta {port}: está ocupada, não é permitida, ou o endereço não é daqui.",
        where=f"{host or '127.0.0.1'}:{port}",
        hint="Deixe --port de fora para usar a primeira porta livre, ou escolha outra.",
    )
