"""A tiny model with random weights, and its page on a free port."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from chromium import PHONE, Watch, chromium
from tiny_models import write_model

from ptbr_slm.app import Page, open_page
from ptbr_slm.app.launch import open_server
from ptbr_slm.config import model_config
from ptbr_slm.tokenizer import Tokenizer

CONTEXT = 2048
TABS = {"locale": "pt-BR", "reduced_motion": "reduce"}
"""Of every browser context; reduced motion, so that a click does not wait for a movement."""

HERE = Path(__file__).parent

NOT_OURS = [
    "ignore::pytest.PytestUnraisableExceptionWarning",  # event loops that Gradio leaves open
    "ignore::DeprecationWarning:gradio",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the warnings that Gradio itself causes."""
    for item in items:
        if item.path.is_relative_to(HERE):
            for warning in NOT_OURS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A nano model of random weights, whose texts never end before the context is full."""
    folder = tmp_path_factory.mktemp("app") / "Área de Trabalho" / "modelo"
    tokenizer = Tokenizer.train(texts * 3, 400)
    config = model_config("nano", vocab_size=tokenizer.vocab_size, max_seq_len=CONTEXT)
    # Random weights draw <|eos|> once in 400 tokens; an end token outside the vocabulary never comes.
    return write_model(folder, replace(config, eos_token_ids=(tokenizer.vocab_size,)), tokenizer)


@pytest.fixture(scope="session")
def gradio() -> Iterator[ModuleType]:
    """Gradio, first imported here: the event loops that its import drops would be collected, with
    ResourceWarning as an error, while pytest parses the next test file, and crash Python 3.11's parser.
    """
    if find_spec("gradio") is None:
        pytest.skip('instale com: pip install "ptbr-slm[app]"')
    with quiet_loops():
        module = import_module("gradio")
    yield module
    with quiet_loops():
        pass


@contextmanager
def quiet_loops() -> Iterator[None]:
    """Collect here, silently, what Gradio left to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.fixture(scope="session")
def page(gradio: ModuleType, model_folder: Path) -> Iterator[Page]:
    """The page over the tiny model."""
    opened = open_page(model_folder)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def url(page: Page) -> str:
    """Address of the page, served from a thread of this process."""
    return open_server(page).url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium. Not for the whole session: see `chromium` about asyncio."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def phone(browser: Any) -> Iterator[tuple[Any, Watch]]:
    """A dark phone in Portuguese: a browser context that the tests of a module share."""
    context, watch = browser.new_context(**TABS, viewport=PHONE, color_scheme="dark"), Watch()
    watch.follow(context)
    # What the page keeps for a reload is not for the next test.
    context.add_init_script("try { sessionStorage.clear() } catch {}")
    yield context, watch
    context.close()


@pytest.fixture
def tab(phone: tuple[Any, Watch], url: str) -> Iterator[Any]:
    """The page as first visited, on the phone; at its end nothing was asked of another host and the console
    has no error. Loading it anew in the same tab takes a third of what a new context takes.
    """
    context, watch = phone
    page = context.pages[0] if context.pages else context.new_page()
    open_at(page, url)
    yield page
    context.unroute_all()
    for further in context.pages[1:]:
        further.close()
    if not page.is_closed():
        page.evaluate("localStorage.clear(); sessionStorage.clear()")
        page.set_viewport_size(PHONE)
        page.goto("about:blank")  # leaves the page as closing the tab does: what it was writing ends
    watch.check(url)


@pytest.fixture
def new_tab(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """`new_tab(locale="en-US", viewport=DESKTOP, color_scheme="light")`: one more visitor, with a context
    of their own (which `.context.close()` may close), looked at as `tab` is.
    """
    opened: list[tuple[Any, Watch]] = []

    def open_tab(**options: Any) -> Any:
        context, watch = browser.new_context(**{**TABS, **options}), Watch()
        watch.follow(context)
        opened.append((context, watch))
        page = context.new_page()
        open_at(page, url)
        return page

    yield open_tab
    for context, watch in opened:
        context.close()
        watch.check(url)


def open_at(page: Any, url: str) -> None:
    """Load the page and wait until it can be used."""
    page.set_default_timeout(60_000)  # of a busy machine; a page that works takes a second
    page.goto(url)
    page.wait_for_selector("#texto textarea")
    page.wait_for_selector("#continuar:not([disabled])")


class Held:
    """Requests for growing texts that wait on their way to the server, as on a slow network."""

    def __init__(self, page: Any) -> None:
        self._page, self._holding = page, True
        self._routes: list[Any] = []
        page.context.route("**/stream/*", self._take)  # which the end of a test takes away

    def __len__(self) -> int:
        return len(self._routes)

    def _take(self, route: Any) -> None:
        if self._holding:
            self._routes.append(route)
        else:
            route.continue_()

    def wait(self) -> dict[str, Any]:
        """What the first one asks."""
        while not self._routes:
            self._page.wait_for_timeout(10)
        return dict(self._routes[0].request.post_data_json)

    def let(self) -> None:
        """They go on, and those that follow go straight."""
        self._holding = False
        for route in self._routes:
            route.continue_()
        self._routes.clear()

    def hold(self) -> None:
        """Those that follow wait."""
        self._holding = True


@pytest.fixture
def slow(tab: Any) -> Held:
    """The page's network, which from now on lets nothing through until `let`."""
    return Held(tab)
