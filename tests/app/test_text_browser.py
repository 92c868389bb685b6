"""The Texto tab in a real Chromium: what a visitor sees and does, also a hasty one on a slow network."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator

import pytest
from page_controls import set_slider

pytestmark = pytest.mark.browser

BOX = "#texto textarea"
STATUS = "#estado"
IDLE = "#continuar[aria-disabled=false]"
BUSY = "#parar[aria-disabled=false]"


def set_tokens(tab, count: int) -> None:
    set_slider(tab, "#amostragem", 0, count)


@pytest.fixture
def short(tab):
    """The page, set to texts of 20 tokens."""
    set_tokens(tab, 20)
    return tab


def wait_for_end(tab) -> str:
    """Until the text is complete; the text then."""
    tab.wait_for_function("document.querySelector('#estado').innerText.includes('limite de tokens')")
    tab.wait_for_selector(IDLE)
    return tab.input_value(BOX)


def write(tab, text: str) -> str:
    """Fill the box and continue with the keyboard; the text at the end."""
    tab.fill(BOX, text)
    tab.press(BOX, "Control+Enter")
    return wait_for_end(tab)


def click_at_once(tab, *selectors: str) -> None:
    """Clicks within one task of the browser: faster than any visitor, and than any answer."""
    tab.evaluate("selectors => selectors.forEach((s) => document.querySelector(s).click())", selectors)


def wait_for_no_text(page) -> None:
    deadline = time.monotonic() + 10
    while page.streams.open:
        assert time.monotonic() < deadline, "a text goes on"
        time.sleep(0.005)


class Paused:
    """Texts that stop after their first piece until `go_on`, or break off there with their connection."""

    def __init__(self, page, monkeypatch) -> None:
        write, self.go_on, self.breaks = page.writer.write, threading.Event(), threading.Event()

        async def paused(*arguments: object, **language: object) -> AsyncGenerator[tuple[str, str]]:
            async for shown in write(*arguments, **language):
                yield shown
                if shown[0] == arguments[0]:  # no whole character yet
                    continue
                while not self.go_on.is_set():
                    await asyncio.sleep(0.005)
                    if self.breaks.is_set():
                        raise asyncio.CancelledError

        monkeypatch.setattr(page.writer, "write", paused)


@pytest.fixture
def paused(page, monkeypatch) -> Iterator[Paused]:
    made = Paused(page, monkeypatch)
    yield made
    made.go_on.set()


def begin(tab, text: str = "O rio corre") -> str:
    """Continue `text` until a piece of it is there; what the box holds then."""
    tab.fill(BOX, text)
    tab.click("#continuar")
    tab.wait_for_function("n => document.querySelector('#texto textarea').value.length > n", arg=len(text))
    return tab.input_value(BOX)


def test_continue_retry_undo_and_redo(short):
    first = write(short, "Era uma vez")
    assert first.startswith("Era uma vez") and len(first) > 20
    short.click("#de-novo")
    short.wait_for_function("text => document.querySelector('#texto textarea').value != text", arg=first)
    second = wait_for_end(short)
    assert second.startswith("Era uma vez") and second != first
    for expected in (first, "Era uma vez"):
        short.click("#desfazer")
        assert short.input_value(BOX) == expected
    assert short.get_attribute("#desfazer", "aria-disabled") == "true"
    for expected in (first, second):
        short.click("#refazer")
        assert short.input_value(BOX) == expected
    assert short.get_attribute("#refazer", "aria-disabled") == "true"


def test_stop_ends_the_text_and_typing_is_possible_again(tab, paused, page):
    written = begin(tab)
    assert tab.evaluate("document.querySelector('#texto textarea').readOnly")
    tab.press(BOX, "Escape")
    assert tab.inner_text(STATUS).endswith("· parado")
    paused.go_on.set()
    wait_for_no_text(page)
    tab.press(BOX, "End")
    tab.keyboard.type(", e")
    assert tab.input_value(BOX) == written + ", e"


def test_an_example_followed_at_once_by_continue_is_continued(short, slow):
    click_at_once(short, "#exemplos button:nth-child(5)", "#continuar")
    assert slow.wait()["prompt"] == "No Recife, à beira do rio,"
    slow.let()
    assert wait_for_end(short).startswith("No Recife, à beira do rio,")
    short.click("#desfazer")
    assert short.input_value(BOX) == "No Recife, à beira do rio,"


def test_undo_after_an_example_returns_the_text(tab):
    tab.fill(BOX, "o meu texto")
    tab.get_by_text("O Brasil é", exact=True).click()
    assert tab.input_value(BOX) == "O Brasil é"
    tab.click("#desfazer")
    assert tab.input_value(BOX) == "o meu texto"


def test_a_style_followed_at_once_by_continue_counts(short, slow):
    short.fill(BOX, "Era")
    short.evaluate("document.querySelectorAll('#amostragem .estilos button')[2].click()")
    short.click("#continuar")
    assert slow.wait()["sampling"][:3] == [20, 1.1, 1]
    slow.let()
    wait_for_end(short)


@pytest.mark.parametrize("button", ["#continuar", "#de-novo"])
def test_a_double_click_begins_one_text(short, slow, button):
    if button == "#de-novo":
        slow.let()
        write(short, "Era uma vez")
        slow.hold()
    short.fill(BOX, "Era uma vez")
    short.dblclick(button)
    click_at_once(short, button, "#continuar", "#de-novo")
    slow.wait()
    short.wait_for_timeout(50)
    assert len(slow) == 1
    slow.let()
    text = wait_for_end(short)
    assert text.count("Era uma vez") == 1
    short.click("#desfazer")
    assert short.input_value(BOX) == "Era uma vez"


def test_what_is_typed_before_the_answer_and_while_it_comes_changes_nothing(short, slow, paused):
    short.fill(BOX, "Era uma vez")
    short.press(BOX, "Control+Enter")
    short.keyboard.type(" e depois")
    assert slow.wait()["prompt"] == "Era uma vez"
    slow.let()
    short.wait_for_function("document.querySelector('#texto textarea').value.length > 11")
    piece = short.input_value(BOX)
    short.keyboard.type(" e depois")
    assert short.input_value(BOX) == piece
    paused.go_on.set()
    text = wait_for_end(short)
    assert text.startswith(piece) and " e depois" not in text


def test_stop_before_the_server_has_answered_means_that_nothing_is_written(tab, slow, page):
    tab.fill(BOX, "Era uma vez")
    click_at_once(tab, "#continuar", "#parar")
    assert tab.inner_text(STATUS) == "Parado."
    click_at_once(tab, "#continuar")
    slow.wait()
    tab.click("#parar")
    assert tab.inner_text(STATUS) == "Parado." and tab.input_value(BOX) == "Era uma vez"
    assert tab.get_attribute("#desfazer", "aria-disabled") == "true"
    slow.let()
    wait_for_no_text(page)
    assert tab.input_value(BOX) == "Era uma vez"


def test_undo_while_it_is_written_stops_it_and_returns_the_text(tab, paused, page):
    written = begin(tab)
    tab.click("#desfazer")
    assert tab.input_value(BOX) == "O rio corre"
    paused.go_on.set()
    wait_for_no_text(page)
    assert tab.input_value(BOX) == "O rio corre"
    tab.click("#refazer")
    assert tab.input_value(BOX) == written


def test_two_tabs_write_apart_and_a_closed_one_frees_its_place_before_its_first_token(short, new_tab, page):
    closed = new_tab()
    closed.fill(BOX, "O rio corre")
    with page.model._loop.turn():  # no token comes
        for open_tab in (closed, short):
            open_tab.fill(BOX, "O rio corre")
            open_tab.click("#continuar")
        while page.streams.open < 2:
            short.wait_for_timeout(10)
        closed.context.close()
        while page.streams.open > 1:
            short.wait_for_timeout(10)
        assert short.inner_text(STATUS) == "Lendo o texto…"
    assert wait_for_end(short).startswith("O rio corre")


def test_a_connection_that_breaks_is_said_and_the_text_stays(short, paused, phone):
    written = begin(short)
    lost = "A conexão com o servidor caiu; o que está escrito ficou. Tente de novo."
    paused.breaks.set()
    short.wait_for_selector(f"{STATUS}.erro")
    assert short.inner_text(STATUS) == lost and short.input_value(BOX) == written
    short.context.route("**/stream/*", lambda route: route.abort())  # the server is gone
    short.click("#continuar")
    short.wait_for_selector(f"{STATUS}.erro")
    assert short.inner_text(STATUS) == lost and short.input_value(BOX) == written
    short.context.unroute_all()
    paused.breaks.clear()
    paused.go_on.set()
    short.click("#continuar")
    assert wait_for_end(short).startswith(written)
    phone[1].errors.clear()  # Chromium's own, of the requests that failed


def test_an_empty_text_is_refused_in_portuguese(tab):
    tab.click("#continuar")
    tab.wait_for_selector(f"{STATUS}.erro")
    assert "O texto inicial está vazio" in tab.inner_text(STATUS)
    assert tab.get_attribute("#desfazer", "aria-disabled") == "true"
    tab.wait_for_selector(IDLE)


def test_markup_is_shown_and_not_run(short):
    hostile = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
    assert write(short, hostile).startswith(hostile)


def test_a_reload_keeps_the_text_and_what_undo_knows(new_tab):
    reloaded = new_tab()
    set_tokens(reloaded, 20)
    text = write(reloaded, "Era uma vez")
    reloaded.reload()
    reloaded.wait_for_function("text => document.querySelector('#texto textarea')?.value == text", arg=text)
    reloaded.click("#desfazer")
    assert reloaded.input_value(BOX) == "Era uma vez"


def test_every_control_has_a_name_and_the_page_fits_a_phone(short):
    unnamed = short.evaluate("""
        [...document.querySelectorAll('button, input, textarea')]
          .filter(e => e.offsetParent && !e.getAttribute('aria-label') && !e.innerText && !e.title)
          .filter(e => !e.labels?.length)
          .map(e => e.outerHTML.slice(0, 120))""")
    assert not unnamed
    assert short.evaluate("[document.documentElement.lang, document.documentElement.scrollWidth]") == [
        "pt-BR",
        390,
    ]
    assert short.get_attribute(STATUS, "aria-live") == "polite"
