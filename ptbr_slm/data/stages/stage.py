"""What a stage is: it looks at one document and keeps it, changes it, or drops it with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ptbr_slm.data.document import Attribute, Document


@dataclass(frozen=True, slots=True)
class Dropped:
    """The answer of a stage that does not want a document."""

    reason: str
    """A key of `document.REASONS`, or words for people where the stage is a user's own."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the rule looked at: `{"stop_words": 1, "least": 2}`."""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    """What the report shows beside the document, in words; added to its attributes."""


class Stage(Protocol):
    """A step of cleaning, tagging or filtering that needs one document at a time.

    A stage is pure: the same document gives the same answer, and it counts nothing and opens no file. It is
    a value that `pickle` can take to another process.
    """

    @property
    def name(self) -> str:
        """Its name in reports and mixture files."""

    def __call__(self, document: Document) -> Document | Dropped:
        """The same object where nothing changed, a changed copy, or why the document is dropped.

        What was repaired in the text is told with `Document.repaired`, and what was found out with
        `Document.with_attributes`; the pipeline counts both. A rule with a threshold reads an attribute
        that a tagging stage has set, so that the stored attributes are enough to try another threshold.
        """


def run(stages: tuple[Stage, ...], document: Document) -> Document | tuple[Document, Stage, Dropped]:
    """`document` after all `stages`, or what it was when a stage dropped it, that stage and its answer."""
    for stage in stages:
        answer = stage(document)
        if isinstance(answer, Dropped):
            told = document.with_attributes(**answer.attributes) if answer.attributes else document
            return told, stage, answer
        document = answer
    return document
