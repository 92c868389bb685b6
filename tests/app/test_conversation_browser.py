"""The Conversa tab in a real Chromium: sending, stopping, retrying, and what a hasty visitor does."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import AsyncGenerator

import pytest

pytestmark = pytest.mark.browser

BOX = "#mensagem textarea"
IDLE = "#enviar:not([disabled])"
BUSY = "#parar-resposta:not([disabled])"
STATUS = "#estado-conversa"
QUESTION = "Quem abriu a janela, João?"


@pytest.fixture
def chat(tab):
    """An open page whose second tab is chosen."""
    tab.get_by_role("tab", name="Conversa").click()
    tab.wait_for_selector(BOX)
    tab.wait_for_selector(IDLE)
    return tab


def answer_of(page, seed: int, tokens: int) -> str:
    """What the engine answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = [{"role": "user", "content": QUESTION}]
        return page.model.chat(said, seed=seed, max_new_tokens=tokens)


@pytest.fixture(scope="module")
def long_seed(page) -> int:
    """A seed whose answer takes seconds."""
    return next(seed for seed in range(100) if len(answer_of(page, seed, 1000)) > 1500)


def choose(chat, tokens: int, seed: int | str = "") -> None:
    chat.click("#amostragem-conversa button")
    field = chat.locator("#amostragem-conversa input[type=number]").first
    field.fill(str(tokens))
    field.press("Tab")
    chat.get_by_label("Semente").last.fill(str(seed))


def send(chat, text: str = QUESTION) -> None:
    chat.fill(BOX, text)
    chat.press(BOX, "Enter")


def bubbles(chat) -> list[str]:
    """The messages shown, oldest first."""
    return [text.strip() for text in chat.locator("#conversa .message-content").all_inner_texts()]


def wait_for_end(chat, count: int) -> None:
    """Until `count` messages are shown and the last is complete."""
    chat.wait_for_function(
        "count => document.querySelectorAll('#conversa .message-content').length == count"
        " && /limite|fim da/.test(document.querySelector('#estado-conversa').innerText)",
        arg=count,
    )
    chat.wait_for_selector(IDLE)


def wait_for_writing(chat) -> None:
    chat.wait_for_selector(BUSY)
    chat.wait_for_function("document.querySelectorAll('#conversa .message-content').length > 1")


def test_the_page_shows_the_answer_of_the_engine_and_remembers_it(chat, page):
    choose(chat, 25, 3)
    send(chat)
    wait_for_end(chat, 2)
    expected = answer_of(page, 3, 25)
    question, answer = bubbles(chat)
    assert (question, answer.split()) == (QUESTION, expected.split())
    assert chat.input_value(BOX) == "" and "semente 3" in chat.inner_text(STATUS)
    assert "não foi treinado para conversar" in chat.inner_text("#sem-conversa")
    send(chat, "E depois?")
    wait_for_end(chat, 4)
    said = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": expected},
        {"role": "user", "content": "E depois?"},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        second = page.model.chat(said, seed=3, max_new_tokens=25)
    assert bubbles(chat)[3].split() == second.split()


def test_retry_gives_another_answer_and_a_new_conversation_forgets(chat):
    choose(chat, 20, 3)
    send(chat)
    wait_for_end(chat, 2)
    first = bubbles(chat)[1]
    chat.click("#responder-de-novo")
    chat.wait_for_function(
        "text => document.querySelectorAll('#conversa .message-content')[1]?.innerText.trim() != text",
        arg=first,
    )
    wait_for_end(chat, 2)
    assert bubbles(chat)[0] == QUESTION and bubbles(chat)[1] != first
    chat.click("#nova-conversa")
    chat.wait_for_function("!document.querySelector('#conversa .message-content')")
    chat.wait_for_selector("#responder-de-novo[disabled]")


def test_stop_keeps_the_half_and_the_next_message_can_be_sent(chat, long_seed):
    choose(chat, 700, long_seed)
    send(chat)
    wait_for_writing(chat)
    chat.keyboard.press("Escape")
    chat.wait_for_selector(IDLE)
    chat.wait_for_function("document.querySelector('#estado-conversa').innerText.includes('parado')")
    half = bubbles(chat)
    chat.wait_for_timeout(700)
    assert bubbles(chat) == half and len(half) == 2
    chat.get_by_label("Semente").last.fill("3")
    chat.locator("#amostragem-conversa input[type=number]").first.fill("5")
    chat.locator("#amostragem-conversa input[type=number]").first.press("Tab")
    send(chat, "Obrigado.")
    wait_for_end(chat, 4)


def test_what_is_sent_during_an_answer_waits_in_the_box(chat, page, monkeypatch):
    write, goes_on = page.writer.answer, threading.Event()

    async def answer(*arguments: object) -> AsyncGenerator[tuple[str, str]]:
        async for shown in write(*arguments):
            yield shown
            await asyncio.to_thread(goes_on.wait, 60)  # after its first piece, until the test has looked

    monkeypatch.setattr(page.writer, "answer", answer)
    choose(chat, 25, 3)
    send(chat)
    wait_for_writing(chat)
    send(chat, "Outra pergunta")
    chat.wait_for_timeout(300)
    assert chat.input_value(BOX) == "Outra pergunta"
    goes_on.set()
    wait_for_end(chat, 2)
    chat.wait_for_timeout(500)
    assert bubbles(chat)[0] == QUESTION and len(bubbles(chat)) == 2
    assert chat.input_value(BOX) == "Outra pergunta" and not chat.locator(".toast-body").count()


def test_a_double_click_asks_once(chat):
    choose(chat, 10, 3)
    chat.fill(BOX, QUESTION)
    chat.dblclick("#enviar")
    wait_for_end(chat, 2)
    chat.wait_for_timeout(500)
    assert len(bubbles(chat)) == 2
    chat.dblclick("#responder-de-novo")
    chat.wait_for_timeout(1000)
    wait_for_end(chat, 2)
    assert not chat.locator(".toast-body").count()


def test_closing_the_tab_during_an_answer_frees_the_model(chat, browser, url, long_seed):
    other = browser.new_context(locale="pt-BR")
    closed = other.new_page()
    closed.goto(url)
    closed.get_by_role("tab", name="Conversa").click()
    closed.wait_for_selector(IDLE)
    choose(closed, 700, long_seed)
    send(closed)
    wait_for_writing(closed)
    other.close()
    choose(chat, 5, 3)
    send(chat)
    wait_for_end(chat, 2)


def test_a_message_too_long_is_refused_in_portuguese_and_comes_back_to_the_box(chat):
    long = "casa amarela " * 1500
    send(chat, long)
    chat.wait_for_selector(".toast-body")
    toast = chat.inner_text(".toast-body")
    assert "contexto do modelo" in toast and "Error" not in toast
    chat.wait_for_selector(IDLE)
    chat.wait_for_function("document.querySelector('#mensagem textarea').value.length > 1000")
    assert not bubbles(chat)


def test_markup_is_shown_and_not_run(chat):
    choose(chat, 5, 3)
    hostile = '<img src=x onerror="alert(1)"><script>alert(2)</script> **a** $$x$$'
    send(chat, hostile)
    wait_for_end(chat, 2)
    assert bubbles(chat)[0] == hostile


def test_the_tab_fits_a_phone_and_every_control_has_a_name(chat):
    chat.click("#amostragem-conversa button")
    unnamed = chat.evaluate("""
        [...document.querySelectorAll('button, input, textarea')]
          .filter(e => e.offsetParent && !e.getAttribute('aria-label') && !e.innerText && !e.title)
          .filter(e => !e.labels?.length)
          .map(e => e.outerHTML.slice(0, 120))""")
    assert not unnamed
    assert chat.evaluate("document.documentElement.scrollWidth") == 390
