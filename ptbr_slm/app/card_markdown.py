"""The Markdown of a model's card as HTML. Others wrote it: nothing of it runs, and nothing is fetched."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

LONGEST = 60_000
"""Characters of a card that are shown; one of the hub has some ten thousand."""
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def card_html(text: str) -> str:
    """CommonMark with tables, less what is dangerous or of no use on the page.

    Markup in HTML is left out, an image is its description, a link is one only to http or https and opens
    apart, without telling the other site where it came from. Headings begin at the fourth level, below the
    page's own. The header between two lines of dashes, which is for the hub, is left out.
    """
    from markdown_it import MarkdownIt

    body = _FRONT_MATTER.sub("", text.replace("\r\n", "\n").lstrip("\ufeff"), count=1)[:LONGEST]
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    parser.validateLink = lambda url: re.match(r"https?://", url, re.IGNORECASE) is not None  # type: ignore[method-assign]
    for name, rule in {
        "html_block": _nothing,
        "html_inline": _nothing,
        "image": _description,
        "heading_open": _lower_heading,
        "heading_close": _lower_heading,
        "link_open": _link,
        "table_open": _focusable_table,
        "th_open": _heading_cell,
        "th_close": _heading_cell,
    }.items():
        parser.add_render_rule(name, rule)
    return str(parser.render(body))


def _nothing(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    return ""


def _description(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    return html.escape(tokens[index].content)


def _lower_heading(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    level = min(6, int(token.tag[1:]) + 3)
    return f"<{'/' if token.nesting < 0 else ''}h{level}>"


def _focusable_table(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    """A wide table scrolls: the keyboard must reach it."""
    return '<table tabindex="0">'


def _heading_cell(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    """A cell at the head of a table; an empty one heads nothing."""
    token = tokens[index]
    name = "th" if tokens[index + token.nesting].content else "td"
    return f"<{'/' if token.nesting < 0 else ''}{name}>"


def _link(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    address = html.escape(str(tokens[index].attrs.get("href", "")))
    return f'<a href="{address}" target="_blank" rel="noopener noreferrer nofollow">'
