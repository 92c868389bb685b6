"""Texts of random words, and copies of them with a similarity that is asked for."""

from __future__ import annotations

import random

_SYLLABLES = [consonant + vowel for consonant in "bcdfglmnprstv" for vowel in "aeiou"]


def random_text(pick: random.Random, words: int) -> str:
    """So many words of two to four syllables."""
    return " ".join("".join(pick.choices(_SYLLABLES, k=pick.randint(2, 4))) for _ in range(words))


def changed_copy(pick: random.Random, text: str, similarity: float) -> str:
    """`text` with words replaced until its Jaccard similarity by 5-word shingles is at most `similarity`.

    Replacements stand one beside the other where a single one would go too far below.
    """
    words = text.split()
    at = pick.randrange(len(words))
    changed = list(words)
    for step in range(len(words)):
        changed[(at + step) % len(words)] = random_text(pick, 1)
        if jaccard(" ".join(changed), text) <= similarity + 0.01:
            break
    return " ".join(changed)


def jaccard(first: str, second: str, n: int = 5) -> float:
    """Shared n-grams of words over all n-grams of words."""
    sets = []
    for text in (first, second):
        words = text.split()
        sets.append({tuple(words[i : i + n]) for i in range(len(words) - n + 1)})
    return len(sets[0] & sets[1]) / max(len(sets[0] | sets[1]), 1)
