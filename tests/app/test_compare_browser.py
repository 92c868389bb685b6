"""Comparar and Modelo in a real Chromium."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import count
from threading import Event

import pytest
from page_controls import set_slider

pytestmark = pytest.mark.browser


def open_tab(tab, name: str, ready: str) -> None:
    """On a phone the last tabs are in a menu."""
    if not tab.locator(f"#aba-{name}-button").is_visible():
        tab.click(".overflow-menu > button")
        tab.locator(".overflow-dropdown button", has_text=re.compile(f"^{name}$", re.IGNORECASE)).click()
    else:
        tab.click(f"#aba-{name}-button")
    tab.wait_for_selector(ready)


def set_tokens(tab, count: int) -> None:
    set_slider(tab, "#comp-tokens", 0, count)


@pytest.fixture
def held(page, monkeypatch) -> Iterator[Event]:
    """The engine makes 40 steps, then waits for the event: no text is over before the browser looks."""
    engine, release, steps = page.model.engine, Event(), count(1)
    decode = engine.decode

    def held_decode(slots, tokens, **options):
        assert next(steps) <= 40 or release.wait(120)
        return decode(slots, tokens, **options)

    monkeypatch.setattr(engine, "decode", held_decode)
    yield release
    release.set()


def test_two_settings_are_written_at_once_a_double_click_starts_one_pair_and_stop_ends_both(tab, page, held):
    open_tab(tab, "comparar", "#comp-comparar")
    set_tokens(tab, 1024)
    tab.fill("#comp-texto textarea", "O <i>rio</i> corre")
    tab.dblclick("#comp-comparar")
    tab.wait_for_function("['a', 'b'].every(s => document.querySelector('#comp-' + s).innerText.length > 40)")
    assert page.model.load_figures().running == 2
    tab.click("#comp-parar:not([disabled])")
    tab.wait_for_selector("#comp-comparar:not([disabled])")
    stopped = (
        "['a', 'b'].every(s => document.querySelector('#comp-estado-' + s).innerText.includes('parado'))"
    )
    tab.wait_for_function(stopped)
    texts = [tab.inner_text(f"#comp-{side} .comp-escrito") for side in "ab"]
    assert all(text.startswith("O <i>rio</i> corre") for text in texts)
    assert "token" in tab.inner_text("#comp-resumo")  # one, or more
    held.set()
    deadline = time.monotonic() + 30
    while page.model.load_figures().running:
        assert time.monotonic() < deadline, "the texts go on"
        time.sleep(0.01)
    assert [tab.inner_text(f"#comp-{side} .comp-escrito") for side in "ab"] == texts


def test_the_card_is_in_the_browser_s_language_and_fits_a_phone(tab):
    open_tab(tab, "modelo", "#modelo-0")
    shown = tab.inner_text("#modelo-0")
    assert "Tamanho e forma" in shown and "Size and shape" not in shown
    tab.click("#modelo-0 summary")
    assert "model.safetensors" in tab.inner_text("#modelo-0")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
