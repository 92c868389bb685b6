"""Input that a folder of real texts has sooner or later: answered in our form, and nothing else is lost."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from prepared_texts import texts_of

from ptbr_slm.data.document import Document, DocumentCounts, Skipped
from ptbr_slm.data.index import SPLITS
from ptbr_slm.data.pipeline import prepare, read_documents
from ptbr_slm.data.read import compressed
from ptbr_slm.data.read.formats import read_csv, read_json_lines
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer

GOOD = "Um texto bom, que se lê inteiro."


def read(*inputs: Path) -> tuple[list[str], DocumentCounts]:
    counts = DocumentCounts()
    return [document.text for document in read_documents(inputs, counts=counts)], counts


class _Generated(io.RawIOBase):
    """`size` bytes that are nowhere: `head`, then `filling` again and again, then `tail`."""

    def __init__(self, head: bytes, filling: bytes, size: int, tail: bytes) -> None:
        self._parts = [head, b"", tail]
        self._filling, self._left = filling, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._parts[0]:
            data, self._parts[0] = self._parts[0][: len(buffer)], self._parts[0][len(buffer) :]
        elif self._left > 0:
            size = min(len(buffer), self._left, len(self._filling))
            data, self._left = self._filling[:size], self._left - size
        else:
            data, self._parts[2] = self._parts[2][: len(buffer)], self._parts[2][len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_line_of_a_gigabyte_costs_itself_alone(ending: str):
    after = json.dumps({"text": GOOD}).encode() if ending == "jsonl" else f'"{GOOD}"'.encode()
    reader = {"jsonl": read_json_lines, "csv": read_csv}[ending]
    head = b'{"text": "' if ending == "jsonl" else b"text\n"
    stream = io.BufferedReader(
        _Generated(head, b"mar e rio " * 100_000, 1 << 30, b"\n" + after + b"\n"), 1 << 20
    )
    found = list(reader(stream, "a", "text"))
    texts = [item.text for item in found if isinstance(item, Document)]
    reasons = [item.reason for item in found if isinstance(item, Skipped)]
    assert texts == [GOOD] and reasons == ["too_long"]


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_names_that_are_not_utf8_are_read_recorded_and_told(
    tmp_path: Path, tokenizer_file: Path, cli: Callable
):
    folder = tmp_path / os.fsdecode(b"t\xe9xtos")
    folder.mkdir()
    for name, content in ((b"a\xe7\xe3o.txt", GOOD), (b"b\xff.txt", "Outro texto bom."), (b"c\xfe.txt", "s")):
        (folder / os.fsdecode(name)).write_text(content)
    options = ("--tokenizer", tokenizer_file, "--preset", "curated", "--json")
    done = cli("data", "prepare", folder, "-o", "d", *options)
    assert done.returncode == 0, done.stderr
    body = json.loads(done.stdout)
    assert body["documents"] == 2 and body["dropped"] == {"too_short": 1}


def test_a_file_that_fails_in_the_middle_of_a_folder_is_told_and_the_rest_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": f"{GOOD} {name}"}) + "\n")
    opening = Path.open

    class Broken(io.FileIO):
        def readinto(self, buffer: object) -> int:
            raise OSError(5, "Input/output error")

    def opened(self: Path, *arguments: object, **keywords: object):
        if self.name == "b.jsonl":
            raise PermissionError(13, "Permission denied", str(self))
        if self.name == "c.jsonl":
            return io.BufferedReader(Broken(str(self)))
        return opening(self, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", opened)
    found, counts = read(tmp_path)
    assert found == [f"{GOOD} a", f"{GOOD} d"] and dict(counts.dropped) == {"unreadable": 2}
    assert counts.examples["unreadable"] == [str(tmp_path / "b.jsonl"), str(tmp_path / "c.jsonl")]
    for name, code in (("b", "E_PERMISSION"), ("c", "E_IO")):
        with pytest.raises(SlmError) as error:
            read(tmp_path / f"{name}.jsonl")
        assert error.value.code == code and name in str(error.value.where)


def test_a_file_that_grows_or_goes_while_it_is_read_is_told_and_what_was_read_stays(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"{GOOD} {i}"}) + "\n" for i in range(50_000)))
    (tmp_path / "b.txt").write_text("Some antes de ser lido.")
    counts = DocumentCounts()
    found = []
    for document in read_documents([tmp_path], counts=counts):
        if not found:
            with path.open("a") as file:
                file.write(json.dumps({"text": "O fim, que veio depois."}) + "\n")
            (tmp_path / "b.txt").unlink()
        found.append(document.text)
    assert found[:50_000] == [f"{GOOD} {i}" for i in range(50_000)]
    assert counts.dropped["changed"] == 1 and counts.examples["changed"] == [str(path)]
    assert counts.dropped["unreadable"] == 1 and counts.examples["unreadable"] == [str(tmp_path / "b.txt")]


def test_a_file_that_changes_between_a_kill_and_the_next_run_is_read_again(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    from ptbr_slm.data import batches, encode

    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 1_000)
    monkeypatch.setattr(batches, "CHECKPOINT_CHARACTERS", 2_000)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"{GOOD} {i}"}) + "\n" for i in range(400)))

    def interrupted(now: object) -> None:
        if list(tmp_path.glob(".dados.preparing-*/checkpoint.json")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([path], tmp_path / "dados", tokenizer, progress=interrupted)
    path.write_text(path.read_text().replace("bom", "novo"))
    data = prepare([path], tmp_path / "dados", tokenizer)
    texts = [text for name in SPLITS for text in texts_of(data, name, tokenizer)]
    assert len(texts) == 400 and all("novo" in text for text in texts)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name")
def test_a_pipe_with_a_name_is_read_once_where_it_is_named(tmp_path: Path, tokenizer: Tokenizer):
    pipe = tmp_path / "cano.jsonl"
    os.mkfifo(pipe)
    lines = "".join(json.dumps({"text": f"{GOOD} {i}"}) + "\n" for i in range(50))
    writer = threading.Thread(target=pipe.write_text, args=(lines,))
    writer.start()
    data = prepare([pipe], tmp_path / "dados", tokenizer, valid_fraction=0.2)
    writer.join()
    assert sum(data.split(name).documents for name in SPLITS) == 50
    assert not list(tmp_path.glob(".dados*"))


def test_encodings_in_one_folder_are_told_apart(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    (tmp_path / "b.txt").write_bytes(GOOD.encode("utf-16"))
    (tmp_path / "c.txt").write_bytes(GOOD.encode("latin-1"))
    (tmp_path / "d.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps({"text": "Depois do BOM."}).encode())
    (tmp_path / "e.jsonl.gz").write_bytes(
        gzip.compress(b"\xef\xbb\xbf" + json.dumps({"text": "No gz."}).encode())
    )
    found, counts = read(tmp_path)
    assert found == [GOOD, "Depois do BOM.", "No gz."] and dict(counts.dropped) == {"utf16": 1, "not_utf8": 1}


def test_lines_of_another_encoding_inside_a_file_lose_themselves_alone(tmp_path: Path):
    line = '{"text": "ação e razão, %s."}\n'
    parts = ((line % "um").encode(), (line % "dois").encode("latin-1"), (line % "três").encode())
    utf16 = (line % "quatro").encode("utf-16-le")
    (tmp_path / "a.jsonl").write_bytes(b"".join(parts) + utf16 + b"\n" + (line % "cinco").encode())
    found, counts = read(tmp_path)
    assert found == [f"ação e razão, {word}." for word in ("um", "três", "cinco")]
    assert counts.dropped["not_utf8"] >= 1 and set(counts.dropped) <= {"not_utf8", "bad_json"}
    assert counts.examples["not_utf8"][0] == f"{tmp_path}/a.jsonl:2"


def test_a_bomb_inside_a_bomb_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import tarfile

    monkeypatch.setattr(compressed, "ALWAYS_ALLOWED", 1 << 20)
    inner = gzip.compress(b" " * (32 << 20))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (("a.txt", GOOD.encode()), ("b.jsonl.gz", inner), ("c.txt", GOOD[:20].encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (tmp_path / "a.tar.gz").write_bytes(packed.getvalue())
    found, counts = read(tmp_path)
    assert found == [GOOD, GOOD[:20].strip()] and dict(counts.dropped) == {"bomb": 1}
