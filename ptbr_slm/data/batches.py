"""The reading of `prepare`: all documents of all sources in order, in batches, from any point on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ptbr_slm.data import encode
from ptbr_slm.data.document import Document, Skipped
from ptbr_slm.data.read.files import InputFile
from ptbr_slm.data.read.reader import Position, read_file
from ptbr_slm.data.recipe import Source

MAX_BATCH = 2_048
"""Documents, and parts of the input that are none, in a batch."""
CHECKPOINT_CHARACTERS = 64 << 20
"""Read between two checkpoints: ten seconds of work, or two minutes with the rules of `web`."""


@dataclass(frozen=True, slots=True)
class RawDocument:
    """A document that was read, or what could not be."""

    found: Document | Skipped
    source: int
    """Which source of the recipe it is of."""
    by_paragraph: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents to process, and where the reading is after them."""

    items: Sequence[RawDocument]
    file: int
    """Which of the files the next document is in."""
    item: int
    """How many of its documents come before the next one."""
    input_bytes: int
    """Read so far."""
    checkpoint: bool = False
    """Whether a checkpoint follows it."""


Files = Iterable[tuple[int, InputFile | Skipped]]
"""(number of the source, a file of it), in the order of reading."""


def raw_documents(
    sources: Sequence[Source], files: Files, start: tuple[int, int] = (0, 0), input_bytes: int = 0
) -> Iterator[tuple[RawDocument | None, int, int, int]]:
    """(document, file and item that come next, bytes read so far) for everything in `files` from `start` on.

    start: the number of a file, and how many of its documents to pass over. At a file's end there is None.
    """
    for number, (source, file) in enumerate(files):
        if number < start[0]:
            continue
        if isinstance(file, Skipped):
            yield RawDocument(file, source, by_paragraph=False), number + 1, 0, input_bytes
            continue
        options = sources[source]
        by_paragraph = options.paragraph_documents and file.format in ("text", "stdin")
        position = Position()
        before = input_bytes
        for item, found in enumerate(read_file(file, options.text_field, position), start=1):
            if number == start[0] and item <= start[1]:
                before = input_bytes - position.now
                continue
            yield RawDocument(found, source, by_paragraph), number, item, before + position.now
        input_bytes = before + position.now
        yield None, number + 1, 0, input_bytes


def read_batches(
    sources: Sequence[Source], files: Files, start: tuple[int, int], input_bytes: int
) -> Iterator[Batch]:
    """What is read, in batches of about `encode.BATCH_CHARACTERS`; the same input gives the same batches.

    Begun at a batch that a checkpoint followed, they are the same ones from there on.
    """
    items: list[RawDocument] = []
    characters = since_checkpoint = 0
    file, item, position = *start, input_bytes
    for raw, file, item, position in raw_documents(sources, files, start, input_bytes):
        if raw is None:
            continue
        items.append(raw)
        characters += len(raw.found.text) if isinstance(raw.found, Document) else 0
        if characters >= encode.BATCH_CHARACTERS or len(items) >= MAX_BATCH:
            since_checkpoint += characters
            checkpoint = since_checkpoint >= CHECKPOINT_CHARACTERS
            yield Batch(items, file, item, position, checkpoint)
            items, characters = [], 0
            since_checkpoint = 0 if checkpoint else since_checkpoint
    yield Batch(items, file, item, position)
