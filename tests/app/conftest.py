"""A tiny model with random weights, and its page on a free port."""

from __future__ import annotations

import gc
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from tiny_models import write_model

from ptbr_slm.app import Page, open_page
from ptbr_slm.app.launch import open_server
from ptbr_slm.config import model_config
from ptbr_slm.tokenizer import Tokenizer

CONTEXT = 2048
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
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


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A real Chromium."""
    if CHROMIUM is None:
        pytest.skip("instale com: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="instale com: pip install playwright")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def tab(browser, url) -> Iterator:
    """An open page; at its end nothing was asked of another host and the console has no error."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="pt-BR", color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(20_000)
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    page.goto(url)
    page.wait_for_selector("#texto textarea")
    page.wait_for_selector("#continuar:not([disabled])")
    yield page
    context.close()
    assert not [address for address in asked if not address.startswith((url, "data:", "blob:"))]
    assert not errors
