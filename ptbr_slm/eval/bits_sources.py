"""Held-out texts by name and by path, as documents: the same text for every model, whatever its tokenizer.

A source is text, and not tokens. It is brought to NFC with `\\n` line ends, documents of it are chosen by
their own content up to a number of bytes, and all of what was chosen is scored. So two models with different
tokenizers are measured on the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

BUDGET = 128 << 10
"""Bytes scored of a source: some 35,000 tokens."""
LONGEST = 8 << 10
"""Bytes scored of one document, from its beginning, of a source larger than the budget: some 2,000 tokens.
More documents make a narrower interval than longer ones."""
_BLOCK = 1000
"""Bytes: blocks between blank lines with a median above it are documents, and paragraphs of one below it."""
_LINES = 20
"""Lines without a blank one between them from which on each is a document."""


@dataclass(frozen=True, slots=True)
class HeldOutText:
    """Documents to measure a model on."""

    name: str
    """In tables; two results are compared by it."""
    source: str
    """Where it was read, for people."""
    documents: tuple[str, ...]
    """NFC, `\\n` line ends, without white space around."""
    ids: tuple[str, ...]
    """Of the documents: their places in the source."""
    of: int
    """Documents that the source has."""
    kind: str
    """What a document is, in Portuguese: documentos, arquivos, linhas, blocos."""
    cut: int = 0
    """Documents of which only the beginning was taken."""
    was_valid: bool = False
    """Whether training held it out: prepared data tell such documents from those of training."""

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
                kind, read = _pieces(read[0])
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
    return HeldOutText(chosen.name, chosen.source, chosen.documents, chosen.ids, chosen.of, chosen.kind,
                       chosen.cut, was_valid=True)  # fmt: skip


def built_in_text() -> HeldOutText:
    """Some 6 KB of Portuguese prose and dialogue, written for this package; each part is a document."""
    text = resources.files("ptbr_slm.eval").joinpath("held_out_pt.txt").read_text(encoding="utf-8")
    return _chosen("incluído", "texto incluído no ptbr-slm", _blocks(text), "blocos", BUDGET)


def normalized(text: str) -> str:
    """What of a text is scored."""
    return normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _pieces(text: str) -> tuple[str, list[str]]:
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
    """Documents of the source up to `budget` bytes, drawn by their content, in their order."""
    documents = [document for text in found if (document := normalized(text))]
    if not documents:
        raise SlmError(
            "E_DATA_EMPTY",
            "não há texto para medir os bits por byte.",
            where=source,
            hint="Use um .txt ou um JSONL com o campo text, ou dados com uma parte de validação.",
        )
    taken = list(range(len(documents)))
    texts = documents
    if sum(len(document.encode()) for document in documents) > budget:
        taken = sorted(_within(documents, budget))
        texts = [_beginning(documents[place]) for place in taken]
    return HeldOutText(
        name=name,
        source=source,
        documents=tuple(texts),
        ids=tuple(map(str, taken)),
        of=len(documents),
        kind=kind,
        cut=sum(text != documents[place] for text, place in zip(texts, taken, strict=True)),
    )


def _within(documents: Sequence[str], budget: int) -> Iterator[int]:
    """Places of documents of `budget` bytes in all, and one at least; the same text has the same place."""
    order = sorted(
        range(len(documents)), key=lambda place: hashlib.sha256(documents[place].encode()).digest()
    )
    size = 0
    for place in order:
        size += len(_beginning(documents[place]).encode())
        if size <= budget or place == order[0]:
            yield place


def _beginning(document: str) -> str:
    """At most `LONGEST` bytes of a document, up to the end of a line or word."""
    content = document.encode()
    if len(content) <= LONGEST:
        return document
    text = content[:LONGEST].decode("utf-8", errors="ignore")
    end = max(text.rfind("\n"), text.rfind(" ")) if text.rfind("\n") < len(text) // 2 else text.rfind("\n")
    return text[: end if end > 0 else len(text)].rstrip()
