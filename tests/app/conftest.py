"""A tiny model with random weights, and its page on a free port."""

from __future__ import annotations

import gc
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
