"""Text of a given form: a JSON schema or a regular expression, enforced token by token by llguidance.

A grammar tells before each token which tokens may come; the end of text is one of them only where the form is
complete, and once nothing more may follow the text is `finished`. So a text that ends with the reason `eos`
always fits; one cut short (`length`, `stop`, `timeout`, ...) says so by its reason.

Bounded by llguidance's own limits (LLParserLimits' defaults): about 20 ms to build a lexer, 20 ms a token and
500,000 symbols, and by ours below; a form beyond them is refused with E_SAMPLING. Nothing is ever fetched for
a `$ref`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cached_property
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np

from ptbr_slm.errors import SlmError, missing_extra
from ptbr_slm.runtime.sampling.distribution import Ids
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.tokenizer import Tokenizer

_MOST_CHARACTERS = {"json_schema": 200_000, "regex": 20_000}
"""llguidance has limits for everything else; a literal of 190,000 letters took it 0.35 s a token."""

_DEEPEST = 64
"""Brackets within brackets in a schema: what reads it calls itself for each."""

_LARGEST_DIVISOR = 10_000
"""Of all `multipleOf` together. llguidance makes a state for each remainder, without a limit: 10 us and
some kB each, which is minutes and gigabytes for 2**31."""

_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One way to write JSON, Python's own: where spaces are free, a small model may generate them without end. A
schema may change it with "x-guidance"."""

_tokenizers: WeakKeyDictionary[Tokenizer, dict[tuple[int, ...], Any]] = WeakKeyDictionary()
"""llguidance's LLTokenizer by tokenizer and end ids: 0.1 s to build for 32,000 tokens."""

_lock = Lock()


class Constraint:
    """The grammar of one text, and how far the text has come in it."""

    def __init__(self, matcher: Any, vocab_size: int, subject: str, without: int | None) -> None:
        """without: a token that is never allowed, or None."""
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._subject = subject
        self._without = without

    @property
    def finished(self) -> bool:
        """Whether the form is complete and nothing more may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> Ids:
        """Ids that may come next, ascending, at least one. Raises E_SAMPLING beyond llguidance's limits."""
        self._check()
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        flags = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
        self._check()
        ids: Ids = np.flatnonzero(flags)
        if self._without is not None:
            ids = ids[ids != self._without]
        if not len(ids):
            raise _refused(self._subject, "nenhum token do vocabulário pode continuar o texto")
        return ids

    def forced(self) -> list[int]:
        """Ids that must come next, as far as the form leaves no choice; empty where it leaves one."""
        return [int(token) for token in self._matcher.compute_ff_tokens()]

    def accept(self, token: int) -> None:
        """Go on with `token`, one of those allowed."""
        self._matcher.consume_token(token)
        self._check()

    def copy(self) -> Constraint:
        """The same state of the same grammar, for another text."""
        return Constraint(self._matcher.deep_copy(), self._vocab_size, self._subject, self._without)

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
        from llguidance import LLMatcher, LLParserLimits, regex_to_lark
    except ImportError:
        raise missing_extra("llguidance") from None
    subject = "json_schema" if params.regex is None else "regex"
    ends = tuple(sorted({token for token in end_ids if token < tokenizer.vocab_size}))
    # llguidance needs an end token: a model that has none gets one that is never allowed.
    placeholder = None if ends else min(tokenizer.special_ids, default=0)
    vocabulary = llguidance_tokenizer(tokenizer, ends if placeholder is None else (placeholder,))
    if vocabulary is None:
        raise _refused(subject, "o tokenizador deste modelo não diz os bytes de cada token")
    try:
        if params.regex is not None:
            _check_size(params.regex, subject)
            if (len(params.regex) - len(params.regex.rstrip("\\"))) % 2:  # regex_to_lark would drop it
                raise _refused(subject, "termina com uma barra invertida sozinha")
            # \d is 0 to 9 only, without the digits of other scripts. \w has all letters, accents included.
            grammar = LLMatcher.grammar_from_lark(f"start: /{regex_to_lark(params.regex, 'd')}/")
        else:
            schema = _schema_text(params.json_schema)
            grammar = LLMatcher.grammar_from_json_schema(schema, defaults=_LAYOUT)
    except ValueError as error:
        raise _refused(subject, str(error)) from None
    limits = LLParserLimits(verbose_errors=False)
    matcher = LLMatcher(vocabulary, grammar, log_level=0, limits=limits)
    constraint = Constraint(matcher, tokenizer.vocab_size, subject, placeholder)
    constraint.allowed()  # what cannot even begin is refused before a text does
    return constraint


def _schema_text(schema: Any) -> str:
    """A schema as JSON. Raises E_SAMPLING where it is none, or nested without end."""
    try:
        text = schema if isinstance(schema, str) else json.dumps(dict(schema))
        _check_size(text, "json_schema")
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise _refused("json_schema", f"não é JSON ({error})") from None
    if not isinstance(value, dict):
        raise _refused("json_schema", "um esquema é um objeto, entre chaves")
    depth, divisor, level = 0, 1.0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        divisor *= math.prod(_divisor(item["multipleOf"]) for item in level if "multipleOf" in item)
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    if depth > _DEEPEST:
        raise _refused("json_schema", f"mais de {_DEEPEST} níveis de chaves e colchetes")
    if divisor > _LARGEST_DIVISOR:
        raise _refused("json_schema", f"os multipleOf, multiplicados, passam de {_LARGEST_DIVISOR}")
    return text


def _divisor(value: Any) -> float:
    """States that a `multipleOf` costs: its digits as a number, 25 for 0.25."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 1.0
    digits = int("".join(map(str, Decimal(str(value)).as_tuple().digits)))
    return max(1.0, float(digits) if digits < 1e300 else math.inf, abs(value))


def _check_size(text: str, subject: str) -> None:
    if len(text) > _MOST_CHARACTERS[subject]:
        raise _refused(subject, f"tem {len(text)} caracteres; o máximo é {_MOST_CHARACTERS[subject]}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _refused(subject, "tem caracteres que não são Unicode válido") from None


def _refused(subject: str, reason: str) -> SlmError:
    what = "o esquema JSON" if subject == "json_schema" else "a expressão regular"
    return SlmError(
        "E_SAMPLING",
        f"não dá para seguir {what}: {_in_a_line(reason)}.",
        where=subject,
        hint=f"Corrija ou simplifique o que vai em --{subject.replace('_', '-')} (ou {subject}= no Python).",
    )


_SAID = (
    (r"NoExtensionBias", "ele só remete a si mesmo ($ref), e não diz forma nenhuma"),
    (r"Pointer '(.*)' does not exist", r"o $ref aponta para \1, que não está nele"),
    (
        r"Resource '(.*)' is not present.*",
        r"o $ref aponta para \1, e um $ref só pode apontar para dentro dele",
    ),
    (r"Unimplemented keys: \[(.*)\]", r"ainda não sabemos seguir \1"),
    (r"Invalid type: (.*)", r"o tipo \1 não existe"),
    (r"Unknown format: (.*)", r"o formato \1 não existe, ou não sabemos segui-lo"),
    (r"Unsatisfiable schema: (.*)", r"nenhum texto o cumpre (\1)"),
    (r"unclosed group", "um parêntese não fecha"),
    (r"unclosed character class", "um colchete não fecha"),
    (r"unclosed counted repetition", "uma chave não fecha"),
    (r"repetition operator missing expression", "um sinal de repetição não tem o que repetir"),
    (r"invalid character class range.*", "um intervalo entre colchetes está ao contrário"),
    (r"look-?around.*", r"não sabemos seguir (?=...), (?<=...) nem \\b"),
    (r"backreferences are not supported", r"não sabemos seguir referências como \\1"),
)
"""What llguidance says -> our words; what is not here is shown as it is."""


def _in_a_line(reason: str) -> str:
    """llguidance's own message in one line, without its drawing of the position, and in our words."""
    lines = [line.strip() for line in reason.splitlines() if line.strip(" ^") and " | start: " not in line]
    named = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    message = "; ".join(named or lines).split("(in regex): ")[-1]
    message = message.removesuffix("<non-verbose/>").rstrip(" ;.")
    for pattern, ours in _SAID:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            message = found.expand(ours)
            break
    return message[:300].rstrip(" ;.")


def llguidance_tokenizer(tokenizer: Tokenizer, end_ids: tuple[int, ...]) -> Any:
    """llguidance's LLTokenizer of a tokenizer and its end tokens (at least one), built once.

    None where the tokens' bytes are not known: neither byte-level nor SentencePiece-style.
    """
    from llguidance import LLTokenizer, TokenizerWrapper

    if not (tokenizer.is_byte_level or tokenizer.is_metaspace):
        return None
    with _lock:
        known = _tokenizers.setdefault(tokenizer, {})
        if end_ids not in known:
            spelling = TokenizerWrapper(_Spelling(tokenizer, end_ids))
            known[end_ids] = LLTokenizer(spelling, eos_token=list(end_ids))
        return known[end_ids]


class _Spelling:
    """What llguidance asks of a tokenizer, under its names."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Sequence[int]) -> None:
        special = tokenizer.special_ids | set(end_ids)
        self.eos_token_id = end_ids[0]
        self.bos_token_id = tokenizer.bos_id
        self.special_token_ids = sorted(special)
        self.tokens = [
            (tokenizer.token_name(i) or "").encode("utf-8") if i in special else tokenizer.token_bytes(i)
            for i in range(tokenizer.vocab_size)
        ]
        self._tokenizer = ref(tokenizer)  # it is the key of `_tokenizers`, which must not keep it alive

    def __call__(self, text: str | bytes) -> list[int]:
        """Ids whose bytes are those of `text`, for what a form forces: the tokenizer's own where they fit."""
        raw = text.encode("utf-8") if isinstance(text, str) else text
        tokenizer = self._tokenizer()
        if tokenizer is None:
            return self._longest_first(raw)
        mark = "\n" if tokenizer.marks_start else ""  # takes the space that would come before a text
        ids = tokenizer.encode(mark + raw.decode("utf-8", errors="replace"), special=False)
        for skipped in range(3 if mark else 1):
            if b"".join(self.tokens[i] for i in ids[skipped:]) == raw:
                return ids[skipped:]
        return self._longest_first(raw)

    def _longest_first(self, raw: bytes) -> list[int]:
        """Not as the tokenizer would: it changes the text (NFC), or joins it with what comes before."""
        ids = []
        longest = max(map(len, self._by_bytes))
        while raw:
            ends = (end for end in range(min(len(raw), longest), 0, -1) if raw[:end] in self._by_bytes)
            end = next(ends, 0)
            if not end:  # no token begins so: llguidance will say that the text cannot go on
                break
            ids.append(self._by_bytes[raw[:end]])
            raw = raw[end:]
        return ids

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        special = set(self.special_token_ids)
        return {spelled: i for i, spelled in enumerate(self.tokens) if i not in special}
