"""Keeps evaluation sets out of the training text: takes out the sentences that repeat an item.

The sentence is what is taken out. Not the document: a novel or a law that a question quotes is no test, and
without the quotation nothing of the test is left in it. Not the repeated words alone: a sentence without its
middle is no text. A document that is the test in good part is dropped, since answers and comments stand
around its questions.
"""

from __future__ import annotations

from dataclasses import dataclass

from ptbr_slm.data.decontamination.overlaps import EvaluationIndex, Overlap
from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.stage import Dropped


@dataclass(frozen=True, slots=True)
class Decontaminate:
    """Drops a document as `contaminated`, or takes paragraphs out of it (repair `decontaminated`)."""

    index: EvaluationIndex
    most_share: float = 0.3
    """Of a text's characters in sentences with an overlap."""
    name: str = "decontaminate"

    def __call__(self, document: Document) -> Document | Dropped:
        """The document without the sentences that repeat an evaluation set, or why it is dropped.

        Both have the attributes `overlaps` (their number) and, of the longest, `overlap_item` (set and line),
        `overlap_item_text` and `overlap_document_text`.
        """
        overlaps = self.index.search(document.text)
        if not overlaps:
            return document
        spans = _merged(overlaps)
        share = sum(end - start for start, end in spans) / len(document.text)
        if share > self.most_share:
            figures = {"overlaps": len(overlaps), "share": share, "most_share": self.most_share}
            return Dropped("contaminated", figures, _shown(overlaps))
        kept = document.repaired(_without(document.text, spans), "decontaminated")
        return kept.with_attributes(**_shown(overlaps))


def _shown(overlaps: list[Overlap]) -> dict[str, str | int]:
    """The longest overlap with both texts, for the report."""
    longest = max(overlaps, key=lambda overlap: overlap.words)
    return {
        "overlaps": len(overlaps),
        "overlap_item": longest.item,
        "overlap_item_text": longest.item_text,
        "overlap_document_text": longest.document_text,
    }


def _merged(overlaps: list[Overlap]) -> list[tuple[int, int]]:
    """The characters of all overlaps, sorted and apart."""
    spans: list[tuple[int, int]] = []
    for start, end in sorted((overlap.start, overlap.end) for overlap in overlaps):
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    return spans


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """`text` without `spans`; of the blank lines on the two sides of a span, those of one side stay."""
    result, position = "", 0
    for start, end in spans:
        result += text[position:start]
        newlines = len(text[start:end]) - len(text[start:end].rstrip("\n"))
        if newlines:
            result = result.rstrip(" ")
            result += "\n" * max(newlines - (len(result) - len(result.rstrip("\n"))), 0)
        position = end
    return (result + text[position:]).strip("\n ")
