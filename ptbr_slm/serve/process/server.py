"""The process: a socket, uvicorn in a thread of its own, the models, signals, and a clean end.

The socket is opened first (a port that is taken is told before a model is read), and answered while the
models load. The main thread opens the models and then waits for signals, as it does in every other verb.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from ptbr_slm.network import LAST_PORT, port_error
from ptbr_slm.serve.app import create_app
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.middleware.lifecycle import Lifecycle, Phase
from ptbr_slm.serve.process.connection import GuardedConnection, cut_clients_that_do_not_read
from ptbr_slm.serve.served import ServedModel, ServedModels
from ptbr_slm.stop_signals import Interrupted, StopSignals

BACKLOG = 2048
"""Connections that the kernel holds for us until they are accepted."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter while another wants it (Python's default: 0.005). The engine's
thread and the event loop share it; each hand-over costs a waiting stream up to this long."""

KEEP_ALIVE_S = 20
"""How long a connection may stay open between two requests. Clients that pool connections (openai's keeps
idle ones for 5 s) close them first, and do not meet one that is just being closed."""

POLL_S = 0.02
"""How often the end looks whether requests are over and signals have come, s."""

TELL_S = 2.0
"""Seconds that streams which are cut have to tell their clients so."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a server ended."""

    signal: int
    """The first signal."""
    cut: int = 0
    """Requests that were running and were cut."""


def serve(
    opening: Iterable[ServedModel],
    config: ServeConfig,
    ready: Callable[[str, ServedModels], None],
) -> Ended:
    """Listen, open the models, tell `ready` the URL, and stay until SIGTERM or Ctrl-C.

    opening: opens a model each time it is asked for the next. Raises E_PORT before that, and what it raises.
    """
    models, lifecycle = ServedModels({}), Lifecycle(Phase.LOADING)
    app = create_app(models, config, lifecycle)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with (
        listen(config.host, config.port) as listening,
        StopSignals() as signals,
        Running(app, listening, config) as running,
    ):
        try:
            with signals.interrupting():
                for served in opening:
                    models.add(served)
                if config.page:
                    app.state.page.open()
            lifecycle.phase = Phase.READY
            ready(url_of(listening, config), models)
            while not signals.count and running.alive():
                signals.wait(0.5)  # on Windows an endless wait would not see Ctrl-C
            return Ended(signals.first, _drain(models, lifecycle, signals, config.drain_s))
        except Interrupted:
            return Ended(signals.first)
        finally:
            for served in models:
                served.model.close()


def _drain(models: ServedModels, lifecycle: Lifecycle, signals: StopSignals, limit_s: float) -> int:
    """Let the running requests end, until the limit or a second signal. Returns how many were cut."""
    lifecycle.phase = Phase.DRAINING
    deadline = time.monotonic() + limit_s
    while lifecycle.running and signals.count < 2 and time.monotonic() < deadline:
        time.sleep(POLL_S)
    cut = lifecycle.running
    for served in models:  # texts that no request waits for any longer, or that the page asked for
        while signals.count < 2 and time.monotonic() < deadline and not served.model.drain(POLL_S):
            pass
    for served in models:
        served.model.close()  # what still runs ends with E_CLOSED, and its stream tells
    deadline = time.monotonic() + TELL_S
    while lifecycle.running and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return cut


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises E_PORT."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        if not 0 <= port <= LAST_PORT:
            raise OSError("no such port")
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        hint = "Escolha outra com --port N, ou --port 0 para uma porta livre qualquer."
        raise port_error(host, port, hint) from error
    # Accepted sockets inherit it; asyncio sets it only on sockets that say their protocol, unlike these.
    # Without it an answer's second write waits 40 ms until the client's kernel acknowledges the first.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def url_of(listening: socket.socket, config: ServeConfig) -> str:
    """The address that a client takes as its base, without `/v1`."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}{config.root_path}"


class _Uvicorn(uvicorn.Server):
    """Tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class Running:
    """uvicorn answering a socket in a thread, inside `with`."""

    def __init__(self, app: FastAPI, listening: socket.socket, config: ServeConfig) -> None:
        cut_clients_that_do_not_read(listening, config.write_timeout_s)
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=GuardedConnection,
                ws="none",
                access_log=False,
                log_config=None,  # `logs` writes uvicorn's lines too
                server_header=False,
                proxy_headers=False,  # nothing here reads the client's address
                backlog=BACKLOG,
                limit_concurrency=config.max_connections,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,  # what runs has had its time before
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="ptbr-slm-http", daemon=True
        )

    def __enter__(self) -> Running:
        self._thread.start()
        while not self._server.up.wait(0.05) and self._thread.is_alive():
            pass
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)

    def alive(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()
