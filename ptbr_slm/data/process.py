"""What is done to a batch of documents before any is compared with another: stages, tokens, fingerprints.

A batch is processed in this process or in a worker; the answer depends on the batch alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptbr_slm.data.batches import Batch
from ptbr_slm.data.document import REPAIRS_ATTRIBUTE, Document, Skipped
from ptbr_slm.data.duplicates.exact import fingerprint
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings, signatures
from ptbr_slm.data.encode import Encoder
from ptbr_slm.data.presets import Preset
from ptbr_slm.data.records import EXCERPT
from ptbr_slm.data.stages.markup import Markup
from ptbr_slm.data.stages.stage import Dropped, Stage, run
from ptbr_slm.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a document, or of a paragraph of it."""

    document: Document
    """After the stages, or as it was when one dropped it."""
    repairs: tuple[str, ...] = ()
    """To be counted: keys of `document.REPAIRS`."""
    stage: str = ""
    """The stage that dropped it."""
    dropped: Dropped | None = None
    bytes: int = 0
    """Of the whole text, where `document` holds an excerpt."""


def outcomes(stages: Preset, raw: Document, *, by_paragraph: bool = False) -> Iterator[Outcome]:
    """What the stages make of a document that was read; several where its paragraphs are documents."""
    cleaned = _outcome((Markup(), *stages.cleaning), raw)
    if cleaned.dropped is not None:
        yield cleaned
        return
    later = (*stages.tagging, *stages.filtering)
    repairs = cleaned.repairs
    for part in _paragraphs(cleaned.document) if by_paragraph else (cleaned.document,):
        yield replace(_outcome(later, part), repairs=repairs)
        repairs = ()  # of the whole document, told once


def _outcome(stages: tuple[Stage, ...], document: Document) -> Outcome:
    result = run(stages, document)
    after = result if isinstance(result, Document) else result[0]
    repairs = tuple(str(after.attributes.get(REPAIRS_ATTRIBUTE, "")).split())
    if isinstance(result, Document):
        return Outcome(result, repairs)
    return Outcome(after, repairs, result[1].name, result[2])


def _paragraphs(document: Document) -> Iterator[Document]:
    """Each blank-line block of a document as a document, without the repairs of the whole."""
    attributes = {key: value for key, value in document.attributes.items() if key != REPAIRS_ATTRIBUTE}
    for text in document.text.split("\n\n"):
        yield replace(document, text=text, attributes=attributes)


@dataclass(frozen=True, slots=True)
class Kept:
    """A document as tokens. Its text is an excerpt."""

    tokens: npt.NDArray[np.uint32]
    bytes: int
    words: int
    identity: int
    """Fingerprint of the text."""
    key: float
    """Split key."""


@dataclass(frozen=True, slots=True)
class Processed:
    """A batch after processing."""

    batch: Batch
    """Without its items."""
    entries: list[tuple[int, Skipped | Outcome, Kept | None]] = field(default_factory=list)
    """(source, what became of it, its tokens where it is kept), in order."""
    bands: npt.NDArray[np.uint64] | None = None
    """(kept documents, bands): MinHash signatures where near copies are looked for."""


@dataclass(frozen=True, slots=True)
class Processor:
    """Processes batches. A value that pickle can take to a worker."""

    stages: tuple[Preset, ...]
    """Of each source."""
    tokenizer: str
    """The content of tokenizer.json."""
    seed: int
    near_duplicates: NearDuplicateSettings | None

    def make(self) -> Callable[[Batch], Processed]:
        """A function of a batch, with the tokenizer open."""
        encoder = Encoder(Tokenizer.from_json(self.tokenizer.encode(), Path("tokenizer.json")))
        return lambda batch: self._process(batch, encoder)

    def _process(self, batch: Batch, encoder: Encoder) -> Processed:
        found: list[tuple[int, Skipped | Outcome]] = []
        for item in batch.items:
            if isinstance(item.found, Skipped):
                found.append((item.source, item.found))
                continue
            stages = self.stages[item.source]
            found += (
                (item.source, outcome)
                for outcome in outcomes(stages, item.found, by_paragraph=item.by_paragraph)
            )
        texts = [
            answer.document.text for _, answer in found if isinstance(answer, Outcome) and not answer.dropped
        ]
        encoded = encoder.encode(texts)
        processed = Processed(
            replace(batch, items=()),
            bands=signatures(texts, self.near_duplicates) if self.near_duplicates and texts else None,
        )
        for source, answer in found:
            kept = None
            if isinstance(answer, Outcome):
                text = answer.document.text
                if answer.dropped is None:
                    identity, key = fingerprint(text, self.seed)
                    kept = Kept(next(encoded), len(text.encode()), len(text.split()), identity, key)
                excerpt = replace(answer.document, text=text[:EXCERPT])
                answer = replace(answer, document=excerpt, bytes=len(text.encode()))
            processed.entries.append((source, answer, kept))
        return processed
