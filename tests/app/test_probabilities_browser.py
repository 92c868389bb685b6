"""The Probabilidades tab in a real Chromium: reading, choosing by hand and by keyboard, going on, undoing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

pytestmark = pytest.mark.browser

BOX = "#prob-texto textarea"
TOKEN = ".prob-text [role=option]"
IDLE = "#prob-ver:not([disabled])"
TEXT = "O rio corre, não é?"


@pytest.fixture
def reading(tab: Any) -> Any:
    """An open page whose tab is chosen, with TEXT read."""
    tab.get_by_role("tab", name="Probabilidades").click()
    tab.fill(BOX, TEXT)
    tab.click("#prob-ver")
    tab.wait_for_selector(TOKEN)
    tab.wait_for_selector(IDLE)
    return tab


def shown(tab: Any, tokens: int | None = None) -> str:
    """The text of the first tokens, or of all: without the mark of its beginning and bytes within characters.

    Line ends as a text box has them.
    """
    pieces = tab.locator(TOKEN).evaluate_all(
        "all => all.map(one => one.classList.contains('tok-text') ? one.textContent : '')"
    )
    return "".join(pieces[:tokens]).replace("↵\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


def test_an_alternative_goes_on_from_there_and_undo_returns_to_the_text(reading):
    assert shown(reading) == TEXT
    assert "bits por byte" in reading.inner_text(".prob-figures")
    place = reading.locator(TOKEN).count() - 3
    kept = shown(reading, place)
    reading.locator(TOKEN).nth(place).click()
    row = reading.locator(".prob-alternatives button:enabled:not(.tok-actual):not(:has(.tok-bytes))").first
    name = row.get_attribute("aria-label").split(": ", 1)[1].rsplit(", ", 1)[0]
    row.dblclick()  # the second click falls on nothing, or on what runs
    reading.wait_for_function("document.querySelector('.prob-line').innerText.includes('limite de tokens')")
    reading.wait_for_selector(IDLE)
    text = reading.input_value(BOX)
    assert text == shown(reading) and text.startswith(kept) and len(text) > len(TEXT)
    assert reading.locator(TOKEN).nth(place).get_attribute("aria-label").startswith(name + ":")
    reading.click("#prob-desfazer")
    assert (shown(reading), reading.input_value(BOX)) == (TEXT, TEXT)
    assert reading.is_disabled("#prob-desfazer")


def test_the_keyboard_reaches_every_token_and_its_alternatives(reading):
    reading.focus(f"{TOKEN}[tabindex='0']")
    for key in ("ArrowRight", "ArrowRight", "End", "ArrowLeft", "Home", "ArrowRight"):
        reading.keyboard.press(key)
    focused = "document.activeElement.getAttribute('aria-label')"
    assert "%" in reading.evaluate(focused) and "mais provável" in reading.evaluate(focused)
    reading.keyboard.press("Enter")
    assert reading.evaluate("!!document.activeElement.closest('.prob-alternatives')")
    reading.keyboard.press("Escape")
    assert reading.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    assert reading.locator(f"{TOKEN}[tabindex='0']").count() == 1
    assert reading.evaluate("document.documentElement.scrollWidth") == 390


def test_a_stopped_continuation_stays_and_an_error_gives_the_buttons_back(reading, page, monkeypatch):
    real, goes_on = page.writer.chunks, threading.Event()

    async def chunks(prompt: Any, options: dict[str, Any]) -> AsyncGenerator[Any]:
        # A seed of its own: a drawn end of text, at its first token, would leave nothing to stop.
        async with aclosing(real(prompt, options | {"seed": 1})) as given:
            async for chunk in given:
                yield chunk
                if chunk.text:  # a token within a character is not shown before those that complete it
                    await asyncio.to_thread(goes_on.wait, 60)  # until the test has looked

    monkeypatch.setattr(page.writer, "chunks", chunks)
    reading.locator(TOKEN).nth(3).click()
    reading.locator(".prob-alternatives button:not([disabled])").first.click()
    reading.wait_for_function(f"document.querySelectorAll('{TOKEN}').length > 4")
    assert reading.evaluate(f"document.querySelector('{BOX}').readOnly")
    reading.click("#prob-parar")
    reading.wait_for_selector(IDLE)
    stopped = shown(reading)
    goes_on.set()
    reading.wait_for_timeout(500)
    assert shown(reading) == stopped == reading.input_value(BOX)
    assert page.model.load_figures().running == 0
    reading.fill(BOX, "<b>" * 3000)
    reading.click("#prob-ver")
    reading.wait_for_selector(".toast-body")
    assert "contexto do modelo" in reading.inner_text(".toast-body")
    reading.wait_for_selector(IDLE)
    assert shown(reading) == stopped
