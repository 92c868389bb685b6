"""Text of a given form: a JSON schema or a regular expression, enforced token by token by llguidance.

A grammar tells before each token which tokens may come; the end of text is one of them only where the form is
complete, and once nothing more may follow the text is `finished`. So a text that ends with the reason `eos`
always fits; one cut short (`length`, `stop`, `timeout`, ...) says so by its reason.

Bounded by llguidance's own limits (LLParserLimits' defaults): about 20 ms to build a lexer, 20 ms a token and
500,000 symbols; a form beyond them is refused with E_SAMPLING. Nothing is ever fetched for a `$ref`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ptbr_slm.errors import SlmError, missing_extra
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sampling.selection import Ids
from ptbr_slm.tokenizer import Tokenizer

_MOST_CHARACTERS = 200_000
"""Of a schema or regex; llguidance has limits for everything else."""

_DEEPEST = 64
"""Brackets within brackets in a schema: what reads it calls itself for each."""

_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write JSON, Python's own: a small model that may choose spaces writes them without end. A schema
may say otherwise with "x-guidance"."""

_vocabularies: WeakKeyDictionary[Tokenizer, dict[tuple[int, ...], Any]] = WeakKeyDictionary()
"""llguidance's view of a tokenizer and its end tokens: 0.1 s to build for 32,000 tokens, so built once."""

_lock = Lock()


class Constraint:
    """Where one text stands in its form."""

    def __init__(self, matcher: Any, vocab_size: int, subject: str) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._subject = subject

    @property
    def finished(self) -> bool:
        """Whether the form is complete and nothing more may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> Ids:
        """Ids that may come next, ascending, at least one. Raises E_SAMPLING beyond llguidance's limits."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        flags = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        ids: Ids = np.flatnonzero(flags)
        self._check()
        if not len(ids):
            raise _refused(self._subject, "nenhum token do vocabulário pode continuar o texto")
        return ids

    def accept(self, token: int) -> None:
        """Go on with `token`, one of those allowed."""
        self._matcher.consume_token(token)
        self._check()

    def copy(self) -> Constraint:
        """The same place in the same form, for another text."""
        return Constraint(self._matcher.deep_copy(), self._vocab_size, self._subject)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refused(self._subject, self._matcher.get_error())


def build_constraint(
    params: SamplingParams, tokenizer: Tokenizer, end_ids: Iterable[int]
) -> Constraint | None:
    """The form that `params` asks for, at its beginning; None where it asks for none.

    end_ids: tokens that end a text. Raises E_SAMPLING for a schema or regex that cannot be followed,
    E_DEPENDENCY where llguidance is not installed.
    """
    if params.json_schema is None and params.regex is None:
        return None
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise missing_extra("llguidance") from None
    subject = "json_schema" if params.regex is None else "regex"
    vocabulary = _vocabulary(tokenizer, tuple(sorted(set(end_ids))), subject)
    if params.regex is not None:
        _check_size(params.regex, subject)
        grammar = LLMatcher.grammar_from_regex(params.regex)
    else:
        schema = _schema_text(params.json_schema)
        grammar = LLMatcher.grammar_from_json_schema(schema, defaults=_LAYOUT)
    constraint = Constraint(LLMatcher(vocabulary, grammar, log_level=0), tokenizer.vocab_size, subject)
    constraint._check()
    return constraint


def _schema_text(schema: Any) -> str:
    """A schema as JSON. Raises E_SAMPLING where it is none, or nested without end."""
    try:
        text = schema if isinstance(schema, str) else json.dumps(dict(schema))
        _check_size(text, "json_schema")
        json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise _refused("json_schema", f"não é JSON: {error}") from None
    depth = deepest = 0
    for char in text:
        depth += (char in "[{") - (char in "]}")
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise _refused("json_schema", f"mais de {_DEEPEST} níveis de chaves e colchetes")
    return text


def _check_size(text: str, subject: str) -> None:
    if len(text) > _MOST_CHARACTERS:
        raise _refused(subject, f"tem {len(text)} caracteres; o máximo é {_MOST_CHARACTERS}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _refused(subject, "tem caracteres que não são Unicode válido") from None


def _vocabulary(tokenizer: Tokenizer, end_ids: tuple[int, ...], subject: str) -> Any:
    from llguidance import LLTokenizer

    size = tokenizer.vocab_size
    ends = [token for token in end_ids if token < size] or [size]  # `size`: an end that no model can choose
    with _lock:
        known = _vocabularies.setdefault(tokenizer, {})
        if end_ids not in known:
            try:
                known[end_ids] = LLTokenizer(tokenizer.to_json(), n_vocab=size + 1, eos_token=ends)
            except BaseException as error:  # pyo3's PanicException is no Exception
                if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                    raise
                raise _refused(subject, f"o tokenizador deste modelo não serve ({error})") from error
        return known[end_ids]


def _refused(subject: str, reason: str) -> SlmError:
    """In one line: llguidance draws the place of a fault over several."""
    lines = [line.strip() for line in reason.splitlines() if line.strip(" ^")]
    what = "o esquema JSON" if subject == "json_schema" else "a expressão regular"
    flag = subject.replace("_", "-")
    return SlmError(
        "E_SAMPLING",
        f"não dá para seguir {what}: {'; '.join(lines)[:300].rstrip('.')}.",
        where=subject,
        hint=f"Corrija ou simplifique o que vai em --{flag} (ou {subject}= no Python).",
    )
