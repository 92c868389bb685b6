"""The objects of a .json file: one list of them, read item by item; or objects one after another."""

from __future__ import annotations

import codecs
import json
import re
from typing import BinaryIO

from ptbr_slm.data.document import Skipped
from ptbr_slm.data.read.compressed import CORRUPT
from ptbr_slm.data.read.formats import MAX_DOCUMENT_BYTES, Row, Rows, corrupt
from ptbr_slm.text import BOM, is_utf16

_BLOCK = 1 << 16
_SPACE = re.compile(r"\s*")
_BETWEEN = re.compile(r"[\s,]*")
"""Between two items of a list, or two objects on lines of their own."""


def json_list_rows(stream: BinaryIO, name: str) -> Rows:
    """Each object of `[{...}, {...}]`, or of `{...} {...}`; memory holds one of them, not the list.

    Where an item is not JSON the rest of the file cannot be told apart: it is one `bad_json`.
    """
    text = _Buffer(stream)
    number = 0
    try:
        text.skip(_SPACE)
        listed = text.begins_with("[")
        text.at += listed
        while True:
            text.skip(_BETWEEN)
            if text.is_empty or (listed and text.begins_with("]")):
                break
            number += 1
            found = _next_row(text, f"{name}:{number}")
            yield found
            if isinstance(found, Skipped) and found.reason != "no_text":
                return
    except UnicodeDecodeError:
        yield Skipped("utf16" if text.is_utf16 else "not_utf8", f"{name}:{number + 1}")
    except CORRUPT as error:
        yield corrupt(error, f"{name}:{number + 1}")
    else:
        if not number:
            yield Skipped("empty", name)


def _next_row(text: _Buffer, source: str) -> Row | Skipped:
    while True:
        try:
            value, text.at = text.decoder.raw_decode(text.text, text.at)
        except (ValueError, RecursionError):
            if text.ended:
                return Skipped("bad_json", source)
            if len(text.text) - text.at > MAX_DOCUMENT_BYTES:
                return Skipped("too_long", source)
            text.grow()
        else:
            return Row(value, source) if isinstance(value, dict) else Skipped("no_text", source)


class _Buffer:
    """The text of a stream as far as it was read; what comes before `at` is consumed."""

    def __init__(self, stream: BinaryIO) -> None:
        self.text, self.at = "", 0
        self.ended = self.is_utf16 = False
        self.decoder = json.JSONDecoder()
        self._stream = stream
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._first = True

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return self.at == len(self.text)

    def begins_with(self, mark: str) -> bool:
        """Whether what is left begins with `mark`."""
        return self.text.startswith(mark, self.at)

    def grow(self) -> None:
        """Read on, as much again as is left. Raises UnicodeDecodeError, and what the stream raises."""
        block = self._stream.read(max(_BLOCK, len(self.text) - self.at))
        if self._first:
            self._first = False
            block = block.removeprefix(BOM)
            self.is_utf16 = is_utf16(block)
        self.ended = not block
        self.text, self.at = self.text[self.at :] + self._utf8.decode(block, final=self.ended), 0

    def skip(self, pattern: re.Pattern[str]) -> None:
        """Consume what `pattern` matches here; reads on where that is all there is."""
        while True:
            found = pattern.match(self.text, self.at)
            self.at = self.at if found is None else found.end()
            if self.ended or not self.is_empty:
                return
            self.grow()
