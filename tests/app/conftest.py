"""A tiny model with random weights, and its page on a free port."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ptbr_slm.app import Page, open_page
from ptbr_slm.app.launch import open_server
from ptbr_slm.config import model_config
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.model_folder import seal_model_folder, write_model_files
from ptbr_slm.tokenizer import Tokenizer

CONTEXT = 2048


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A nano model of random weights, whose texts never end before the context is full."""
    from ptbr_slm.model import Llama

    folder = tmp_path_factory.mktemp("app") / "Área de Trabalho" / "modelo"
    tokenizer = Tokenizer.train(texts * 3, 400)
    config = model_config("nano", vocab_size=tokenizer.vocab_size, max_seq_len=CONTEXT)
    weights = Llama(config).initialize(seed=0).to_hf_weights()
    with atomic_folder(folder) as temporary:
        # Random weights draw <|eos|> once in 400 tokens; an end token outside the vocabulary never comes.
        config = replace(config, eos_token_ids=(tokenizer.vocab_size,))
        write_model_files(temporary, config, weights, tokenizer)
        seal_model_folder(temporary)
    return folder


@pytest.fixture(scope="session")
def page(model_folder: Path) -> Iterator[Page]:
    """The page over the tiny model."""
    opened = open_page(model_folder)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def url(page: Page) -> str:
    """Address of the page, served from a thread of this process."""
    return open_server(page).url
