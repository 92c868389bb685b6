"""The page's address: the port it takes, and how this machine reaches itself past a proxy."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from ptbr_slm import network
from ptbr_slm.errors import SlmError
from ptbr_slm.network import LAST_PORT, LOOPBACK

FIRST_PORT = 7860
PORTS_TRIED = 100

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_EXCEPTIONS = "no_proxy"


def choose_port(host: str | None, port: int | None) -> tuple[int, list[str]]:
    """(port to use, notes): 0 is any free one, None the first free one from 7860; another must be free."""
    host = host or os.environ.get("GRADIO_SERVER_NAME") or "127.0.0.1"
    if port is not None:
        opened = _opened(host, port) if 0 <= port <= LAST_PORT else None
        if opened is None:
            raise port_error(host, port)
        return opened, []
    first = first_port()
    for candidate in range(first, min(first + PORTS_TRIED, LAST_PORT + 1)):
        if _opened(host, candidate) is not None:
            notes = [] if candidate == first else [f"A porta {first} está ocupada; usei a {candidate}."]
            return candidate, notes
    raise port_error(host, first)


def first_port() -> int:
    """Where the search begins: GRADIO_SERVER_PORT, as in Gradio, or 7860. Raises E_CONFIG."""
    given = os.environ.get("GRADIO_SERVER_PORT") or str(FIRST_PORT)
    if not given.isdecimal() or not 1 <= int(given) <= LAST_PORT:
        raise SlmError(
            "E_CONFIG",
            f"{given!r} não é uma porta.",
            where="a variável de ambiente GRADIO_SERVER_PORT",
            hint=f"Escreva nela um número de 1 a {LAST_PORT}, ou apague-a.",
        )
    return int(given)


def _opened(host: str, port: int) -> int | None:
    """The port, opened and closed again (for 0 one that the system chose); None where it cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return None
        chosen: int = probe.getsockname()[1]
        return chosen


def port_error(host: str | None, port: int) -> SlmError:
    """The answer where a port cannot be opened."""
    hint = "Deixe --port de fora para usar a primeira porta livre, ou escolha outra."
    return network.port_error(host, port, hint)


@contextmanager
def own_address_without_proxy(host: str | None = None) -> Iterator[None]:
    """Inside, HTTP requests to this machine (and `host`) go to it directly, others still through the proxy.

    Gradio asks the address that it opened whether it answers, with httpx, which sends even that through
    HTTP_PROXY or ALL_PROXY. httpx also refuses to import or start with a proxy that it cannot use (SOCKS
    without its extra, `socks://`): such a variable is set aside meanwhile. Changes the environment of the
    whole process until the block ends.
    """
    names = [spelled for name in (*_PROXIES, _EXCEPTIONS) for spelled in (name, name.upper())]
    former = {name: os.environ.get(name) for name in names}
    try:
        for name in names[:-2]:
            value = former[name]
            if value is not None and not _usable(value):
                os.environ.pop(name, None)
        exceptions = former[_EXCEPTIONS] or former[_EXCEPTIONS.upper()]
        direct = ",".join(filter(None, [exceptions, *LOOPBACK, host]))
        os.environ[_EXCEPTIONS] = os.environ[_EXCEPTIONS.upper()] = direct
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _usable(proxy: str) -> bool:
    """Whether httpx can use it; one without a scheme counts as HTTP there."""
    scheme = proxy.partition("://")[0].lower() if "://" in proxy else "http"
    if scheme in ("socks5", "socks5h"):
        return importlib.util.find_spec("socksio") is not None
    return scheme in ("http", "https")
