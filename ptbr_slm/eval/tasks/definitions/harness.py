"""What the task files of this folder name by `!function harness.NAME`, as lm-evaluation-harness calls it.

The harness imports this file from the folder of the task file, so it needs the standard library alone. A task
file of your own that names one of these functions has a copy of this file beside it.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def first_word(answers: Sequence[Sequence[str]], rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Filter (`filter_fn` of `custom`): the first word of each continuation."""
    return [[word_that_begins(text) for text in texts] for texts in answers]


def word_that_begins(text: str) -> str:
    """What stands before the first blank, without any of `.,?!`; empty where there is no word.

    As `clean_next_word` in evaluations/lm-calame-pt-eval.py of Nkluge-correa/Tucano at 653e6e4.
    """
    words = text.split()
    return re.sub(r"[.,?!]", "", words[0]) if words else ""


def macro_f1(pairs: Sequence[tuple[int, int]]) -> float:
    """Aggregation of `f1`: its mean over the labels that occur. pairs: (right label, chosen label)."""
    labels = {label for pair in pairs for label in pair}
    scores = []
    for label in sorted(labels):
        hits = sum(right == chosen == label for right, chosen in pairs)
        named = sum(right == label for right, _ in pairs) + sum(chosen == label for _, chosen in pairs)
        scores.append(2 * hits / named)
    return sum(scores) / len(scores)


def squad(row: Mapping[str, Any], answers: Sequence[str]) -> dict[str, float]:
    """`process_results`: the answer against the row's `answers`, a list of texts or SQuAD's {text: [...]}."""
    known = row["answers"]
    return squad_scores(answers[0], known["text"] if isinstance(known, Mapping) else known)


def squad_scores(answer: str, references: Sequence[str]) -> dict[str, float]:
    """`exact_match` and `f1` (overlap of words) with the reference that is nearest.

    As SQuAD 1.1 (Rajpurkar et al. 2016, evaluate-v1.1.py): case and ASCII punctuation do not count. English
    articles are not cut out: `a` is a word of Portuguese too.
    """
    found = _words(answer)
    wanted = [_words(reference) for reference in references]
    return {
        "exact_match": float(any(found == words for words in wanted)),
        "f1": max((_overlap(found, words) for words in wanted), default=0.0),
    }


def _words(text: str) -> list[str]:
    return text.lower().translate(str.maketrans("", "", string.punctuation)).split()


def _overlap(found: Sequence[str], wanted: Sequence[str]) -> float:
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted)) if common else 0.0
