"""Serve the page: settings, port, share link with a password, Kaggle, and a clean end."""

from __future__ import annotations

import io
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from ptbr_slm.app.network import LOOPBACK, choose_port, own_address_without_proxy, port_error
from ptbr_slm.app.writer import Chunks, Writer
from ptbr_slm.errors import missing_extra
from ptbr_slm.privacy import keep_matplotlib_out_of_home
from ptbr_slm.runtime.model import Model

SMOKE_PROMPT = "O Brasil é"


class Page:
    """An opened model and its page, built when it is first needed (importing Gradio takes seconds)."""

    def __init__(self, model: Model, submit: Callable[..., Chunks] | None = None) -> None:
        """submit: see `Writer`."""
        self.model = model
        self.writer = Writer(model, submit)

    @cached_property
    def demo(self) -> Any:
        """The `gradio.Blocks`. Raises E_DEPENDENCY where Gradio is not installed."""
        require_gradio()
        from ptbr_slm.app.page import build_demo

        keep_matplotlib_out_of_home()  # Gradio imports it
        with own_address_without_proxy():  # httpx reads the proxies when Gradio is imported
            return build_demo(self.writer)

    def close(self) -> None:
        """End the running text, stop the server and free the model."""
        self.writer.close()
        if "demo" in self.__dict__:  # built
            _close_server(self.demo)
        self.model.close()


@dataclass(frozen=True, slots=True)
class Served:
    """What `serve` has to tell once the page answers; `text()` is for people."""

    url: str = ""
    """Address on this machine; empty where no page was opened (Kaggle Batch)."""
    share_url: str | None = None
    user: str = ""
    password: str = ""
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """All of it in Portuguese, a line each."""
        lines = [f"Página aberta em {self.url}"] if self.url else []
        if self.share_url:
            lines.append(f"Link público, por até uma semana: {self.share_url}")
        if self.password:
            lines.append(f"  usuário: {self.user}   senha: {self.password}")
        return "\n".join([*lines, *self.notes])


def open_page(path: Path | str) -> Page:
    """Open a model for the page. Raises as `Model`."""
    return Page(Model(path))


def launch_options(
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    auth: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """The arguments of `Blocks.launch`: nothing leaves this machine, nothing is stored, no file is served."""
    from ptbr_slm.app.errors import queue_handlers
    from ptbr_slm.app.theme import CSS, HEAD, theme

    return {
        "server_name": host,
        "server_port": port,
        "share": share,
        "auth": auth,
        "auth_message": "Use o usuário e a senha que apareceram ao abrir a página." if auth else None,
        "quiet": True,
        "prevent_thread_lock": True,
        "inbrowser": False,
        "show_error": False,
        "max_file_size": "1kb",
        "allowed_paths": [],
        "enable_monitoring": False,
        "run_history": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "footer_links": ["api"],
        "state_session_capacity": 200,
        "app_kwargs": {"exception_handlers": queue_handlers()},
        "theme": theme(),
        "css": CSS,
        "head": HEAD,
    }


def announce(served: Served) -> None:
    """Say on stderr where the page is."""
    sys.stderr.write(served.text() + "\n")
    sys.stderr.flush()


def serve(
    page: Page,
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool | None = None,
    auth: bool = True,
    ready: Callable[[Served], None] = announce,
) -> None:
    """Open the page, tell `ready` where it is, and stay until SIGTERM or Ctrl-C; then close everything.

    host None: 127.0.0.1, or GRADIO_SERVER_NAME (Spaces sets it). port None: the first free one from 7860;
    a given port that is taken raises E_PORT. share None: only in a Kaggle notebook, where nothing else is
    reachable. auth: a random user and password whenever others can reach the page (a share link, a host
    that is not this machine). In a Kaggle Batch run: one short text to see that the model works, no page.
    Inside a notebook the page stays open and the cell ends.
    """
    kaggle = os.environ.get("KAGGLE_KERNEL_RUN_TYPE", "")
    stays = False
    try:
        if kaggle == "Batch":
            ready(smoke_run(page))
            return
        share = bool(kaggle) if share is None else share
        with Signals() as signals:
            served = open_server(page, host=host, port=port, share=share, auth=auth)
            ready(served)
            unreachable = bool(kaggle) and share and served.share_url is None
            stays = in_notebook() and not unreachable
            if not stays and not unreachable:
                signals.wait()
    finally:
        if not stays:
            page.close()


def smoke_run(page: Page) -> Served:
    """One short text, in place of a page that nobody could see and that would hold a Batch run for hours."""
    text = page.model.generate(SMOKE_PROMPT, max_new_tokens=32)
    note = "Execução Batch do Kaggle: em vez de abrir a página, o modelo escreveu um trecho de teste."
    return Served(notes=(note, f"  {SMOKE_PROMPT}{text}"))


def open_server(
    page: Page, *, host: str | None = None, port: int | None = None, share: bool = False, auth: bool = True
) -> Served:
    """Start the server in its thread and say where it is."""
    demo = page.demo
    found, notes = choose_port(host, port)
    exposed = share or (host is not None and host not in LOOPBACK)
    login = ("ptbr", secrets.token_urlsafe(9)) if exposed and auth else None
    try:
        # Gradio prints its links and failures in English.
        with own_address_without_proxy(host), redirect_stdout(io.StringIO()):
            demo.launch(**launch_options(host=host, port=found, share=share, auth=login))
    except OSError as error:
        raise port_error(host, found) from error
    if share and demo.share_url is None:
        notes.append(_no_link(page))
    user, password = login or ("", "")
    return Served(demo.local_url, demo.share_url, user, password, tuple(notes))


def _no_link(page: Page) -> str:
    """What to do where the tunnel could not be made: the model works in a plain cell."""
    return (
        "Não consegui criar o link público: ele precisa de internet (no Kaggle: Settings > Internet > On).\n"
        "Sem ele, use o modelo direto numa célula:\n\n"
        "  import ptbr_slm\n"
        f'  for trecho in ptbr_slm.stream("{SMOKE_PROMPT}", model={str(page.model.path)!r}):\n'
        '      print(trecho.text, end="", flush=True)'
    )


def _close_server(demo: Any) -> None:
    """Stop the server without waiting for the streams of open tabs, which never end by themselves."""
    if server := getattr(demo, "server", None):
        server.config.timeout_graceful_shutdown = 1
        # Those streams, cut off, are not errors to report.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    demo.close(verbose=False)


def require_gradio() -> None:
    """Raises E_DEPENDENCY where Gradio is not installed; does not import it."""
    import importlib.util

    if importlib.util.find_spec("gradio") is None:
        raise missing_extra("gradio")


def in_notebook() -> bool:
    """Whether a person can still type after a call returns: a notebook or an interactive shell."""
    return hasattr(sys, "ps1")


class Signals:
    """SIGTERM and Ctrl-C end `wait` instead of the process; the former handlers return at the end.

    Outside the main thread Python allows no handlers: then only `wait`'s caller can end it.
    """

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._former: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread() and not in_notebook():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, lambda *_: self._ended.set())
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def wait(self) -> None:
        """Return once a signal came."""
        while not self._ended.wait(0.5):  # on Windows an endless wait would not see Ctrl-C
            pass
