"""Portuguese texts made on the spot, a tiny tokenizer, and a small disk to fill."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_disk import mounted

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.tokenizer import Tokenizer

_SUBJECTS = ["A professora", "O pescador", "Minha avó", "O vizinho da esquina", "A menina", "O padeiro"]
_VERBS = ["contou", "esqueceu", "encontrou", "desenhou", "guardou", "consertou", "não viu", "aprendeu"]
_OBJECTS = ["uma história", "o violão", "as chaves de casa", "um caminho até o mar", "o pão de queijo"]
_PLACES = ["na feira", "à beira do rio", "no sertão", "em São Luís", "atrás da igreja", "ontem à noite"]


def _prose(seed: int, sentences: int = 6) -> str:
    pick = random.Random(seed).choice
    return " ".join(
        f"{pick(_SUBJECTS)} {pick(_VERBS)} {pick(_OBJECTS)} {pick(_PLACES)}." for _ in range(sentences)
    )


@pytest.fixture(scope="session")
def prose() -> Callable[..., str]:
    """prose(seed, sentences=6): the same Portuguese sentences for the same seed."""
    return _prose


@pytest.fixture(scope="session")
def tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE of some 400 tokens."""
    return Tokenizer.train([*texts, *map(_prose, range(20))], 400)


@pytest.fixture(scope="session")
def tokenizer_file(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a file."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(tokenizer.to_json(), encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of 40 different .txt files."""
    folder = tmp_path / "textos"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02d}.txt").write_text(_prose(number), encoding="utf-8")
    return folder


@pytest.fixture
def data(corpus: Path, tmp_path: Path, tokenizer: Tokenizer) -> PreparedData:
    """The corpus, prepared, in several shards."""
    return prepare([corpus], tmp_path / "dados", tokenizer, valid_fraction=0.1, shard_tokens=800)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KiB."""
    with mounted(tmp_path / "disco", kib=512) as folder:
        yield folder
