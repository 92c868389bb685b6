"""How vocabularies write bytes: GPT-2's alphabet; SentencePiece's `▁` for a space and `<0xNN>` for a byte.

SentencePiece-style files come in two dialects: a normalizer and a chain of decoders (Llama 2's), or a
`Metaspace` on both sides. What is needed of either: the bytes of a token, and whether a text's start gets a
space of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# GPT-2's alphabet


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-in for each byte (openai/gpt-2, src/encoder.py: bytes_to_unicode)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


CHARACTER_OF = _byte_alphabet()
BYTE_OF = {char: byte for byte, char in enumerate(CHARACTER_OF)}


def is_misread(content: str) -> bool:
    """Whether `content`, plain text, has only characters of the alphabet and is not UTF-8 in it."""
    if not BYTE_OF.keys() >= set(content):
        return False
    try:
        bytes(BYTE_OF[char] for char in content).decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


# SentencePiece

SPACE = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def spell(token: str) -> bytes:
    """The bytes that a token of a SentencePiece-style vocabulary stands for."""
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
