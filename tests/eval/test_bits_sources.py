"""Held-out texts: the same documents for every model, and what a document is."""

from __future__ import annotations

import json
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError
from ptbr_slm.eval import bits_sources
from ptbr_slm.eval.bits_sources import PIECE, built_in_text, named_text, normalized, valid_text


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_sentence_a_line_and_long_blocks_and_whole_files_are_documents(tmp_path):
    sentences = "".join(f"Esta é a frase número {n}.\n" for n in range(30))
    found = named_text(write(tmp_path / "frases.txt", sentences))
    assert (found.kind, found.of, found.name) == ("linhas", 30, "frases")
    blocks = "\n\n".join(f"Ata {n}. " + "A taxa ficou igual. " * 60 for n in range(4))
    found = named_text("atas=" + write(tmp_path / "b.txt", blocks))
    assert (found.kind, found.of, found.name) == ("blocos", 4, "atas")
    novel = "\n\n".join(f"Capítulo {n}\n\nEle saiu cedo, e não voltou." for n in range(40))
    found = named_text(write(tmp_path / "romance.txt", novel))
    assert (found.kind, found.of, found.documents) == ("arquivos", 1, (novel,))


def test_a_folders_files_are_documents_and_so_are_rows(tmp_path):
    (tmp_path / "t").mkdir()
    for name in "ab":
        write(tmp_path / "t" / f"{name}.txt", "Uma frase.\n" * 30)
    assert (named_text(str(tmp_path / "t")).kind, named_text(str(tmp_path / "t")).of) == ("arquivos", 2)
    rows = "".join(json.dumps({"text": f"Texto {n}."}) + "\n" for n in range(3))
    found = named_text(write(tmp_path / "x.jsonl", rows))
    assert found.documents == ("Texto 0.", "Texto 1.", "Texto 2.") and found.kind == "documentos"


def test_a_name_with_an_equals_sign_is_a_path_where_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a=b.txt", "Oi, tudo bem?")
    assert named_text("a=b.txt").name == "a=b"
    with pytest.raises(SlmError) as caught:
        named_text("a=nada.txt")
    assert (caught.value.code, caught.value.where) == ("E_NOT_FOUND", "nada.txt")


@pytest.mark.parametrize("content", ["", "  \n \n"])
def test_a_text_without_text_is_an_error(tmp_path, content):
    with pytest.raises(SlmError) as caught:
        named_text(write(tmp_path / "v.txt", content))
    assert caught.value.code == "E_DATA_EMPTY"


def test_what_is_taken_depends_on_the_text_alone(tmp_path):
    rows = [f"Documento {n}. " + "bla " * (n % 17) for n in range(200)]
    texts = {}
    for name, order in (("a", rows), ("b", rows[::-1])):
        lines = "".join(json.dumps({"text": row}) + "\n" for row in order)
        texts[name] = named_text(write(tmp_path / f"{name}.jsonl", lines), budget=2000)
    assert set(texts["a"].documents) == set(texts["b"].documents)
    assert 0 < len(texts["a"].documents) < texts["a"].of == 200
    assert sum(len(d.encode()) for d in texts["a"].documents) <= 2000


def test_of_a_long_document_pieces_are_drawn(tmp_path):
    long = " ".join(f"ação{n}" for n in range(5000))
    found = named_text(write(tmp_path / "l.txt", long), budget=20_000)
    assert 1 <= len(found.documents) <= 3 and all(len(d.encode()) <= PIECE for d in found.documents)
    assert all(id.startswith("0.") for id in found.ids) and found.of == 1
    every = named_text(str(tmp_path / "l.txt"), budget=len(long.encode()) - 1)
    assert set(" ".join(every.documents).split()) <= set(long.split())
    assert named_text(str(tmp_path / "l.txt"), budget=10**9).documents == (long,)


def test_the_valid_split_comes_back_as_it_was_prepared(prepared):
    split = PreparedData.open(prepared).split("valid")
    found = valid_text(prepared)
    assert found.of == len(found.documents) == split.documents and found.held_out_of == prepared
    assert sum(len(document.encode()) for document in found.documents) == split.bytes


def test_the_built_in_text_has_several_documents():
    found = built_in_text()
    assert len(found.documents) >= 10 and found.documents[0].startswith("A feira da rua Doze")


@given(st.text())
def test_what_is_scored_is_nfc_and_stays_so(text):
    found = normalized(text)
    assert found == normalize("NFC", found) == normalized(found) and "\r" not in found


def test_decomposed_accents_are_the_same_text(tmp_path):
    text = "São João não é só um santo: é festa."
    found = named_text(write(tmp_path / "nfd.txt", normalize("NFD", text) + "\r\n"))
    assert found.documents == (text,) and bits_sources.BUDGET > 0
