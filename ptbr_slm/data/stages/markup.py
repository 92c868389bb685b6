"""HTML, wikitext and Markdown as text. It runs before the stages of every preset.

HTML is parsed by selectolax (lexbor, the parser of the HTML standard; MIT). It takes the page's `<article>`
or `<main>` where there is one, and leaves out what is never its text: menus, forms, scripts. Which of the
remaining paragraphs are boilerplate is for the rules of the preset `web`. Wikitext is parsed by
mwparserfromhell (MIT), the parser of Wikipedia's own bots.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages.stage import Dropped
from ptbr_slm.errors import missing_extra

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

_NEVER_TEXT = (
    "script, style, noscript, template, nav, header, footer, aside, form, button, select, iframe, svg, "
    "figure, dialog, [hidden], [aria-hidden=true]"
)
_BLOCKS = re.compile(
    "address|article|blockquote|body|center|div|dl|dd|dt|fieldset|h[1-6]|hr|li|main|ol|p|pre|section"
    "|table|tbody|tfoot|thead|tr|ul"
)
_MIN_SHARE = 0.3
"""An `<article>` with less than this share of the page's text is one teaser of many."""
_SPACES = re.compile(r"[ \t\n\r\f]+")

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n.*?\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)

_WIKI_TABLE = re.compile(r"^[ \t:]*\{\|.*?^[ \t]*\|\}", re.DOTALL | re.MULTILINE)
_WIKI_NOT_PROSE = re.compile(r"(?:ficheiro|arquivo|imagem|file|image|categoria|category)\s*:", re.IGNORECASE)
_WIKI_HEADING = re.compile(r"^==+[ \t]*([^=\n]+?)[ \t]*==+[ \t]*$", re.MULTILINE)
_WIKI_END = ("ligações externas", "ligação externa", "referências", "notas", "notas e referências",
             "bibliografia", "ver também")  # fmt: skip
"""Sections of links and lists that end an article."""
_WIKI_TAGS = ("ref", "gallery", "math", "timeline", "syntaxhighlight", "source", "score", "imagemap", "table")


@dataclass(frozen=True, slots=True)
class Markup:
    """Makes text of what a reader marked with the attribute `markup`, and takes the attribute away."""

    name: str = "markup"

    def __call__(self, document: Document) -> Document | Dropped:
        """The document with its text; the same object where it has no markup."""
        kind = document.attributes.get("markup")
        if kind is None:
            return document
        text = _CONVERTERS[str(kind)](document.text)
        attributes = {key: value for key, value in document.attributes.items() if key != "markup"}
        return replace(document, text=text, attributes=attributes)


def html_text(html: str) -> str:
    """The text of a page: a line for each block, an empty line between paragraphs. Raises E_DEPENDENCY."""
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise missing_extra("selectolax") from error
    tree = LexborHTMLParser(html)
    body = tree.body
    if body is None:
        return ""
    for node in tree.css(_NEVER_TEXT):
        node.decompose()
    whole = len(body.text())
    for selector in ("main", "article"):
        found = tree.css(selector)
        if len(found) == 1 and len(found[0].text()) >= _MIN_SHARE * whole:
            body = found[0]
            break
    return _block_text(body)


def _block_text(root: LexborNode) -> str:
    """The text below `root`, with line breaks where a browser would begin a new line."""
    parts: list[str] = []
    for node in root.traverse(include_text=True):
        if node.tag == "-text":
            content = node.text(deep=False)
            preformatted = node.parent is not None and node.parent.tag == "pre"
            parts.append(content if preformatted else _SPACES.sub(" ", content))
        elif node.tag == "br":
            parts.append("\n")
        elif node.tag is not None and _BLOCKS.fullmatch(node.tag):
            parts.append("\n" if node.tag in ("li", "tr", "dt", "dd") else "\n\n")
        elif node.tag in ("td", "th"):
            parts.append(" ")
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", "".join(parts))
    return re.sub(r" {2,}", " ", re.sub(r"\n{3,}", "\n\n", text)).strip()


def markdown_text(text: str) -> str:
    """Markdown without its front matter and comments; its marks stay, as models are to write them."""
    return _COMMENT.sub("", _FRONT_MATTER.sub("", text, count=1))


def wiki_text(wikitext: str) -> str:
    """The prose of an article: no templates, tables, files, references or lists of links at the end.

    Raises E_DEPENDENCY.
    """
    try:
        import mwparserfromhell
    except ImportError as error:
        raise missing_extra("mwparserfromhell") from error
    code = mwparserfromhell.parse(_WIKI_TABLE.sub("", wikitext[: _prose_end(wikitext)]))
    for link in code.filter_wikilinks(recursive=True):
        if _WIKI_NOT_PROSE.match(str(link.title).strip().lstrip(":")):
            with suppress(ValueError):  # gone with one around it
                code.remove(link)
    for tag in code.filter_tags(recursive=True, matches=lambda node: str(node.tag).lower() in _WIKI_TAGS):
        with suppress(ValueError):
            code.remove(tag)
    text = code.strip_code(normalize=True, collapse=True)
    text = re.sub(r"__[A-Z]+__", "", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]*\n[ \t]*", "\n", text)).strip()


def _prose_end(wikitext: str) -> int:
    """Where the sections begin that end an article."""
    end = len(wikitext)
    for heading in reversed(list(_WIKI_HEADING.finditer(wikitext))):
        if heading[1].lower() not in _WIKI_END:
            break
        end = heading.start()
    return end


_CONVERTERS = {"html": html_text, "markdown": markdown_text, "wikitext": wiki_text}
