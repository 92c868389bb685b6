"""The items of evaluation sets in each format, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptbr_slm.data.decontamination.evaluation_sets import read_evaluation_set
from ptbr_slm.errors import SlmError


def items(path: Path, content: str) -> list[tuple[str, str]]:
    path.write_text(content, encoding="utf-8")
    return [(item.source.removeprefix(f"{path}"), item.text) for item in read_evaluation_set(path)]


def test_every_string_of_a_json_line_is_an_item(tmp_path: Path):
    record = {"id": 3, "question": "Quem?", "choices": ["ela", {"text": "ele"}], "answer": None}
    found = items(tmp_path / "a.jsonl", f"\ufeff{json.dumps(record)}\n\n{json.dumps('fim')}\n")
    assert found == [(":1", "Quem?"), (":1", "ela"), (":1", "ele"), (":3", "fim")]
    assert items(tmp_path / "a.json", json.dumps([record])) == [("", "Quem?"), ("", "ela"), ("", "ele")]


def test_a_line_of_text_and_a_sentence_of_a_treebank_are_items(tmp_path: Path):
    assert items(tmp_path / "a.txt", "Uma frase.\r\nOutra.") == [(":1", "Uma frase."), (":2", "Outra.")]
    treebank = "# sent_id = 1\n# text = Uma frase.\n1\tUma\n\n# text = Outra.\n"
    assert items(tmp_path / "a.conllu", treebank) == [(":2", "Uma frase."), (":5", "Outra.")]


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("a.xyz", b"", "a.xyz"),
        ("a.jsonl", b'"certa"\n{errada\n', "a.jsonl:2"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1"),
        ("a.txt", "ação".encode("latin-1"), "a.txt"),
    ],
)
def test_what_cannot_be_read_whole_is_refused(tmp_path: Path, name: str, content: bytes, where: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SlmError) as raised:
        list(read_evaluation_set(tmp_path / name))
    assert raised.value.code == "E_DATA_FORMAT" and str(raised.value.where).endswith(where)


def test_a_set_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(SlmError) as raised:
        list(read_evaluation_set(tmp_path / "falta.txt"))
    assert raised.value.code == "E_NOT_FOUND"
