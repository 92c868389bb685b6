"""Held-out texts by name and by path, as documents: the same text for every model, whatever its tokenizer.

A source is text, and not tokens. It is brought to NFC with `\\n` line ends, and scored whole where it is
small. Of a larger one, pieces of documents are drawn by their own content up to a number of bytes, each byte
with the same chance: beginnings alone are harder than what follows. So two models with different tokenizers
are measured on the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import numpy as np

from ptbr_slm.data.document import Document
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.read.files import input_files
from ptbr_slm.data.read.reader import read_file
from ptbr_slm.errors import SlmError

BUDGET = 256 << 10
"""Bytes scored of a source: about the 65,536 tokens of training's evaluation."""
PIECE = 8 << 10
"""Bytes of a piece of a document, at most: some 2,000 tokens."""
_BLOCK = 1000
"""Bytes: blocks between blank lines with a median above it are documents, and paragraphs of one below it."""
_LINES = 20
"""Lines without a blank one between them from which on each is a document."""


@dataclass(frozen=True, slots=True)
class HeldOutText:
    """Documents, or pieces of them, to measure a model on."""

    name: str
    """In tables; two results are compared by it."""
    source: str
    """Where it was read, for people."""
    documents: tuple[str, ...]
    """NFC, `\\n` line ends, without white space around."""
    ids: tuple[str, ...]
    """Of the documents: their places in the source; of pieces, `DOCUMENT.PIECE`."""
    of: int
    """Documents that the source has."""
    kind: str
    """What a document is, in Portuguese: documentos, arquivos, linhas, blocos."""
    held_out_of: Path | None = None
    """The prepared data whose valid split it is: a model trained on them has not seen it."""

    @property
    def sha256(self) -> str:
        """Of the documents in their order."""
        return hashlib.sha256("\x1f".join(self.documents).encode()).hexdigest()


def named_text(argument: str, budget: int = BUDGET) -> HeldOutText:
    """The text that `NAME=PATH` or `PATH` names: a text, JSONL, CSV, HTML or Parquet file, or a folder.

    A row of JSONL, CSV and Parquet is a document, and a text file of a folder. So is a text file alone,
    unless blank lines part it into pieces of a median above 1,000 bytes, or it has 20 lines or more and no
    blank one (a sentence a line); then these pieces are. Raises what `list_files` and `read_file` raise, and
    E_DATA_EMPTY.
    """
    name, equals, rest = argument.partition("=")
    given = not Path(argument).exists() and bool(equals)
    path = Path(rest if given else argument)
    found: list[str] = []
    kinds: set[str] = set()
    for file in input_files([path]):
        read = [one.text for one in read_file(file) if isinstance(one, Document)]
        kind = "documentos"
        if file.format == "text":
            kind = "arquivos"
            if file.path == path and read:
                kind, read = _parts(read[0])
        kinds.add(kind)
        found += read
    kind = kinds.pop() if len(kinds) == 1 else "documentos"
    return _chosen(name if given else path.stem, str(path), found, kind, budget)


def valid_text(data: Path, budget: int = BUDGET) -> HeldOutText:
    """The valid split of prepared data, read back from its tokens.

    Raises what `PreparedData.open` raises, and E_DATA_EMPTY where nothing was held out.
    """
    from ptbr_slm.tokenizer import Tokenizer

    split = PreparedData.open(data, verify=False).split("valid")
    tokenizer = Tokenizer.load(data)
    edges = split.document_offsets()
    found = [tokenizer.decode(split.read(int(start), int(stop)).tolist()) for start, stop in pairwise(edges)]
    chosen = _chosen("valid", str(data), found, "documentos", budget)
    return replace(chosen, held_out_of=data)


def built_in_text() -> HeldOutText:
    """Some 6 KB of Portuguese prose and dialogue, written for this package; each part is a document."""
    text = resources.files("ptbr_slm.eval").joinpath("held_out_pt.txt").read_text(encoding="utf-8")
    return _chosen("incluído", "texto incluído no ptbr-slm", _blocks(text), "blocos", BUDGET)


def normalized(text: str) -> str:
    """What of a text is scored."""
    return normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _parts(text: str) -> tuple[str, list[str]]:
    """What the documents of a text file are, and they."""
    blocks = _blocks(text)
    if len(blocks) > 1:
        sizes = [len(block.encode()) for block in blocks]
        return ("blocos", blocks) if float(np.median(sizes)) > _BLOCK else ("arquivos", [text])
    lines = [line for line in text.splitlines() if line.strip()]
    return ("linhas", lines) if len(lines) >= _LINES else ("arquivos", [text])


def _blocks(text: str) -> list[str]:
    return [block for block in re.split(r"\n[ \t]*\n\s*", normalized(text)) if block]


def _chosen(name: str, source: str, found: Sequence[str], kind: str, budget: int) -> HeldOutText:
    """The source whole, or pieces of it of `budget` bytes in all, in their order."""
    documents = [document for text in found if (document := normalized(text))]
    if not documents:
        raise SlmError(
            "E_DATA_EMPTY",
            "não há texto para medir os bits por byte.",
            where=source,
            hint="Use um .txt ou um JSONL com o campo text, ou dados com uma parte de validação.",
        )
    taken = [(str(place), document) for place, document in enumerate(documents)]
    if sum(len(document.encode()) for document in documents) > budget:
        taken = _drawn(documents, budget)
    return HeldOutText(
        name=name,
        source=source,
        documents=tuple(text for _, text in taken),
        ids=tuple(id for id, _ in taken),
        of=len(documents),
        kind=kind,
    )


def _drawn(documents: Sequence[str], budget: int) -> list[tuple[str, str]]:
    """(id, piece) of `budget` bytes in all, and one at least; the draw depends on the pieces alone."""
    pieces = [
        (f"{place}.{number}" if len(document.encode()) > PIECE else str(place), piece)
        for place, document in enumerate(documents)
        for number, piece in enumerate(_pieces(document))
    ]
    order = sorted(range(len(pieces)), key=lambda index: hashlib.sha256(pieces[index][1].encode()).digest())
    size, chosen = 0, list[int]()
    for index in order:
        size += len(pieces[index][1].encode())
        if size > budget and chosen:
            break
        chosen.append(index)
    return [pieces[index] for index in sorted(chosen)]


def _pieces(document: str) -> Iterator[str]:
    """A document in pieces of at most `PIECE` bytes that end with a line, or else a word, where they can."""
    content = document.encode()
    while len(content) > PIECE:
        text = content[:PIECE].decode("utf-8", errors="ignore")
        end = max(text.rfind("\n", len(text) // 2), 0) or max(text.rfind(" "), 0) or len(text)
        if piece := text[:end].strip():
            yield piece
        content = content[len(text[:end].encode()) :]
    if piece := content.decode().strip():
        yield piece
