"""Conversations as prompts: the template's ids, what is left out where they do not fit, where answers end."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import random_weights, write_model

from ptbr_slm.chat import Message
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import (
    CHAT_SAMPLING,
    ChatPrompt,
    TokenPrompt,
    UntunedModelWarning,
    fit_conversation,
)
from ptbr_slm.storage.model_folder import ModelFolder

QUESTION = [{"role": "user", "content": "Quem abriu a janela?"}]
SHORT = {"max_new_tokens": 6, "seed": 5}
SYSTEM = Message("system", "Responda em uma frase.")


@pytest.fixture(scope="module")
def tuned_folder(model_folder, tokenizer, tmp_path_factory) -> Path:
    """A model that names the end of a turn among the ends of a text."""
    config = ModelFolder(model_folder).config
    end = tokenizer.token_id("<|im_end|>")
    folder = tmp_path_factory.mktemp("chat") / "modelo"
    config = replace(config, eos_token_ids=(*config.eos_token_ids, end))
    return write_model(folder, config, tokenizer, random_weights(config, 7, scale=6))


@pytest.fixture(scope="module")
def model(tuned_folder):
    with Model(tuned_folder) as opened:
        yield opened


def exchanges(count: int, words: int = 3) -> list[Message]:
    """User and assistant in turn, then a last question."""
    said = [
        Message(role, f"{role} {number} " + "rio " * words)
        for number in range(count)
        for role in ("user", "assistant")
    ]
    return [*said, Message("user", "E agora?")]


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_an_answer_continues_the_ids_of_the_template(tuned_folder, export_folder, kind):
    with Model(tuned_folder if kind == "torch" else export_folder) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore", UntunedModelWarning)
        ids = opened.chat_format.prompt([SYSTEM, Message("user", "Olá")])
        messages = [{"role": "system", "content": SYSTEM.content}, Message("user", "Olá")]
        answer = opened.chat_detailed(messages, **SHORT)
        expected = opened.generate_detailed(TokenPrompt(tuple(ids)), **{**CHAT_SAMPLING, **SHORT})
    assert (answer.text, answer.tokens) == (expected.text, expected.tokens)
    assert (answer.prompt_tokens, answer.dropped_messages) == (len(ids), 0)


def test_text_figures_and_chunks_are_of_one_answer(model):
    result = model.chat_detailed(QUESTION, **SHORT)
    chunks = list(model.chat_stream(QUESTION, **SHORT))
    assert model.chat(QUESTION, **SHORT) == result.text == "".join(chunk.text for chunk in chunks)
    assert chunks[-1].result is not None and chunks[-1].result.tokens == result.tokens
    two = model.generate([ChatPrompt(QUESTION), ChatPrompt(QUESTION)], **{**CHAT_SAMPLING, **SHORT})
    assert len(two) == 2 and two[0] == result.text


def test_an_answer_ends_with_its_turn_even_where_the_model_does_not_name_that_end(model_folder, tokenizer):
    end = tokenizer.token_id("<|im_end|>")
    with Model(model_folder) as opened:
        assert end not in opened.engine.config.eos_token_ids
        options = {**SHORT, "logit_bias": {end: 100.0}, "temperature": 0.0}
        with pytest.warns(UntunedModelWarning):
            answer = opened.chat_detailed(QUESTION, **options)
        assert (answer.finish_reason, answer.tokens, answer.text) == ("eos", (end,), "")
        ids = tuple(opened.chat_format.prompt([Message("user", "Quem abriu a janela?")]))
        assert opened.generate_detailed(TokenPrompt(ids), **options).finish_reason == "length"


def test_a_form_is_followed_in_an_answer_and_its_turn_ends(model, tokenizer):
    pytest.importorskip("llguidance", reason="constrained output: pip install 'ptbr-slm[constrain]'")
    answer = model.chat_detailed(QUESTION, regex="(sim|não)", seed=1, max_new_tokens=20)
    assert answer.finish_reason == "eos" and answer.text in ("sim", "não")


def test_a_model_that_is_not_tuned_answers_with_one_warning(model_folder, model):
    with Model(model_folder) as opened:
        assert not opened.is_tuned
        with pytest.warns(UntunedModelWarning, match="ptbr-slm tune") as caught:
            opened.chat(QUESTION, **SHORT)
            list(opened.chat_stream(QUESTION, **SHORT))
        assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.is_tuned and model.chat(QUESTION, **SHORT)


def test_a_model_without_a_template_says_what_to_do(model_folder, tmp_path):
    folder = tmp_path / "sem"
    folder.mkdir()
    for file in model_folder.iterdir():
        if file.name not in ("tokenizer_config.json", "manifest.json"):
            (folder / file.name).symlink_to(file)
    with Model(folder) as opened:
        with pytest.raises(SlmError, match="chat template") as caught:
            opened.chat(QUESTION)
        assert caught.value.code == "E_CHAT_TEMPLATE" and "ptbr-slm tune" in caught.value.hint
        assert opened.generate("O rio", max_new_tokens=2, seed=1)


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([], "E_MESSAGES"),
        ([{"role": "user"}], "E_MESSAGES"),
        ([{"role": "robô", "content": "x"}], "E_MESSAGES"),
        ([*QUESTION, {"role": "assistant", "content": "Maria."}], "E_MESSAGES"),
        ([{"role": "system", "content": "Só isto."}], "E_MESSAGES"),
        ([{"role": "user", "content": "palavra " * 900}], "E_PROMPT_TOO_LONG"),
        ([{"role": "system", "content": "palavra " * 900}, *QUESTION], "E_PROMPT_TOO_LONG"),
    ],
)
def test_a_conversation_that_cannot_be_answered_is_refused_before_anything_runs(model, messages, code):
    with pytest.raises(SlmError) as caught:
        model.chat_stream(messages)
    assert caught.value.code == code and caught.value.hint


def test_a_long_conversation_loses_its_oldest_exchanges_and_keeps_the_system(model):
    said = exchanges(40)
    result = model.chat_detailed([SYSTEM, *said], **SHORT)
    dropped = result.dropped_messages
    assert 0 < dropped < len(said) and dropped % 2 == 0
    kept = model.chat_format.prompt([SYSTEM, *said[dropped:]])
    longer = model.chat_format.prompt([SYSTEM, *said[dropped - 2 :]])
    context = model.engine.config.max_seq_len
    assert result.prompt_tokens == len(kept) <= context - 6 < len(longer)
    assert result.text == model.chat([SYSTEM, *said[dropped:]], **SHORT)
    assert model.chat_detailed([SYSTEM, *said[dropped:]], **SHORT).dropped_messages == 0


def test_a_conversation_that_must_stay_whole_is_read_whole_or_refused(model):
    with pytest.raises(SlmError, match="a conversa tem") as caught:
        model.generate(ChatPrompt([SYSTEM, *exchanges(40)], whole=True), **SHORT)
    assert caught.value.code == "E_PROMPT_TOO_LONG"
    said = [SYSTEM, *exchanges(3)]
    found = model.generate_detailed(ChatPrompt(said, whole=True), **SHORT)
    assert found.prompt_tokens == len(model.chat_format.prompt(said)) and not found.dropped_messages


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), max_size=12),
    system=st.integers(0, 2),
    context=st.integers(100, 400),
    most=st.integers(1, 400),
)
def test_as_few_exchanges_as_need_be_are_left_out(model, lengths, system, context, most):
    said = [
        Message(role, "café " * length) for length in lengths for role in ("user", "assistant")
    ] + [Message("user", "E agora?")]  # fmt: skip
    head = [SYSTEM] * system
    room = context - min(most, context // 4)
    lengths_from = {
        start: len(model.chat_format.prompt([*head, *said[start:]])) for start in range(0, len(said), 2)
    }
    fitting = [start for start, length in lengths_from.items() if length <= room]
    state = fit_conversation(model.chat_format, [*head, *said], context, most)
    assert state.dropped_messages == min(fitting, default=len(said) - 1)
    assert len(state.ids) == lengths_from[state.dropped_messages] < context


def test_what_is_far_too_long_is_refused_without_being_encoded(model):
    started = time.monotonic()
    with pytest.raises(SlmError, match="caracteres"):
        model.chat([{"role": "user", "content": "a" * 50_000_000}])
    long_ago = [Message("user", "a" * 20_000_000), Message("assistant", "b")]
    assert model.chat_detailed([*long_ago, Message("user", "Oi")], **SHORT).dropped_messages == 2
    assert time.monotonic() - started < 3


def test_chat_never_penalises_the_words_of_the_question_much():
    assert CHAT_SAMPLING["repetition_penalty"] <= 1.1
