"""`tokenizer compare` and the sample of `tokenizer train`, as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ptbr_slm.text import parse_bytes
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tokenizer.compare import Fertility, compare, plot


@pytest.fixture
def folder(tmp_path: Path, texts: list[str]) -> Path:
    """news.txt, ours/tokenizer.json of 500 tokens and bytes.json of 261."""
    (tmp_path / "noticias.txt").write_text("\n".join(texts), encoding="utf-8")
    (tmp_path / "nosso").mkdir()
    for file, size in ((tmp_path / "nosso" / "tokenizer.json", 500), (tmp_path / "bytes.json", 261)):
        file.write_text(Tokenizer.train(texts, size).to_json(), encoding="utf-8")
    return tmp_path


def test_the_numbers_are_those_of_the_texts(folder: Path, texts: list[str], cli: Callable):
    news, ours, other = folder / "noticias.txt", folder / "nosso", folder / "bytes.json"
    done = cli("tokenizer", "compare", news, "--tokenizer", ours, "--with", other, "--json", check=True)
    body = json.loads(done.stdout)
    text = "\n".join(texts)
    tokens = len(Tokenizer.load(ours).encode(text, special=False))
    first, second = body["tokenizers"]
    assert (body["words"], body["bytes"]) == (len(text.split()), len(text.encode()))
    assert first["name"] == "nosso" and first["tokens"] == tokens and first["difference"] == 0
    assert first["tokens_per_word"] == round(tokens / len(text.split()), 4)
    assert first["bytes_per_token"] == round(len(text.encode()) / tokens, 4)
    assert second["name"] == "bytes.json" and second["tokens"] == len(text.encode())
    assert second["difference"] == round(second["tokens"] / tokens - 1, 4) > 0


def test_the_table_is_in_portuguese_and_more_files_may_follow_with(folder: Path, run: Callable):
    news, ours, other = folder / "noticias.txt", folder / "nosso", folder / "bytes.json"
    done = run("tokenizer", "compare", news, "--with", ours, other, check=True)
    assert "tokens/palavra" in done.stdout and "bytes.json" in done.stdout and "+" in done.stdout
    assert len([line for line in done.stdout.splitlines() if " 500 " in line or " 261 " in line]) == 2


def test_the_plot_is_an_svg_that_is_the_same_each_time(folder: Path, cli: Callable):
    pytest.importorskip("matplotlib")
    drawing = folder / "grafico.svg"
    command = ("tokenizer", "compare", folder / "noticias.txt", "--with", folder / "nosso", "--svg", drawing)
    cli(*command, check=True)
    first = drawing.read_bytes()
    assert ElementTree.fromstring(first).tag.endswith("svg")
    cli(*command, check=True)
    assert drawing.read_bytes() == first


def test_a_name_with_dollars_or_markup_is_drawn_as_it_is():
    pytest.importorskip("matplotlib")
    counts = [Fertility("a$x^$b <script>", 10, 3, 0, 2, 9), Fertility("outro", 10, 4, 0, 2, 9)]
    drawing = plot(counts)
    assert "<script>" not in drawing.split("<!--")[0] and ElementTree.fromstring(drawing) is not None


def test_a_text_without_end_is_counted_in_pieces(texts: list[str]):
    tokenizer = Tokenizer.train(texts, 300)
    (count,) = compare(["z" * 300_000], {"nosso": tokenizer})
    assert (count.words, count.bytes) == (1, 300_000) and 100_000 < count.tokens <= 300_000


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["bytes.json", "--with", "nosso"], "E_USAGE", 2),
        (["noticias.txt", "--with", "nada.model"], "E_TOKENIZER_MISSING", 1),
        (["noticias.txt", "--with", "noticias.txt"], "E_TOKENIZER_INVALID", 3),
        (["vazio.txt", "--with", "nosso"], "E_DATA_EMPTY", 1),
        (["noticias.txt", "--with", "nosso", "--sample", "muito"], "E_USAGE", 2),
        (["noticias.txt", "--with", "nosso", "--svg", "noticias.txt"], "E_EXISTS", 1),
    ],
)
def test_each_mistake_has_its_code(
    folder: Path, run: Callable, arguments: list[str], code: str, exit_code: int
):
    (folder / "vazio.txt").write_text("")
    done = run("tokenizer", "compare", *[folder / a if "." in a or a == "nosso" else a for a in arguments])
    assert (done.returncode, done.stderr.split("]")[0]) == (exit_code, f"Erro [{code}")


def test_a_tokenizer_of_a_sample_is_the_same_again_and_says_what_it_is_of(folder: Path, cli: Callable):
    command = ("tokenizer", "train", folder / "noticias.txt", "--vocab-size", "300", "--sample", "300B")
    one = json.loads(cli(*command, "-o", folder / "a.json", "--json", check=True).stdout)
    two = json.loads(cli(*command, "-o", folder / "b.json", "--json", check=True).stdout)
    assert one["sha256"] == two["sha256"] and one["sample_bytes"] == 300
    whole = cli("tokenizer", "train", folder / "noticias.txt", "-o", folder / "c.json", "--json", check=True)
    assert json.loads(whole.stdout)["sample_bytes"] is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("200MB", 200_000_000), ("1,5 GiB", 1_610_612_736), ("64", 64), ("0", 0), ("2k", 2_000), ("10b", 10)],
)
def test_sizes_as_people_write_them(text: str, size: int):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1,2,3", "1e9", "10XB", "nan"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError):
        parse_bytes(text)
