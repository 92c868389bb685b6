"""The page in a real Chromium: what a visitor sees and does."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.browser

BOX = "#texto textarea"
IDLE = "#continuar:not([disabled])"
BUSY = "#parar:not([disabled])"


def set_tokens(tab, count: int) -> None:
    tab.click("#amostragem button")
    field = tab.locator("#amostragem input[type=number]").first
    field.fill(str(count))
    field.press("Tab")


def write(tab, text: str) -> str:
    """Fill the box, continue with the keyboard, wait for the end; the text then."""
    tab.fill(BOX, text)
    tab.press(BOX, "Control+Enter")
    tab.wait_for_function("document.querySelector('#estado').innerText.includes('limite de tokens')")
    tab.wait_for_selector(IDLE)
    return tab.input_value(BOX)


def test_continue_retry_and_undo(tab):
    first = write(tab, "Era uma vez")
    assert first.startswith("Era uma vez") and len(first) > 20
    tab.click("#de-novo")
    tab.wait_for_function("text => document.querySelector('#texto textarea').value != text", arg=first)
    tab.wait_for_function("document.querySelector('#estado').innerText.includes('limite de tokens')")
    tab.wait_for_selector(IDLE)
    second = tab.input_value(BOX)
    assert second.startswith("Era uma vez") and second != first
    for expected in (first, "Era uma vez"):
        tab.click("#desfazer")
        tab.wait_for_function("text => document.querySelector('#texto textarea').value == text", arg=expected)
    tab.wait_for_selector("#desfazer[disabled]")


def test_stop_ends_the_text_and_typing_is_possible_again(tab):
    set_tokens(tab, 1024)
    tab.fill(BOX, "O rio corre")
    tab.click("#continuar")
    tab.wait_for_selector(BUSY)
    tab.wait_for_function("document.querySelector('#texto textarea').value.length > 40")
    assert tab.evaluate("document.querySelector('#texto textarea').readOnly")
    tab.click("#parar")
    tab.wait_for_selector(IDLE)
    stopped = tab.input_value(BOX)
    ended = "document.querySelector('#estado').innerText.trim().endsWith('parado')"
    tab.wait_for_function(ended)
    tab.wait_for_timeout(1000)
    assert tab.input_value(BOX) == stopped and tab.evaluate(ended)
    assert not tab.evaluate("document.querySelector('#texto textarea').readOnly")


def test_closing_the_tab_ends_its_text_and_the_next_visitor_writes(tab, browser, url, page):
    other = browser.new_context(locale="pt-BR")
    closed = other.new_page()
    closed.goto(url)
    closed.wait_for_selector(IDLE)
    set_tokens(closed, 1024)
    closed.fill(BOX, "O rio corre")
    closed.click("#continuar")
    closed.wait_for_function("document.querySelector('#texto textarea').value.length > 30")
    assert page.model.load_figures().running == 1
    other.close()
    deadline = time.monotonic() + 10
    while page.model.load_figures().running:
        assert time.monotonic() < deadline, "the text goes on"
        time.sleep(0.01)
    assert len(write(tab, "Era uma vez")) > 20


def test_an_empty_text_is_refused_in_portuguese_and_the_buttons_come_back(tab):
    tab.click("#continuar")
    tab.wait_for_selector(".toast-body")
    tab.wait_for_function(
        "document.querySelector('.toast-body').innerText.includes('Não deu para continuar')"
    )
    toast = tab.inner_text(".toast-body")
    assert "O texto inicial está vazio" in toast and "Error" not in toast
    tab.wait_for_selector(IDLE)
    assert tab.is_disabled("#desfazer")


def test_an_example_fills_the_box_and_undo_returns_the_text(tab):
    tab.fill(BOX, "o meu texto")
    tab.get_by_text("No Recife, à beira do rio,").click()
    tab.wait_for_function("document.querySelector('#texto textarea').value.startsWith('No Recife')")
    tab.click("#desfazer")
    tab.wait_for_function("document.querySelector('#texto textarea').value == 'o meu texto'")


def test_markup_is_shown_and_not_run(tab):
    hostile = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
    assert write(tab, hostile).startswith(hostile)


def test_every_control_has_a_name_and_the_page_fits_a_phone(tab):
    tab.click("#amostragem button")
    unnamed = tab.evaluate("""
        [...document.querySelectorAll('button, input, textarea')]
          .filter(e => e.offsetParent && !e.getAttribute('aria-label') && !e.innerText && !e.title)
          .filter(e => !e.labels?.length)
          .map(e => e.outerHTML.slice(0, 120))""")
    assert not unnamed
    assert tab.evaluate("[document.documentElement.lang, document.documentElement.scrollWidth]") == [
        "pt-BR",
        390,
    ]
    assert tab.get_attribute("#estado", "aria-live") == "polite"
