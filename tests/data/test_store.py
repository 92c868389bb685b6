"""Documents come back from the working file as they went in, in order and as often as asked."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.data.document import Document
from ptbr_slm.data.store import DocumentStore

DOCUMENTS = st.builds(
    Document,
    text=st.text(max_size=50),
    source=st.text(st.characters(), max_size=9),
    id=st.text(max_size=5),
    licence=st.sampled_from(["", "CC BY 4.0"]),
    attributes=st.dictionaries(st.text(max_size=3), st.integers() | st.booleans() | st.text(max_size=3)),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(DOCUMENTS, max_size=8))
def test_what_is_added_is_read(tmp_path_factory, documents: list[Document]):
    store = DocumentStore(tmp_path_factory.mktemp("espera") / "documents")
    for document in documents:
        store.add(document)
    store.close()
    assert store.length == len(documents)
    assert list(store) == documents and list(store) == documents


def test_a_source_that_is_not_utf8_and_line_ends_of_every_kind_stay(tmp_path: Path):
    document = Document("uma\nlinha\r\n\u2028outra\x85\x0b", "pasta/\udce3.txt:3")
    store = DocumentStore(tmp_path / "documents")
    store.add(document)
    store.close()
    assert list(store) == [document]
