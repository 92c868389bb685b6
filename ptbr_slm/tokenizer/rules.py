"""Rules of a foreign tokenizer.json that would hang or flood whoever encodes a text with it.

The tokenizers library runs whatever regular expressions and replacements the file holds. Exponential ones end
in a Rust panic after 10 million steps, at once; polynomial ones do not (`\\w*\\d`: 4 s for 32,000 letters).
Nine replacements of one letter by ten make gigabytes of one word. Both are refused when the file is opened.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from tokenizers import Tokenizer

MOST_GROWTH = 64
"""Characters that one character of a text may become. SentencePiece's rules: 3 (`▁` in UTF-8)."""
PROBE = 4_000
"""Characters of a probe."""
SLOWEST_S = 0.1
"""CPU time a probe may take. Measured: 0.002 to 0.01 s for the rules of Llama 2 and 3, GPT-2 and Qwen."""
SUSPECT_S = 0.02
"""CPU time of a probe from which a longer one tells how it grows."""
_UNITS = ("a", "A", "é", "1", " ", "\n", "!", "_", "aB1 ", "ab", " a")


def unfit_rule(inner: Tokenizer, trusted: str) -> str:
    """What is wrong with the rules of a `tokenizers.Tokenizer`, in Portuguese; '' where nothing is.

    trusted: a regular expression that is known to be linear, and not tried.
    """
    normalizer, splitter, decoder = (
        _state(x) for x in (inner.normalizer, inner.pre_tokenizer, inner.decoder)
    )
    for rule in (normalizer, decoder):
        if growth(rule) > MOST_GROWTH:
            return f"uma regra transforma cada caractere em mais de {MOST_GROWTH}"
    if not any(pattern != trusted for rule in (normalizer, splitter) for pattern in _patterns(rule)):
        return ""
    for unit in _UNITS:
        text = (unit * PROBE)[:PROBE]
        for run in _runs(inner):
            if _too_slow(run, text) and _too_slow(run, text):
                return "uma expressão regular demora demais (o tempo cresce com o quadrado do texto, ou pior)"
    return ""


def growth(rule: Any) -> float:
    """How many characters one may become by all replacements of a rule, one after the other."""
    factor = 1.0
    for part in _parts(rule):
        if part.get("type") == "Replace":
            pattern = part.get("pattern", {})
            known = pattern.get("String") if isinstance(pattern, dict) else None
            factor *= max(1.0, (len(part.get("content", "")) + (not known)) / max(1, len(known or "")))
        factor += len(part.get("prepend", "")) if part.get("type") == "Prepend" else 0
    return factor


def _runs(inner: Tokenizer) -> list[Callable[[str], object]]:
    runs: list[Callable[[str], object]] = []
    if inner.normalizer is not None:
        runs.append(inner.normalizer.normalize_str)
    if inner.pre_tokenizer is not None:
        runs.append(inner.pre_tokenizer.pre_tokenize_str)
    return runs


def _too_slow(run: Callable[[str], object], text: str) -> bool:
    """Whether a probe takes too long; a fast processor hides a square, which a text twice as long shows."""
    seconds = _cpu_seconds(run, text)
    if SUSPECT_S < seconds <= SLOWEST_S:
        return _cpu_seconds(run, text * 2) > 3 * seconds
    return seconds > SLOWEST_S


def _cpu_seconds(run: Callable[[str], object], text: str) -> float:
    began = time.thread_time()
    run(text)
    return time.thread_time() - began


def _state(rule: Any) -> Any:
    """A rule as plain values, without the vocabulary."""
    return None if rule is None else json.loads(rule.__getstate__())


def _parts(rule: Any) -> Iterator[dict[str, Any]]:
    """A rule and all rules inside it."""
    if isinstance(rule, dict):
        yield rule
        for value in rule.values():
            yield from _parts(value)
    elif isinstance(rule, list):
        for value in rule:
            yield from _parts(value)


def _patterns(rule: Any) -> Iterator[str]:
    return (part["Regex"] for part in _parts(rule) if isinstance(part.get("Regex"), str))
