"""The page speaks one language at a time: Portuguese, or English where it is the browser's first."""

from __future__ import annotations

import re

import pytest
from chromium import DESKTOP

from ptbr_slm.app.tabs.text import EXAMPLES

pytestmark = pytest.mark.browser

TEXTS = """() => {
  const seen = [document.body.innerText.split("\\n")];
  for (const element of document.querySelectorAll("[aria-label], [title], [placeholder]")) {
    seen.push(["aria-label", "title", "placeholder"].map((name) => element.getAttribute(name) ?? ""));
  }
  return seen.flat().map((text) => text.trim()).filter((text) => /\\p{L}{2}/u.test(text));
}"""


def texts(page) -> tuple[str, set[str]]:
    """The page's language, and all that its tabs show or tell a screen reader."""
    found: set[str] = set()
    page.add_style_tag(content=".cm-editor {display: none !important}")  # code is the same in every language
    tabs = page.locator("[role=tab]")
    for number in range(tabs.count()):
        tabs.nth(number).click()
        closed = page.locator("button.label-wrap:not(.open):visible")
        while closed.count():
            closed.first.click()
        page.wait_for_timeout(100)
        found |= set(page.evaluate(TEXTS))
    language = page.evaluate("document.documentElement.lang")
    return language, found


NUMBERS = r"(ONNX|PyTorch) \w+|\d+ tokens|ptbr-slm [\d.]+"

NAMES = {
    "ptbr-slm",
    "Top-p",
    "Top-k",
    "Min-p",
    "CPU",
    "Embedding",
    "Feed-forward",
    "Python",
    "curl",
    "openai",
}
"""Of things and of programs."""


def test_nothing_but_names_is_the_same_in_both_languages(new_tab, page):
    pages = [new_tab(locale=locale, viewport=DESKTOP) for locale in ("pt-BR", "en-US")]
    (portuguese, here), (english, there) = map(texts, pages)
    assert (portuguese, english) == ("pt-BR", "en")
    assert {"Continuar", "Tentar de novo"} <= here and {"Continue", "Try again"} <= there
    shared = (here & there) - NAMES - {"openai", *EXAMPLES, *page.writers}
    untranslated = [text for text in shared if not re.fullmatch(NUMBERS, text)]
    assert not untranslated, "\n".join(sorted(untranslated))


def test_a_visitor_from_argentina_sees_portuguese(new_tab):
    page = new_tab(locale="es-AR")
    assert page.evaluate("document.documentElement.lang") == "pt-BR"
    assert page.inner_text("#continuar") == "Continuar"
    assert page.inner_text("#estado") == "Pronto."
