"""Documents from files, one at a time: memory holds a document, never a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.data.clean import normalize
from ptbr_slm.data.drops import DropCounts
from ptbr_slm.data.files import list_files
from ptbr_slm.data.sources import raw_texts


@dataclass(frozen=True, slots=True)
class Document:
    """A normalised text and where it came from."""

    text: str
    source: str
    """The file, with the line or row after a colon where it holds many documents."""


def read_documents(
    inputs: Sequence[Path], *, paragraph_documents: bool = False, drops: DropCounts | None = None
) -> Iterator[Document]:
    """Every usable document of `inputs`, normalised; what is left out is counted in `drops`.

    A .txt file is a document, or with `paragraph_documents` each of its blank-line blocks; a JSONL line or a
    Parquet row with a `text` is one. Copies are not looked for here (see `prepare`).
    Raises E_NOT_FOUND, E_PERMISSION or E_DATA_FORMAT.
    """
    counts = drops if drops is not None else DropCounts()
    for path, kind in list_files(inputs, counts):
        for raw, source in raw_texts(path, kind, counts):
            text = normalize(raw, counts, source)
            if text is None:
                continue
            blocks = text.split("\n\n") if paragraph_documents and kind == "text" else [text]
            for block in blocks:
                if len(block.split(maxsplit=2)) < 2:
                    counts.drop("too_short", source)
                else:
                    yield Document(block, source)
