"""Serve the page: settings, port, share link with a password, Kaggle, and a clean end."""

from __future__ import annotations

import io
import logging
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ptbr_slm.app.code_snippets import Api
from ptbr_slm.app.network import choose_port, first_port, own_address_without_proxy, port_error
from ptbr_slm.app.notebook import code_for_a_cell, in_notebook, write_in_cell
from ptbr_slm.app.share_link import close_link, open_link
from ptbr_slm.app.writer import Writer
from ptbr_slm.errors import missing_extra
from ptbr_slm.network import LOOPBACK
from ptbr_slm.privacy import keep_matplotlib_out_of_home
from ptbr_slm.runtime.model import Model
from ptbr_slm.stop_signals import StopSignals
from ptbr_slm.storage.naming import check_names, names_of

if TYPE_CHECKING:
    from ptbr_slm.app.streams import Streams

SMOKE_PROMPT = "O Brasil é"
PORT_RACES = 5
"""How often a port that was free a moment ago may turn out to be taken before that is an error."""
NO_LINK = "Não consegui criar o link público: ele precisa de internet (no Kaggle: Settings > Internet > On)."


class Page:
    """Opened models and their page, built when it is first needed (importing Gradio takes seconds)."""

    def __init__(self, writers: Mapping[str, Writer], api: Api | None = None) -> None:
        """writers: by what the page calls their models, at least one; the first is the one it begins with.

        api: of the server that shows the page, where one does.
        """
        self.writers, self.api = dict(writers), api
        self.writer = next(iter(self.writers.values()))
        self.model = self.writer.model

    @cached_property
    def streams(self) -> Streams:
        """The routes of growing texts."""
        from ptbr_slm.app.streams import Streams

        return Streams(self.writer)

    @cached_property
    def demo(self) -> Any:
        """The `gradio.Blocks`. Raises E_DEPENDENCY where Gradio is not installed."""
        require_gradio()
        from ptbr_slm.app.page import build_demo

        first_port()  # Gradio's import reads it too, and would not say where it is wrong
        keep_matplotlib_out_of_home()  # Gradio imports it
        with own_address_without_proxy():  # httpx reads the proxies when Gradio is imported
            return build_demo(self.writers, self.streams.key, self.api)

    def close(self) -> None:
        """End the running texts, stop the server and free the models."""
        for writer in self.writers.values():
            writer.close()
        if "demo" in self.__dict__:  # built
            if self.demo.is_running:
                close_link(self.demo)
            _close_server(self.demo)
        for writer in self.writers.values():
            writer.model.close()


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


def open_page(*folders: Path | str, named: Mapping[str, Path] = MappingProxyType({})) -> Page:
    """Open one model or several for the page, which begins with the first. named: further ones.

    Raises as `Model`, and E_USAGE for two of one name.
    """
    paths = [Path(folder) for folder in folders]
    names = [*names_of(paths), *named]
    check_names(names)
    opened: dict[str, Writer] = {}
    try:
        for name, folder in zip(names, [*paths, *named.values()], strict=True):
            opened[name] = Writer(Model(folder))
    except BaseException:
        for writer in opened.values():
            writer.model.close()
        raise
    return Page(opened)


def launch_options(
    page: Page,
    *,
    host: str | None = None,
    auth: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """The arguments of `Blocks.launch`: nothing leaves this machine, nothing is stored, no file is served.

    Call it once the page is built: it collects the sentences of the page in both languages.
    """
    from ptbr_slm.app.errors import queue_handlers
    from ptbr_slm.app.language import translations
    from ptbr_slm.app.theme import head, style, theme

    return {
        "server_name": host,
        "share": False,  # see share_link
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
        "footer_links": [],  # "api" would open a page in English
        "state_session_capacity": 200,
        "app_kwargs": {"exception_handlers": queue_handlers(), "routes": page.streams.routes()},
        "theme": theme(),
        "css": style(),
        "head": head(),
        "i18n": translations(),
    }


def announce(served: Served) -> None:
    """Say where the page is: on stderr, or in a notebook's cell, which would show that in red, on stdout."""
    stream = sys.stdout if in_notebook() else sys.stderr
    stream.write(served.text() + "\n")
    stream.flush()


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
    0: any free one; another that is taken raises E_PORT. share None: only in a Kaggle notebook, where
    nothing else is reachable. auth: a random user and password whenever others can reach the page (a share
    link, a host that is not this machine). In a Kaggle Batch run: one short text to see that the model
    works, no page.

    Inside a notebook the page stays open and the cell ends; running it again closes the page that it opened
    before. On Kaggle without a link one writes in the cell instead (`write_in_cell`).
    """
    kaggle = os.environ.get("KAGGLE_KERNEL_RUN_TYPE", "")
    stays = False
    try:
        if kaggle == "Batch":
            ready(smoke_run(page))
            return
        share = bool(kaggle) if share is None else share
        if in_notebook():
            _close_former(page)
        signals = StopSignals()
        with nullcontext() if in_notebook() else signals:
            served = open_server(page, host=host, port=port, share=share, auth=auth)
            if kaggle and share and served.share_url is None:
                _go_on_without_a_link(page, ready)
                return
            ready(served)
            stays = in_notebook()
            while not (stays or signals.count):
                signals.wait(0.5)  # on Windows an endless wait would not see Ctrl-C
    finally:
        if stays:
            _IN_NOTEBOOK[page.model.path] = page
        else:
            page.close()


_IN_NOTEBOOK: dict[Path, Page] = {}
"""The pages that cells of this notebook left open, by the folder of their first model."""


def _close_former(page: Page) -> None:
    """Close the page that an earlier run of this cell opened: a second model and a second link, else."""
    former = _IN_NOTEBOOK.pop(page.model.path, None)
    if former is not None and former is not page:
        former.close()


def _go_on_without_a_link(page: Page, ready: Callable[[Served], None]) -> None:
    """On Kaggle no browser reaches the page: one writes in the cell, or reads how to use the model there."""
    code = code_for_a_cell(page.model.path, SMOKE_PROMPT)
    if not in_notebook():
        ready(Served(notes=(NO_LINK, code)))
        return
    ready(Served(notes=(NO_LINK,)))
    if not write_in_cell(page.model):
        ready(Served(notes=(code,)))


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
    exposed = share or (host is not None and host not in LOOPBACK)
    login = ("ptbr", secrets.token_urlsafe(9)) if exposed and auth else None
    options = launch_options(page, host=host, auth=login)
    if share or os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        options["inline"] = False  # a frame in the cell would show 127.0.0.1 of the reader's own machine
    with own_address_without_proxy(host):
        notes = _launch(demo, options, host, port)
        link = open_link(demo) if share else None
    if share and link is None:
        notes.append(NO_LINK)
    user, password = login or ("", "")
    return Served(demo.local_url, link, user, password, tuple(notes))


def _launch(demo: Any, options: dict[str, Any], host: str | None, port: int | None) -> list[str]:
    """Open the port and serve; notes of `choose_port`. Another process may be quicker at a free one."""
    races = 0 if port else PORT_RACES
    while True:
        found, notes = choose_port(host, port)
        try:
            with redirect_stdout(io.StringIO()):  # Gradio prints in English
                demo.launch(**{**options, "server_port": found})
            return notes
        except OSError as error:
            if not races:
                raise port_error(host, found) from error
            races -= 1


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
