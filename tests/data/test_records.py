"""Records of documents: they come back as they went in, the same bytes again, and damage is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data.document import Document
from ptbr_slm.data.records import EXCERPT, GROUPS, RecordWriter, has_records, read_records
from ptbr_slm.errors import SlmError

values = st.one_of(st.text(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.booleans())
documents = st.builds(
    Document,
    text=st.text(max_size=2 * EXCERPT),
    source=st.text(),
    id=st.text(max_size=9),
    licence=st.sampled_from(["", "CC BY 4.0"]),
    attributes=st.dictionaries(st.text(), values, max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(kept=st.lists(documents, max_size=5), dropped=st.lists(documents, max_size=3))
def test_records_come_back_as_they_went_in(tmp_path_factory, kept: list[Document], dropped: list[Document]):
    folder = tmp_path_factory.mktemp("dados")
    with RecordWriter(folder) as writer:
        for document in kept:
            writer.keep("train", document)
        for document in dropped:
            writer.drop(document, "few_words", {"words": 3.0, "least": 50.0})
        entries = writer.finish()
    assert has_records(folder) and [entry.size for entry in entries] == [
        (folder / entry.file).stat().st_size for entry in entries
    ]
    back = list(read_records(folder, "train"))
    assert [(r.source, r.id, r.licence, r.attributes) for r in back] == [
        (d.source, d.id, d.licence, d.attributes) for d in kept
    ]
    assert [r.bytes for r in back] == [len(d.text.encode()) for d in kept]
    assert list(read_records(folder, "valid")) == []
    gone = list(read_records(folder, "dropped"))
    assert [r.excerpt for r in gone] == [d.text[:EXCERPT] for d in dropped]
    assert all(r.reason == "few_words" and r.figures == {"words": 3.0, "least": 50.0} for r in gone)


def write(folder: Path) -> Path:
    folder.mkdir()
    with RecordWriter(folder) as writer:
        for number in range(100):
            writer.keep("train", Document(f"texto {number}", f"a.txt:{number}"))
        writer.finish()
    return folder


def test_the_same_documents_give_the_same_bytes(tmp_path: Path):
    one, two = write(tmp_path / "um"), write(tmp_path / "dois")
    for group in GROUPS:
        name = f"{group}.documents.gz"
        assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.mark.parametrize("damage", [lambda raw: raw[:-20], lambda raw: b"PK" + raw[2:], lambda raw: b"{}"])
def test_damage_is_told(tmp_path: Path, damage):
    file = write(tmp_path / "d") / "train.documents.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(SlmError) as caught:
        list(read_records(tmp_path / "d", "train"))
    assert caught.value.code == "E_DATA_CORRUPT"


@pytest.mark.parametrize("line", [b"[]", b"{}", b'{"source":1}', b'{"source":"a","figures":[]}', b"nada"])
def test_a_line_that_is_no_record_is_damage(tmp_path: Path, line: bytes):
    import gzip

    (tmp_path / "train.documents.gz").write_bytes(gzip.compress(line + b"\n"))
    with pytest.raises(SlmError) as caught:
        list(read_records(tmp_path, "train"))
    assert caught.value.code == "E_DATA_CORRUPT"


def test_a_folder_without_records_has_none(tmp_path: Path):
    assert not has_records(tmp_path)
    with pytest.raises(SlmError):
        list(read_records(tmp_path, "train"))
