"""The articles of a MediaWiki XML dump, parsed as the bytes come: memory holds one page.

The format is https://www.mediawiki.org/xml/export-0.11.xsd; namespace 0 holds the articles. expat itself
refuses entities that grow without end (since 2.4.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple
from xml.etree import ElementTree


class Page(NamedTuple):
    """An article."""

    id: str
    title: str
    text: str | None
    """Wikitext; None for one that is too long."""


def pages(blocks: Iterable[bytes], max_bytes: int) -> Iterator[Page]:
    """The articles of a dump that comes in `blocks`. Raises `xml.etree.ElementTree.ParseError`."""
    target = _Pages(max_bytes)
    parser = ElementTree.XMLParser(target=target)
    for block in blocks:
        parser.feed(block)
        yield from target.take()
    parser.close()
    yield from target.take()


class _Pages:
    """What expat calls for each tag and text."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._ready: list[Page] = []
        self._open: list[str] = []
        self._fields: dict[str, list[str]] = {}
        self._size = 0
        self._redirect = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """A tag opens."""
        name = tag.rpartition("}")[2]
        self._open.append(name)
        if name == "page":
            self._fields, self._size, self._redirect = {}, 0, False
        elif name == "redirect":
            self._redirect = True

    def data(self, text: str) -> None:
        """Text inside the tag that is open."""
        self._size += len(text)
        if len(self._open) > 1 and self._size <= self._max_bytes:
            self._fields.setdefault("/".join(self._open[-2:]), []).append(text)

    def end(self, tag: str) -> None:
        """A tag closes."""
        if self._open.pop() != "page" or self._redirect or self._field("page/ns") not in ("", "0"):
            return
        whole = self._size <= self._max_bytes
        text = self._field("revision/text") if whole else None
        self._ready.append(Page(self._field("page/id"), self._field("page/title"), text))

    def close(self) -> None:
        """The document ends."""

    def take(self) -> list[Page]:
        """The pages that have ended since the last call."""
        ready, self._ready = self._ready, []
        return ready

    def _field(self, path: str) -> str:
        return "".join(self._fields.get(path, []))
