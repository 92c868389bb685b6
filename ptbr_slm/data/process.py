"""What is done to a batch of documents one by one: cleaning, then tags, filters, tokens and fingerprints.

Both halves run in this process or in a worker; their answers depend on the batch alone.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    stage: str = ""
    """The stage that dropped it."""
    dropped: Dropped | None = None
    bytes: int = 0
    """Of the whole text, where `document` holds an excerpt."""

    @property
    def repairs(self) -> list[str]:
        """To be counted: keys of `document.REPAIRS`."""
        return str(self.document.attributes.get(REPAIRS_ATTRIBUTE, "")).split()


def outcomes(stages: Preset, raw: Document, *, by_paragraph: bool = False) -> Iterator[Outcome]:
    """What the stages make of a document that was read; several where its paragraphs are documents."""
    for cleaned in clean(stages, raw, by_paragraph=by_paragraph):
        yield finish(stages, cleaned)


def clean(stages: Preset, raw: Document, *, by_paragraph: bool = False) -> Iterator[Outcome]:
    """A document, or its paragraphs, after the cleaning stages."""
    cleaned = _outcome((Markup(), *stages.cleaning), raw)
    if by_paragraph and cleaned.dropped is None:
        yield from map(Outcome, _paragraphs(cleaned.document))
    else:
        yield cleaned


def finish(stages: Preset, cleaned: Outcome) -> Outcome:
    """A cleaned document after the other stages."""
    if cleaned.dropped is not None:
        return cleaned
    return _outcome((*stages.tagging, *stages.filtering), cleaned.document)


def _outcome(stages: tuple[Stage, ...], document: Document) -> Outcome:
    result = run(stages, document)
    return Outcome(result) if isinstance(result, Document) else Outcome(result[0], result[1].name, result[2])


def _paragraphs(document: Document) -> Iterator[Document]:
    """Each blank-line block as a document, its number after the source's; the first has all the repairs."""
    rest = {key: value for key, value in document.attributes.items() if key != REPAIRS_ATTRIBUTE}
    for number, text in enumerate(document.text.split("\n\n"), start=1):
        attributes = rest if number > 1 else document.attributes
        yield replace(document, text=text, source=f"{document.source}:{number}", attributes=attributes)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A batch after cleaning."""

    batch: Batch
    """Without its items."""
    entries: list[tuple[int, Skipped | Outcome]] = field(default_factory=list)
    """(source, what became of it so far), in order."""


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
    text: str = ""
    """The whole text where the tokens do not spell it (`Encoder.spells`); else empty."""


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

    def encoder(self) -> Encoder:
        """The tokenizer, open: for `finish`."""
        return Encoder(Tokenizer.from_json(self.tokenizer.encode(), Path("tokenizer.json")))

    def clean(self, batch: Batch) -> Cleaned:
        """The batch after the cleaning stages of each source."""
        cleaned = Cleaned(replace(batch, items=()))
        for item in batch.items:
            if isinstance(item.found, Skipped):
                cleaned.entries.append((item.source, item.found))
                continue
            stages = self.stages[item.source]
            found = clean(stages, item.found, by_paragraph=item.by_paragraph)
            cleaned.entries.extend((item.source, outcome) for outcome in found)
        return cleaned

    def finish(self, cleaned: Cleaned, encoder: Encoder) -> Processed:
        """The batch after all stages, what is kept of it as tokens."""
        found = [
            (source, answer if isinstance(answer, Skipped) else finish(self.stages[source], answer))
            for source, answer in cleaned.entries
        ]
        texts = [
            answer.document.text for _, answer in found if isinstance(answer, Outcome) and not answer.dropped
        ]
        encoded = encoder.encode(texts)
        processed = Processed(
            cleaned.batch,
            bands=signatures(texts, self.near_duplicates) if self.near_duplicates and texts else None,
        )
        for source, answer in found:
            kept = None
            if isinstance(answer, Outcome):
                text = answer.document.text
                if answer.dropped is None:
                    identity, key = fingerprint(text, self.seed)
                    tokens = next(encoded)
                    whole = "" if encoder.spells(text, tokens) else text
                    kept = Kept(tokens, len(text.encode()), len(text.split()), identity, key, whole)
                excerpt = replace(answer.document, text=text[:EXCERPT])
                answer = replace(answer, document=excerpt, bytes=len(text.encode()))
            processed.entries.append((source, answer, kept))
        return processed
