"""Whatever part of the input is not read is counted and named; what can be read beside it is read."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.pipeline import read_documents
from ptbr_slm.data.read.files import list_files
from ptbr_slm.errors import SlmError

PACK = {".jsonl.gz": gzip.compress, ".jsonl.zst": zstandard.compress}


def read(*inputs: Path) -> tuple[list[str], DocumentCounts]:
    counts = DocumentCounts()
    return [document.text for document in read_documents(inputs, counts=counts)], counts


def lines_of(count: int) -> tuple[list[str], bytes]:
    texts = [f"Frase {i}, escrita no dia {i * 7_919 % 104_729} do ano." for i in range(count)]
    return texts, "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.mark.parametrize("ending", PACK)
def test_an_archive_cut_at_90_percent_is_counted_and_what_came_before_is_read(tmp_path: Path, ending: str):
    texts, content = lines_of(20_000)
    packed = PACK[ending](content)
    (tmp_path / f"a{ending}").write_bytes(packed[: len(packed) * 9 // 10])
    found, counts = read(tmp_path)
    assert counts.dropped["corrupt_file"] == 1 and set(counts.dropped) <= {"corrupt_file", "bad_json"}
    assert found == texts[: len(found)] and len(found) > 10_000
    assert f"a{ending}:" in counts.examples["corrupt_file"][0]


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("last_line_end", ["\n", ""])
def test_bytes_after_a_frame_lose_no_document_before_them(tmp_path: Path, ending: str, last_line_end: str):
    texts, content = lines_of(300)
    packed = PACK[ending](content.rstrip() + last_line_end.encode())
    (tmp_path / f"a{ending}").write_bytes(packed + b"lixo depois do fim")
    found, counts = read(tmp_path)
    assert (found, dict(counts.dropped)) == (texts, {"corrupt_file": 1})


def test_zstandard_frames_end_to_end_and_skippable_ones_are_one_file(tmp_path: Path):
    texts, content = lines_of(200)
    half = content.index(b"\n", len(content) // 2) + 1
    skippable = (0x184D2A50).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"abcde"
    packed = zstandard.compress(content[:half]) + skippable + zstandard.compress(content[half:])
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    found, counts = read(tmp_path)
    assert found == texts and not counts.dropped and counts.input_bytes == len(packed)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_a_file_of_lines_without_any_is_counted(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(PACK[name[1:]](content) if name[1:] in PACK and content else content)
    assert dict(read(tmp_path)[1].dropped) == {"empty": 1}


def test_joined_files_that_each_begin_with_a_bom_keep_every_document(tmp_path: Path):
    texts, content = lines_of(30)
    (tmp_path / "a.jsonl").write_bytes(b"".join(b"\xef\xbb\xbf" + line for line in content.splitlines(True)))
    found, counts = read(tmp_path)
    assert found == texts and not counts.dropped


def test_lines_in_utf16_are_told_as_such_once(tmp_path: Path):
    (tmp_path / "a.jsonl").write_bytes(lines_of(30)[1].decode().encode("utf-16"))
    found, counts = read(tmp_path)
    assert not found and dict(counts.dropped) == {"utf16": 1}
    assert counts.input_bytes == (tmp_path / "a.jsonl").stat().st_size


def test_a_folder_reached_by_a_link_is_read_once_and_links_in_a_circle_end(tmp_path: Path):
    (tmp_path / "longe").mkdir()
    (tmp_path / "longe" / "a.txt").write_text("Um texto que mora longe.")
    textos = tmp_path / "textos"
    (textos / "sub").mkdir(parents=True)
    (textos / "sub" / "b.txt").write_text("Um texto que mora perto.")
    (textos / "atalho").symlink_to(tmp_path / "longe")
    (textos / "outro").symlink_to(tmp_path / "longe")
    (textos / "sub" / "acima").symlink_to(textos)
    found, counts = read(textos)
    assert found == ["Um texto que mora perto.", "Um texto que mora longe."] and not counts.dropped


def test_links_to_nothing_and_pipes_are_counted_by_name(tmp_path: Path):
    (tmp_path / "a.txt").write_text("Um texto que se lê.")
    (tmp_path / "nada.txt").symlink_to(tmp_path / "sumiu.txt")
    (tmp_path / "volta.txt").symlink_to(tmp_path / "volta.txt")
    os.mkfifo(tmp_path / "cano.txt")
    found, counts = read(tmp_path)
    assert found == ["Um texto que se lê."] and dict(counts.dropped) == {"unreadable": 3}
    assert sorted(counts.examples["unreadable"]) == [
        str(tmp_path / name) for name in ("cano.txt", "nada.txt", "volta.txt")
    ]


@pytest.fixture
def no_permission(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Take the right to read a folder or file from this user, root included."""
    denied: set[str] = set()
    scan, access = os.scandir, os.access

    def scandir(path: str | Path):
        if str(path) in denied:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) not in denied and access(path, mode))
    return lambda path: denied.add(str(path))


def test_a_folder_or_file_that_may_not_be_read_is_counted_and_a_named_one_refused(
    tmp_path: Path, no_permission: Callable[[Path], None]
):
    (tmp_path / "fechada").mkdir()
    (tmp_path / "fechada" / "a.txt").write_text("Um texto que ninguém vê.")
    (tmp_path / "b.txt").write_text("Um texto que se lê.")
    (tmp_path / "c.txt").write_text("Um texto trancado.")
    no_permission(tmp_path / "fechada")
    no_permission(tmp_path / "c.txt")
    found, counts = read(tmp_path)
    assert found == ["Um texto que se lê."] and dict(counts.dropped) == {"unreadable": 2}
    with pytest.raises(SlmError) as error:
        list(list_files([tmp_path / "fechada"]))
    assert error.value.code == "E_PERMISSION"


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary", "binary"])
def test_one_invalid_cell_of_a_parquet_column_loses_itself_alone(tmp_path: Path, kind: str):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = [f"Linha {i} da tabela." for i in range(600)]
    cells = [text.encode() for text in texts]
    cells[5] = "ação".encode("latin-1")
    column = pa.array(cells, pa.binary())
    if kind == "large_string":
        column = pa.Array.from_buffers(pa.large_string(), 600, column.cast(pa.large_binary()).buffers())
    elif kind == "string_view":
        view = column.cast(pa.binary_view())
        column = pa.Array.from_buffers(pa.string_view(), 600, view.buffers())
    elif kind in ("string", "dictionary"):
        column = pa.Array.from_buffers(pa.string(), 600, column.buffers())
    if kind == "dictionary":
        column = pa.DictionaryArray.from_arrays(pa.array(range(600), pa.int32()), column)
    parquet.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    found, counts = read(tmp_path)
    assert found == texts[:5] + texts[6:] and dict(counts.dropped) == {"not_utf8": 1}
    assert counts.examples["not_utf8"] == [f"{tmp_path}/a.parquet:6"]


def test_a_broken_row_group_loses_its_rows_which_are_counted(tmp_path: Path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = [f"Linha {i} da tabela, {i * 7_919 % 104_729}." for i in range(3_000)]
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": texts}), path, row_group_size=1_000, use_dictionary=False)
    column = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 200] = bytes(200)
    path.write_bytes(content)
    found, counts = read(tmp_path)
    assert found == texts[:1_000] + texts[2_000:] and dict(counts.dropped) == {"corrupt_rows": 1_000}


def test_a_parquet_file_without_rows_is_counted(tmp_path: Path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert dict(read(tmp_path)[1].dropped) == {"empty": 1}


def test_what_the_tokenizer_did_not_read_is_told(tmp_path: Path, cli: Callable):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.txt").write_text("A chuva caiu sobre a praça. " * 20)
    (tmp_path / "t" / "b.txt").write_bytes("ação e razão".encode("utf-16"))
    done = cli("tokenizer", "train", "t", "-o", "t.json", "--vocab-size", "300", check=True)
    assert "1 × está em UTF-16, e não em UTF-8  (por exemplo t/b.txt)" in done.stdout
    body = json.loads(cli("tokenizer", "train", "t", "-o", "t.json", "--vocab-size", "300", "--json").stdout)
    assert body["dropped"] == {"utf16": 1}
