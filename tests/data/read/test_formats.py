"""What comes out of files of every format, and what is counted when it does not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from ptbr_slm import data
from ptbr_slm.data.document import REASONS, REPAIRS, Document, DocumentCounts
from ptbr_slm.data.pipeline import read_documents
from ptbr_slm.data.read import formats
from ptbr_slm.data.read.files import InputFile
from ptbr_slm.data.read.reader import read_file

FRASE = "A chuva caiu sobre a praça e ninguém correu."


def read(*inputs: Path, paragraph_documents: bool = False) -> tuple[list[str], DocumentCounts]:
    counts = DocumentCounts()
    found = [d.text for d in read_documents(inputs, paragraph_documents=paragraph_documents, counts=counts)]
    return found, counts


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n\t\r\n ", "empty"),
        ("Coração de estudante".encode("latin-1"), "not_utf8"),
        ("texto em UTF-16".encode("utf-16"), "utf16"),
        ("texto em UTF-16 sem marca".encode("utf-16-le"), "utf16"),
        ("texto em UTF-16 ao contrário".encode("utf-16-be"), "utf16"),
        ("texto em UTF-32".encode("utf-32"), "utf16"),
        (b"texto \x00 com nulo", "binary"),
        (bytes(range(256)) * 20, "binary"),
        (b"abc \x01\x02\x03\x04\x05\x06 def", "binary"),
        ("Olá".encode(), "too_short"),
    ],
)
def test_a_text_file_that_is_no_text_is_counted_with_its_place(tmp_path: Path, content: bytes, reason: str):
    bad = tmp_path / "ruim.txt"
    bad.write_bytes(content)
    (tmp_path / "bom.txt").write_text(FRASE)
    found, counts = read(tmp_path)
    assert found == [FRASE]
    assert dict(counts.dropped) == {reason: 1}
    assert counts.examples[reason] == [str(bad)]


def test_every_counted_reason_has_a_portuguese_name():
    source = "".join(path.read_text() for path in Path(data.__file__).parent.rglob("*.py"))
    for key in (*REASONS, *REPAIRS):
        assert source.count(f'"{key}"') >= 2, f"{key} is never counted"


def test_paragraph_documents_splits_at_blank_lines_only_in_text_files(tmp_path: Path):
    (tmp_path / "a.txt").write_text("Um bloco aqui.\n\n\n\nOutro bloco ali.\n \nSim\n")
    found, counts = read(tmp_path, paragraph_documents=True)
    assert found == ["Um bloco aqui.", "Outro bloco ali."]
    assert dict(counts.dropped) == {"too_short": 1}
    (tmp_path / "a.txt").unlink()
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "Um bloco aqui.\n\nOutro bloco ali."}))
    assert len(read(tmp_path, paragraph_documents=True)[0]) == 1


LINES = [
    (json.dumps({"text": FRASE}), None),
    ("", None),
    ('{"text": "sem fim', "bad_json"),
    ("[" * 100_000, "bad_json"),
    ('{"texto": "outro nome"}', "no_text"),
    ('{"text": 42}', "no_text"),
    ('"só uma frase solta"', "no_text"),
    ('{"text": "meio emoji \\ud83d aqui"}', "not_utf8"),
    ('{"text": "um nulo \\u0000 aqui"}', "binary"),
    ('{"text": ""}', "empty"),
    (json.dumps({"text": "Coração de mãe não se engana."}, ensure_ascii=True), None),
]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_json_lines_give_their_texts_and_count_the_rest(tmp_path: Path, ending: str):
    content = (
        b"\xef\xbb\xbf" + "\n".join(line for line, _ in LINES).encode() + b'\n{"text": "\xff\xfe latim"}\n'
    )
    pack = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}[ending]
    (tmp_path / f"a{ending}").write_bytes(pack(content))
    found, counts = read(tmp_path)
    assert found == [FRASE, "Coração de mãe não se engana."]
    assert dict(counts.dropped) == {"bad_json": 2, "no_text": 3, "not_utf8": 2, "binary": 1, "empty": 1}
    assert counts.examples["bad_json"] == [f"{tmp_path}/a{ending}:3", f"{tmp_path}/a{ending}:4"]
    assert counts.input_bytes == (tmp_path / f"a{ending}").stat().st_size


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "not compressed"])
def test_a_broken_archive_keeps_what_came_before_and_is_counted(tmp_path: Path, ending: str, damage: str):
    lines = "".join(json.dumps({"text": f"Frase {i} {hash((i, 7))} do dia."}) + "\n" for i in range(20_000))
    packed = bytearray((gzip.compress if ending == ".jsonl.gz" else zstandard.compress)(lines.encode()))
    if damage == "truncated":
        packed = packed[: len(packed) // 2]
    elif damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
        packed[len(packed) // 2 + 1] ^= 0xFF
    else:
        packed = bytearray(b"isto nao e um arquivo compactado\n")
    (tmp_path / f"a{ending}").write_bytes(packed)
    found, counts = read(tmp_path)
    assert counts.dropped, "damage went unseen"
    assert set(counts.dropped) <= {"corrupt_file", "bad_json", "not_utf8", "binary", "no_text"}
    assert len(found) < 20_000


def test_parquet_gives_its_text_column_and_counts_the_rest(tmp_path: Path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    good = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": [FRASE, None, "", "Outra frase boa."], "id": [1, 2, 3, 4]}), good)
    parquet.write_table(pa.table({"corpo": ["x y", "z w"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(good.read_bytes()[:-200])
    found, counts = read(tmp_path)
    assert found == [FRASE, "Outra frase boa."]
    assert dict(counts.dropped) == {"no_text": 3, "empty": 1, "corrupt_file": 1}


def test_a_file_above_the_limit_is_cut_between_paragraphs_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prose
):
    monkeypatch.setattr(formats, "MAX_DOCUMENT_BYTES", 2_000)
    paragraphs = [prose(i) for i in range(40)]
    (tmp_path / "a.txt").write_text("\n\n".join(paragraphs))
    found, counts = read(tmp_path)
    assert len(found) > 5
    assert "\n\n".join(found).split("\n\n") == paragraphs
    assert dict(counts.repaired) == {"split": 1} and not counts.dropped


@pytest.mark.parametrize("text", ["coração" * 2_000, "mão " * 4_000, "a" * 2_001, "é" * 2_001])
def test_a_long_line_is_cut_by_word_or_character_never_inside_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
):
    monkeypatch.setattr(formats, "MAX_DOCUMENT_BYTES", 2_000)
    path = tmp_path / "a.txt"
    path.write_text(text)
    found = list(read_file(InputFile(path, "text", named=True)))
    pieces = [document.text for document in found if isinstance(document, Document)]
    assert "".join(pieces) == text and len(pieces) == len(found)
    assert max(len(piece.encode()) for piece in pieces) <= 2_000


def test_a_json_line_above_the_limit_is_skipped_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(formats, "MAX_DOCUMENT_BYTES", 2_000)
    lines = [json.dumps({"text": text}) for text in ("x" * 5_000_000, FRASE)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    found, counts = read(tmp_path)
    assert (found, dict(counts.dropped)) == ([FRASE], {"too_long": 1})
