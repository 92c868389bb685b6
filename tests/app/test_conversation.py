"""The Conversa tab without a browser: what the server stores, and that it writes what `Model.chat` writes."""

from __future__ import annotations

import asyncio
import warnings
from itertools import pairwise
from types import ModuleType

import pytest

from ptbr_slm.app.conversation import (
    MAX_CHARACTERS,
    NOTHING_WRITTEN,
    Dialogue,
    begin,
    begin_again,
    has_template,
    settle,
    start_anew,
    stop_answer,
)
from ptbr_slm.app.figures import READING, READY
from ptbr_slm.app.page import build_demo
from ptbr_slm.app.writer import Writer
from ptbr_slm.chat import Message
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model

VALUES = (20, 0.7, 0.9, 0, 1.0)  # max_new_tokens, temperature, top_p, top_k, repetition_penalty
NAMES = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty")


def answers(model: Model, messages: list[Message], *values: object) -> list[tuple[str, str]]:
    """All that the page shows of one answer."""

    async def read() -> list[tuple[str, str]]:
        return [shown async for shown in Writer(model).answer(messages, *values)]

    return asyncio.run(read())


def asked(text: str = "Oi", dialogue: Dialogue | None = None) -> Dialogue:
    found = begin(text, dialogue or Dialogue())[2]
    assert isinstance(found, Dialogue)
    return found


def test_the_page_writes_the_text_of_model_chat_for_the_same_seed(model_folder):
    with Model(model_folder) as model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dialogue = Dialogue().asking("Quem abriu a janela?").answered("Maria.").asking("E depois, São João?")
        for system in ("", "Responda em uma frase."):
            shown = [text for text, _ in answers(model, dialogue.prompt(system), *VALUES, "7")]
            head = [{"role": "system", "content": system}] if system else []
            said = [
                *head,
                {"role": "user", "content": "Quem abriu a janela?"},
                {"role": "assistant", "content": "Maria."},
                {"role": "user", "content": "E depois, São João?"},
            ]
            assert shown[-1] == model.chat(said, seed=7, **dict(zip(NAMES, VALUES, strict=True)))
            assert all(later.startswith(earlier) for earlier, later in pairwise(shown))


def test_the_status_says_how_the_answer_ended_and_what_was_left_out(model_folder):
    with Model(model_folder) as model:
        said = [Message("user", "casa amarela " * 300), Message("assistant", "Sim.")] * 3
        *_, (_, line) = answers(model, [*said, Message("user", "Oi")], *VALUES, 1)
        assert "mensagens antigas fora do contexto" in line and "semente 1" in line
        with pytest.raises(SlmError, match="contexto do modelo"):
            answers(model, [Message("user", "casa amarela " * 3000)], *VALUES, 1)


def test_a_question_and_its_answer_become_part_of_the_conversation(gradio: ModuleType):
    dialogue = asked("  Oi, <b>tudo</b>?\n")
    assert dialogue.prompt(" ") == [Message("user", "Oi, <b>tudo</b>?")]
    assert dialogue.shown("Si") == [
        {"role": "user", "content": "Oi, &lt;b&gt;tudo&lt;/b&gt;?"},
        {"role": "assistant", "content": "Si"},
    ]
    shown, box, after, status, *_ = settle(dialogue, (dialogue.turn, "Sim."), "9 tokens", "rascunho")
    assert shown[1]["content"] == "Sim." and status == gradio.skip()
    assert box == gradio.skip()  # what is typed meanwhile is not overwritten
    assert after.messages == (Message("user", "Oi, <b>tudo</b>?"), Message("assistant", "Sim."))
    again = begin_again(after)[2]
    assert (again.question, again.messages) == ("Oi, <b>tudo</b>?", ())
    assert start_anew(after)[2].messages == ()


def test_settling_twice_or_with_a_piece_of_an_earlier_answer_changes_nothing(gradio: ModuleType):
    first = asked()
    done = settle(first, (first.turn, "Sim."), "x", "")[2]
    assert settle(done, (first.turn, "Sim."), "x", "") == (gradio.skip(),) * 8
    second = asked("E agora?", done)
    _, box, left, status, *_ = settle(second, (first.turn, "Sim."), READING, "")
    assert (box, left.messages, status) == ("E agora?", done.messages, READY)


def test_a_question_without_an_answer_goes_back_to_the_box(gradio: ModuleType):
    dialogue = asked("Oi")
    _, box, after, status, *_ = settle(dialogue, (dialogue.turn, ""), "1 token · fim da resposta", "")
    assert (box, after.messages, status) == ("Oi", (), NOTHING_WRITTEN)
    assert settle(dialogue, (0, ""), READING, "outro")[1] == gradio.skip()
    _, _, halted, status, *_ = stop_answer(dialogue, (dialogue.turn, "Sim"), "3 tokens", "")
    assert halted.messages[1].content == "Sim" and status == "3 tokens · parado"


def test_nothing_begins_while_an_answer_comes_or_without_a_message(gradio: ModuleType):
    busy, unchanged = asked(), (gradio.skip(),) * 8
    assert begin("outra", busy) == begin_again(busy) == start_anew(busy) == unchanged
    assert begin("  \n", Dialogue()) == begin(None, Dialogue()) == begin_again(Dialogue()) == unchanged
    *same, send, stop, again, new = stop_answer(Dialogue(), (0, ""), READY, "")
    assert same == [gradio.skip()] * 4
    assert [button.interactive for button in (send, stop, again, new)] == [True, False, False, False]


def test_what_a_visitor_can_make_the_server_keep_is_bounded(gradio: ModuleType):
    dialogue = Dialogue()
    for _ in range(5):
        dialogue = asked("a" * (MAX_CHARACTERS // 3), dialogue).answered("b" * 10)
    assert sum(len(message.content) for message in dialogue.messages) <= MAX_CHARACTERS
    assert dialogue.messages[0].role == "user"


def test_a_model_without_a_template_has_no_tab(gradio: ModuleType, model_folder, tmp_path):
    bare = tmp_path / "sem"
    bare.mkdir()
    for file in model_folder.iterdir():
        if file.name not in ("tokenizer_config.json", "manifest.json"):
            (bare / file.name).symlink_to(file)
    for folder, tabs in ((bare, 0), (model_folder, 2)):
        with Model(folder) as model:
            assert has_template(model) == bool(tabs)
            demo = build_demo(Writer(model))
            assert sum(isinstance(block, gradio.Tab) for block in demo.blocks.values()) == tabs
