"""Which language a document is in, and the filter that keeps Portuguese.

A document is looked at through a few windows. Where function words leave no doubt that a window is Portuguese
it takes microseconds; py3langid decides the others (Lui and Baldwin, 2012, "langid.py: An Off-the-shelf
Language Identification Tool"; its model is in its wheel). Letters that only one of two neighbours writes
correct it between Portuguese, Galician and the languages of Spain.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.stage import Dropped
from ptbr_slm.errors import missing_extra

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

PORTUGUESE = "pt"
MIN_SCORE = 0.5
"""Of `KeepPortuguese`. A short text has a low probability in any language."""

WINDOWS, WINDOW_CHARS = 4, 400
"""Windows of a document, spread evenly, and how long each is."""


class Language(NamedTuple):
    """The language of a text."""

    code: str
    """ISO 639-1 where there is one (`pt`, `gl`, `es`, `en`), else 639-3; empty for a text without letters."""
    score: float
    """Mean probability of this language over the windows, 0 to 1."""


def identify_language(text: str) -> Language:
    """The language that the windows of `text` agree on most.

    Raises E_DEPENDENCY where function words do not decide and py3langid is not installed.
    """
    windows = [window for window in _windows(text) if _LETTER.search(window)]
    if not windows:
        return Language("", 0.0)
    sums: defaultdict[str, float] = defaultdict(float)
    for window in windows:
        code, probability = _identify_window(window)
        sums[code] += probability
    best = max(sums, key=lambda code: sums[code])
    return Language(best, sums[best] / len(windows))


@dataclass(frozen=True, slots=True)
class TagLanguage:
    """Stage: sets `language` and `language_score`."""

    name: str = "tag_language"

    def __call__(self, document: Document) -> Document:
        """The document with its two attributes. Raises E_DEPENDENCY."""
        found = identify_language(document.text)
        return document.with_attributes(language=found.code, language_score=round(found.score, 4))


@dataclass(frozen=True, slots=True)
class KeepPortuguese:
    """Stage: drops by the attributes of `TagLanguage`, as `other_language`; without them it keeps."""

    min_score: float = MIN_SCORE
    """FineWeb2 keeps Portuguese from 0.799 of GlotLID, another model's score."""
    name: str = "keep_portuguese"

    def __call__(self, document: Document) -> Document | Dropped:
        """The document, or `other_language` with its score of being Portuguese and the least one."""
        language = document.attributes.get("language", PORTUGUESE)
        score = float(document.attributes.get("language_score", 1.0)) if language == PORTUGUESE else 0.0
        if score >= self.min_score:
            return document
        return Dropped("other_language", {"portuguese_score": score, "least": self.min_score})


def _windows(text: str) -> list[str]:
    if len(text) <= WINDOWS * WINDOW_CHARS:
        return [
            text[start : start + WINDOW_CHARS] for start in range(0, max(len(text) - 40, 1), WINDOW_CHARS)
        ]
    step = (len(text) - WINDOW_CHARS) // (WINDOWS - 1)
    return [text[index * step : index * step + WINDOW_CHARS] for index in range(WINDOWS)]


_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+")
_TILDE = re.compile("[ãõÃÕ]")
"""Neither Galician nor Spanish writes ã or õ; most windows of Portuguese have one."""
_PORTUGUESE_WORDS = (
    "a o as os e é de do da dos das em no na nos nas um uma à às ao que se não com por pelo pela para mas "
    "mais ou já foi são está estão seu sua isso ele ela você muito também até só quando"
)
_FOREIGN_WORDS = (
    "unha dunha nunha non polo pola máis tamén con un uns cos ó ós xa súa súas "  # Galician
    "el los las del y una unos en es al lo su sus pero más "  # Spanish
    "the of and to is in that it for was with on are this be "  # English
    "il di che la della per è le et les des une dans est der die und das ist"  # Italian, French, German
)
_PORTUGUESE, _FOREIGN = frozenset(_PORTUGUESE_WORDS.split()), frozenset(_FOREIGN_WORDS.split())
MIN_WORDS, MAX_FOREIGN = 8, 0.1
"""Function words of Portuguese in a window that are enough, and foreign ones that there may be for each."""


def _identify_window(window: str) -> tuple[str, float]:
    """(language, its probability) of a window."""
    if _TILDE.search(window):
        words = _WORD.findall(window.lower())
        portuguese = sum(word in _PORTUGUESE for word in words)
        if portuguese >= MIN_WORDS and sum(word in _FOREIGN for word in words) <= MAX_FOREIGN * portuguese:
            return PORTUGUESE, 1.0
    code, probability = _identifier().classify(window)
    return _between_neighbours(window, str(code)), float(probability)


_NEIGHBOURS = frozenset({"gl", "es", "ext", "an", "ast", "pt", "mwl"})
_ONLY_PORTUGUESE = re.compile(r"[ãõÃÕ]|\bum\b")
_ONLY_GALICIAN = re.compile(r"\b(?:d?unha|nunha|non|polo|máis|tamén|xa)\b|ñ|ci[oó]ns?\b", re.IGNORECASE)


def _between_neighbours(window: str, code: str) -> str:
    """`code`, corrected where the window has letters or words of one neighbour and none of the other."""
    if code not in _NEIGHBOURS:
        return code
    portuguese, galician = bool(_ONLY_PORTUGUESE.search(window)), bool(_ONLY_GALICIAN.search(window))
    if portuguese and not galician:
        return PORTUGUESE
    return "gl" if code == PORTUGUESE and galician and not portuguese else code


@cache
def _identifier() -> LanguageIdentifier:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise missing_extra("py3langid") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
