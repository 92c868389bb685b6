"""SentencePiece's way to write tokens in a tokenizer.json: `▁` for a space, `<0xNN>` for a byte.

Such files come in two dialects: a normalizer and a chain of decoders (Llama 2's), or a `Metaspace` on both
sides. What is needed of either: the bytes of a token, and whether a text's start gets a space of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

SPACE = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def spell(token: str) -> bytes:
    """The bytes that a token stands for."""
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(SPACE, " ").encode("utf-8")


def is_byte(token: str) -> bool:
    """Whether a token stands for one byte, as `<0x0A>` does."""
    return _BYTE.fullmatch(token) is not None


def is_metaspace(body: Mapping[str, Any]) -> bool:
    """Whether the decoder of a tokenizer.json turns `▁` into spaces."""
    return any(
        step.get("type") == "Metaspace"
        or (step.get("type") == "Replace" and step.get("pattern", {}).get("String") == SPACE)
        for step in _steps(body.get("decoder"))
    )


def marks_start(body: Mapping[str, Any]) -> bool:
    """Whether encoding puts a `▁` before a text, which decoding takes away again."""
    for step in (*_steps(body.get("normalizer")), *_steps(body.get("pre_tokenizer"))):
        if step.get("type") == "Prepend" and step.get("prepend") == SPACE:
            return True
        if step.get("type") == "Metaspace":
            return bool(step.get("prepend_scheme", "always") != "never")
    return False


def strips_start(body: Mapping[str, Any]) -> bool:
    """Whether decoding takes one space away from the beginning of a text."""
    for step in _steps(body.get("decoder")):
        if step.get("type") == "Strip" and step.get("content") == " " and step.get("start", 0) > 0:
            return True
        if step.get("type") == "Metaspace":
            return bool(step.get("prepend_scheme", "always") != "never")
    return False


def _steps(part: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a Sequence, however it names them, or the one step."""
    if not isinstance(part, Mapping):
        return
    for key in ("normalizers", "pretokenizers", "decoders"):
        if key in part:
            for step in part[key]:
                yield from _steps(step)
            return
    yield part
