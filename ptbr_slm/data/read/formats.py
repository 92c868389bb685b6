"""The documents of a stream of each format, as they are stored, in bounded memory.

What cannot be read is told as `Skipped`, not raised; the unit of failure is the line or row. A document of
HTML, Markdown or wikitext has the attribute `markup`: `stages.markup` makes text of it. JSON and CSV are
read as rows with all their fields first (`read.rows` has the rest of them).
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ptbr_slm.data.document import Attribute, Document, Skipped
from ptbr_slm.data.read.compressed import CORRUPT, DecompressionBomb
from ptbr_slm.data.read.mediawiki import pages
from ptbr_slm.text import BOM, decode, is_utf16

MAX_DOCUMENT_BYTES = 8 << 20
"""The largest document held in memory. The complete Bible is half of it."""
TEXT_FIELD = "text"
"""The field of a JSON line, and the column of a table, that holds a document."""
_ID_FIELDS = ("id", "url")
_LICENCE_FIELDS = ("license", "licence", "licenca")
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Row:
    """A JSON object or a row of a table."""

    fields: Mapping[str, object]
    source: str
    """The file and the line, row or item: `conversas.jsonl:17`."""


Found = Iterator[Document | Skipped]
Rows = Iterator[Row | Skipped]
Reader = Callable[[BinaryIO, str, str], Found]
"""(stream, its name for `source`, name of the text's field) -> documents. Raises what the stream raises."""


def corrupt(error: Exception, source: str) -> Skipped:
    """What is told of a stream that ends with one of `CORRUPT`."""
    return Skipped("bomb" if isinstance(error, DecompressionBomb) else "corrupt_file", source)


def read_text(stream: BinaryIO, name: str, text_field: str) -> Found:
    """A .txt file is one document; above `MAX_DOCUMENT_BYTES` it is cut by paragraph, line or word."""
    attributes: dict[str, Attribute] = {"markup": "markdown"} if ".md" in name[-8:].lower() else {}
    rest, pieces, end = b"", 0, None
    while True:
        try:
            block = stream.read(MAX_DOCUMENT_BYTES + 1 - len(rest))
        except CORRUPT as error:
            end = corrupt(error, name)
            break
        if not block:
            break
        rest += block
        if not pieces and is_utf16(rest):
            yield Skipped("utf16", name)
            return
        if len(rest) <= MAX_DOCUMENT_BYTES:
            continue  # the end of the file, or a short read
        cut = _cut(rest)
        first: dict[str, Attribute] = {} if pieces else {"repairs": "split"}
        yield _decoded(rest[:cut], name, {**attributes, **first})
        rest, pieces = rest[cut:], pieces + 1
    if rest or not (pieces or end):
        yield _decoded(rest, name, attributes)
    if end is not None:
        yield end


def _cut(data: bytes) -> int:
    """Where to cut: after the last paragraph, line, sentence or word of the second half, or a character."""
    for separator in (b"\n\n", b"\r\n\r\n", b"\n", b". ", b" "):
        at = data.rfind(separator, len(data) // 2)
        if at >= 0:
            return at + len(separator)
    at = len(data) - 1
    while at > len(data) - 4 and data[at] & 0xC0 == 0x80:  # inside a UTF-8 character
        at -= 1
    return at


def _decoded(data: bytes, source: str, attributes: Mapping[str, Attribute]) -> Document | Skipped:
    try:
        return Document(decode(data), source, attributes=attributes)
    except UnicodeDecodeError:
        return Skipped("binary" if b"\x00" in data else "not_utf8", source)


# Lines


class _Lines:
    """The lines of a stream, numbered; one above `MAX_DOCUMENT_BYTES` is skipped. Ends at a corrupt byte."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name
        self.number = 0
        self.ended_by: Skipped | None = None
        """Why the lines end before the end of the file."""

    @property
    def source(self) -> str:
        """Of the line that came last."""
        return f"{self._name}:{self.number}"

    def __iter__(self) -> Iterator[bytes | None]:
        """Each line with its end; None for one that is too long."""
        while True:
            try:
                line, whole = _bounded_line(self._stream)
                if not line:
                    self._stream.read(1)  # raises where the end is an error (`compressed`)
                    return
            except CORRUPT as error:  # gzip's error is an OSError too
                self.ended_by = corrupt(error, f"{self._name}:{self.number + 1}")
                return
            if not self.number and is_utf16(line):
                self.ended_by = Skipped("utf16", self._name)
                return
            self.number += 1
            yield line if whole else None


def _bounded_line(stream: BinaryIO) -> tuple[bytes, bool]:
    """(line, True), or (its beginning, False) for one above `MAX_DOCUMENT_BYTES`, whose rest is skipped."""
    line = stream.readline(MAX_DOCUMENT_BYTES + 1)
    if len(line) <= MAX_DOCUMENT_BYTES or line.endswith(b"\n"):
        return line, True
    while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
        pass
    return line[:1], False


def json_rows(stream: BinaryIO, name: str) -> Rows:
    """The object of every line; blank lines mean nothing.

    A byte order mark may begin any line: `cat` joins files that begin with one.
    """
    lines, found = _Lines(stream, name), False
    for line in lines:
        if line is None:
            found = True
            yield Skipped("too_long", lines.source)
            continue
        line = line.removeprefix(BOM)
        if line.strip():
            found = True
            yield _json_row(line, lines.source)
    if lines.ended_by is not None:
        yield lines.ended_by
    elif not found:
        yield Skipped("empty", name)


def _json_row(line: bytes, source: str) -> Row | Skipped:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Skipped("not_utf8", source)
    except (ValueError, RecursionError):
        return Skipped("bad_json", source)
    return Row(value, source) if isinstance(value, dict) else Skipped("no_text", source)


def read_json_lines(stream: BinaryIO, name: str, text_field: str) -> Found:
    """The text of every line."""
    for row in json_rows(stream, name):
        if isinstance(row, Skipped):
            yield row
            continue
        text = row.fields.get(text_field)
        yield (
            checked(text, row.source, row.fields) if isinstance(text, str) else Skipped("no_text", row.source)
        )


def checked(text: str, source: str, fields: Mapping[str, object]) -> Document | Skipped:
    """A document of a text from JSON or a table: lone surrogates (`"\\ud83d"`) are not Unicode text."""
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        return Skipped("not_utf8", source)
    if size > MAX_DOCUMENT_BYTES:
        return Skipped("too_long", source)
    return Document(text, source, _first(fields, _ID_FIELDS), _first(fields, _LICENCE_FIELDS))


def _first(fields: Mapping[str, object], names: tuple[str, ...]) -> str:
    """The first of the named fields that is there, as text; empty for none."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return str(value).encode("utf-8", "replace").decode()
    return ""


def csv_rows(stream: BinaryIO, name: str, needed: str | None = None) -> Rows:
    """The rows of a table with a header; `,`, `;` or a tab between the columns. A short row lacks fields.

    needed: a column without which the table is skipped as a whole.
    """
    lines = _Lines(stream, name)
    too_long: list[Skipped] = []

    def decoded() -> Iterator[str]:
        for line in lines:
            if line is None:
                too_long.append(Skipped("too_long", lines.source))
            else:
                yield line.removeprefix(BOM).decode("utf-8", "surrogateescape").replace("\x00", "")

    texts = decoded()
    header = next(texts, None)
    csv.field_size_limit(MAX_DOCUMENT_BYTES)
    if header is not None:
        delimiter = max(",;\t", key=header.count)
        columns = [column.strip() for column in header.strip("\r\n").replace('"', "").split(delimiter)]
        if needed is not None and needed not in columns:
            yield Skipped("no_text", lines.source, max(1, sum(1 for _ in lines)))
        else:
            yield from _csv_rows(csv.reader(texts, delimiter=delimiter), columns, lines)
    yield from too_long
    if lines.ended_by is not None:
        yield lines.ended_by
    elif lines.number < 2:
        yield Skipped("empty", name)


def _csv_rows(rows: Iterator[list[str]], columns: list[str], lines: _Lines) -> Rows:
    while True:
        source = f"{lines._name}:{lines.number + 1}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            yield Skipped("bad_row", source)
            continue
        if row:
            yield Row(dict(zip(columns, row, strict=False)), source)


def read_csv(stream: BinaryIO, name: str, text_field: str) -> Found:
    """The text's column of a table with a header."""
    for row in csv_rows(stream, name, text_field):
        if isinstance(row, Skipped):
            yield row
            continue
        text = row.fields.get(text_field)
        yield (
            checked(text, row.source, row.fields) if isinstance(text, str) else Skipped("bad_row", row.source)
        )


# Whole documents

_CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)


def read_html(stream: BinaryIO, name: str, text_field: str) -> Found:
    """A page is one document, in UTF-8 or the encoding that it declares."""
    try:
        data = stream.read(MAX_DOCUMENT_BYTES + 1)
    except CORRUPT as error:
        yield corrupt(error, name)
        return
    if len(data) > MAX_DOCUMENT_BYTES:
        yield Skipped("too_long", name)
        return
    found = _decoded(data, name, {"markup": "html"})
    declared = _CHARSET.search(data[: 1 << 12])
    if isinstance(found, Skipped) and found.reason == "not_utf8" and declared is not None:
        try:
            encoding = codecs.lookup(declared[1].decode("ascii")).name
            if encoding != "utf-8":
                found = Document(data.decode(encoding), name, attributes={"markup": "html"})
        except (LookupError, UnicodeDecodeError):
            pass
    yield found


def read_mediawiki(stream: BinaryIO, name: str, text_field: str) -> Found:
    """The articles of a MediaWiki dump (`pages-articles.xml`); redirects and other namespaces are no text."""

    def blocks() -> Iterator[bytes]:
        while block := stream.read(_BLOCK):
            yield block

    number = 0
    try:
        for number, page in enumerate(pages(blocks(), MAX_DOCUMENT_BYTES), start=1):
            source = f"{name}:{number}"
            if page.text is None:
                yield Skipped("too_long", source)
            else:
                yield Document(
                    page.text, source, page.id, attributes={"markup": "wikitext", "title": page.title}
                )
    except (*CORRUPT, SyntaxError) as error:  # expat's ParseError is a SyntaxError
        yield corrupt(error, f"{name}:{number + 1}")
        return
    if not number:
        yield Skipped("empty", name)


READERS: dict[str, Reader] = {
    "text": read_text,
    "jsonl": read_json_lines,
    "csv": read_csv,
    "html": read_html,
    "mediawiki": read_mediawiki,
}
"""Format -> the reader of a stream of it."""
