"""Paths as text in a file that must be UTF-8. On Linux a name is any bytes (PEP 383: lone surrogates)."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

_SCHEME = "file://"


def is_utf8(path: Path | str) -> bool:
    """Whether the path can be written in UTF-8."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def path_to_text(path: Path) -> str:
    """The path itself, or, where it is not UTF-8, its absolute `file:` URL (RFC 8089)."""
    return str(path) if is_utf8(path) else _SCHEME + quote_from_bytes(os.fsencode(path.absolute()))


def text_to_path(text: str) -> Path:
    """The path that `path_to_text` wrote."""
    if text.startswith(_SCHEME + "/"):
        return Path(os.fsdecode(unquote_to_bytes(text.removeprefix(_SCHEME))))
    return Path(text)
