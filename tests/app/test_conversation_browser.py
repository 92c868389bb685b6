"""The Conversa tab in a real Chromium: sending, stopping, retrying, and what a hasty visitor does."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import AsyncGenerator, Iterator

import pytest
from page_controls import set_slider
from page_pictures import show_tab

pytestmark = pytest.mark.browser

BOX = "#mensagem textarea"
IDLE = "#enviar[aria-disabled=false]"
STATUS = "#estado-conversa"
QUESTION = "Quem abriu a janela, João?"


@pytest.fixture
def chat(tab):
    """The open page whose tab Conversa is chosen, set to answers of 20 tokens with the seed 3."""
    show_tab(tab, "conversa")
    tab.wait_for_selector(IDLE)
    set_slider(tab, "#amostragem-conversa", 0, 20)
    tab.get_by_label("Semente").last.fill("3")
    tab.fill("#sistema textarea", "")
    return tab


def answer_of(page, said: list[tuple[str, str]]) -> str:
    """What the engine answers."""
    messages = [{"role": role, "content": content} for role, content in said]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return page.model.chat(messages, seed=3, max_new_tokens=20)


def send(chat, text: str = QUESTION) -> None:
    chat.fill(BOX, text)
    chat.press(BOX, "Enter")


def bubbles(chat) -> list[str]:
    """The messages shown, oldest first."""
    return chat.evaluate("[...document.querySelectorAll('#conversa p')].map((p) => p.textContent)")


def wait_for_end(chat, count: int) -> list[str]:
    """Until `count` messages are shown and the last is complete; the messages."""
    chat.wait_for_function(
        "count => document.querySelectorAll('#conversa p').length == count"
        " && /limite|fim da/.test(document.querySelector('#estado-conversa').innerText)",
        arg=count,
    )
    chat.wait_for_selector(IDLE)
    return bubbles(chat)


@pytest.fixture
def paused(page, monkeypatch) -> Iterator[threading.Event]:
    """Answers stop after their first piece until this is set."""
    answer, goes_on = page.writer.answer, threading.Event()

    async def held(*arguments: object, **language: object) -> AsyncGenerator[tuple[str, str]]:
        async for shown in answer(*arguments, **language):
            yield shown
            while shown[0] and not goes_on.is_set():
                await asyncio.sleep(0.005)

    monkeypatch.setattr(page.writer, "answer", held)
    yield goes_on
    goes_on.set()


def begin(chat) -> str:
    """Ask until a piece of the answer is there; the piece."""
    send(chat)
    chat.wait_for_function("document.querySelectorAll('#conversa p')[1]?.textContent")
    return bubbles(chat)[1]


def test_the_page_shows_the_answer_of_the_engine_and_remembers_it(chat, page):
    send(chat)
    said = [("user", QUESTION), ("assistant", answer_of(page, [("user", QUESTION)]))]
    assert wait_for_end(chat, 2) == [content for _, content in said]
    assert chat.input_value(BOX) == "" and "semente 3" in chat.inner_text(STATUS)
    assert "não foi treinado para conversar" in chat.inner_text("#sem-conversa")
    chat.fill("#sistema textarea", "Responda em uma frase.")
    send(chat, "E depois?")
    said = [("system", "Responda em uma frase."), *said, ("user", "E depois?")]
    assert wait_for_end(chat, 4)[3] == answer_of(page, said)


def test_retry_gives_another_answer_and_a_new_conversation_forgets(chat):
    send(chat)
    _, first = wait_for_end(chat, 2)
    chat.click("#responder-de-novo")
    chat.wait_for_function(
        "text => document.querySelectorAll('#conversa p')[1]?.textContent != text", arg=first
    )
    question, second = wait_for_end(chat, 2)
    assert question == QUESTION and second != first
    chat.click("#nova-conversa")
    assert not bubbles(chat) and chat.get_attribute("#responder-de-novo", "aria-disabled") == "true"


def test_stop_keeps_the_half_and_the_next_message_can_be_sent(chat, paused):
    half = begin(chat)
    chat.keyboard.press("Escape")
    assert chat.inner_text(STATUS).endswith("· parado") and bubbles(chat) == [QUESTION, half]
    paused.set()
    send(chat, "Obrigado.")
    assert wait_for_end(chat, 4)[:3] == [QUESTION, half, "Obrigado."]


def test_what_is_sent_during_an_answer_waits_in_the_box(chat, paused):
    begin(chat)
    send(chat, "Outra pergunta")
    chat.evaluate("document.querySelector('#enviar').click()")
    assert chat.input_value(BOX) == "Outra pergunta"
    paused.set()
    assert wait_for_end(chat, 2)[0] == QUESTION
    assert chat.input_value(BOX) == "Outra pergunta"
    send(chat, "Outra pergunta")
    assert wait_for_end(chat, 4)[2] == "Outra pergunta"


def test_sending_twice_on_a_slow_network_asks_once(chat, slow):
    chat.fill(BOX, QUESTION)
    chat.dblclick("#enviar")
    chat.press(BOX, "Enter")
    assert slow.wait()["messages"] == [{"role": "user", "content": QUESTION}]
    chat.wait_for_timeout(50)
    assert len(slow) == 1
    slow.let()
    wait_for_end(chat, 2)
    slow.hold()
    chat.dblclick("#responder-de-novo")
    assert slow.wait()["messages"] == [{"role": "user", "content": QUESTION}]
    chat.wait_for_timeout(50)
    assert len(slow) == 1
    slow.let()
    wait_for_end(chat, 2)


def test_a_new_conversation_during_an_answer_hears_nothing_of_the_old_one(chat, paused, page):
    begin(chat)
    chat.click("#nova-conversa")
    assert not bubbles(chat)
    send(chat, "Bom dia.")
    paused.set()
    messages = wait_for_end(chat, 2)
    assert messages == ["Bom dia.", answer_of(page, [("user", "Bom dia.")])]


def test_stop_before_the_server_has_answered_returns_the_question_to_the_box(chat, slow):
    chat.fill(BOX, QUESTION)
    chat.evaluate("['enviar', 'parar-resposta'].forEach((id) => document.getElementById(id).click())")
    assert chat.input_value(BOX) == QUESTION and not bubbles(chat)
    send(chat)
    slow.wait()
    chat.click("#parar-resposta")
    slow.let()
    assert chat.input_value(BOX) == QUESTION and not bubbles(chat)
    assert chat.inner_text(STATUS) == "Parado."


def test_a_message_too_long_is_refused_in_portuguese_and_comes_back_to_the_box(chat):
    long = "casa amarela " * 1500
    send(chat, long)
    chat.wait_for_selector(f"{STATUS}.erro")
    assert "contexto do modelo" in chat.inner_text(STATUS)
    assert chat.input_value(BOX) == long.strip() and not bubbles(chat)


def test_a_connection_that_breaks_is_said_and_the_question_comes_back(chat, phone):
    chat.context.route("**/stream/*", lambda route: route.abort())
    send(chat)
    chat.wait_for_selector(f"{STATUS}.erro")
    assert chat.inner_text(STATUS).startswith("A conexão com o servidor caiu")
    assert chat.input_value(BOX) == QUESTION and not bubbles(chat)
    phone[1].errors.clear()  # Chromium's own


def test_markup_is_shown_and_not_run(chat):
    hostile = '<img src=x onerror="alert(1)"><script>alert(2)</script> **a** $$x$$'
    send(chat, hostile)
    assert wait_for_end(chat, 2)[0] == hostile


def test_the_tab_fits_a_phone_and_every_control_has_a_name(chat):
    unnamed = chat.evaluate("""
        [...document.querySelectorAll('button, input, textarea')]
          .filter(e => e.offsetParent && !e.getAttribute('aria-label') && !e.innerText && !e.title)
          .filter(e => !e.labels?.length)
          .map(e => e.outerHTML.slice(0, 120))""")
    assert not unnamed
    assert chat.evaluate("document.documentElement.scrollWidth") == 390
