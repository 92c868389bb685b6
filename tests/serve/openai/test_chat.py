"""/v1/chat/completions with the real client, and what a model without a template answers."""

from __future__ import annotations

import json
import logging

import openai
import pydantic
import pytest

from ptbr_slm.runtime.prompt import CHAT_SAMPLING, ChatPrompt

MESSAGES = [{"role": "system", "content": "Responda."}, {"role": "user", "content": "Qual é a capital?"}]
GREEDY = {"model": "conversa", "temperature": 0.0, "max_completion_tokens": 12}


@pytest.fixture
def model(server):
    return server.models["conversa"]


def chat(client, messages=MESSAGES, extra=None, **options):
    return client.chat.completions.create(messages=messages, extra_body=extra, **(GREEDY | options))


def refused(client, param, messages=MESSAGES, **options):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, messages, **options)
    assert caught.value.param == param, caught.value
    return caught.value


def test_an_answer_has_every_field_that_the_client_knows(client, model):
    answer = chat(client)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint == "fp_conversa" and answer.model == "conversa"
    (choice,) = answer.choices
    expected = model.chat_detailed(MESSAGES, temperature=0.0, max_new_tokens=12)
    assert choice.message.role == "assistant" and choice.message.content == expected.text
    assert choice.message.refusal is None and choice.message.tool_calls is None
    assert choice.finish_reason == "length" and choice.logprobs is None
    assert answer.usage.prompt_tokens == expected.prompt_tokens and answer.usage.completion_tokens == 12


def test_a_model_without_a_template_says_so_and_what_to_use(client):
    error = refused(client, "model", model="base")
    assert error.code == "chat_template_missing" and "/v1/completions" in error.message


def test_content_may_be_parts_of_text_and_nothing_else(client):
    text = chat(client).choices[0].message.content
    parts = [{"role": "user", "content": [{"type": "text", "text": "Qual é a capital?"}]}]
    assert chat(client, [MESSAGES[0], *parts]).choices[0].message.content == text
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    error = refused(client, "messages[1]", [MESSAGES[0], {"role": "user", "content": image}])
    assert error.code == "invalid_messages"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "user"}], "messages[0]"),
        ([{"role": "dono", "content": "x"}], "messages[0]"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "messages[1]"),
    ],
)
def test_messages_that_are_none_are_refused(client, messages, param):
    assert refused(client, param, messages).status_code == 400


def test_a_content_that_is_no_text_is_refused_where_it_stands(http):
    asked = {"model": "conversa", "messages": [{"role": "user", "content": 7}]}
    answer = http.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("messages.0.content")


def test_what_the_body_leaves_out_is_as_in_every_answer_of_ours(client, model):
    answer = client.chat.completions.create(model="conversa", messages=MESSAGES, seed=5, max_tokens=20)
    expected = model.generate([ChatPrompt(MESSAGES)], **(CHAT_SAMPLING | {"seed": 5, "max_new_tokens": 20}))
    assert answer.choices[0].message.content == expected[0]


def test_max_completion_tokens_wins_and_without_either_the_context_is_the_limit(client):
    assert chat(client, max_completion_tokens=3, max_tokens=9).usage.completion_tokens == 3
    free = client.chat.completions.create(
        model="conversa", messages=MESSAGES, temperature=0, extra_body={"ignore_eos": True}
    )
    assert free.usage.total_tokens == 256 and free.choices[0].finish_reason == "length"


def test_the_token_that_ends_a_turn_ends_the_answer(client, model):
    end = str(model.engine.tokenizer.token_id("<|im_end|>"))
    choice = chat(client, logit_bias={end: 100}).choices[0]
    assert choice.finish_reason == "stop" and choice.message.content == ""


# A conversation that does not fit

LONG = [
    message
    for number in range(30)
    for message in (
        {"role": "user", "content": f"Pergunta {number}: onde fica o rio?"},
        {"role": "assistant", "content": "O rio fica entre as pedras."},
    )
]


def test_a_conversation_that_does_not_fit_is_refused_with_both_counts(client, model):
    error = refused(client, "messages", [*LONG, MESSAGES[1]])
    assert error.code == "context_length_exceeded"
    assert error.body["n_prompt_tokens"] > error.body["n_ctx"] == 256


def test_its_oldest_exchanges_are_left_out_where_asked_and_that_is_told(client):
    answer = chat(client, [*LONG, MESSAGES[1]], extra={"truncation": "auto"})
    dropped = answer.choices[0].dropped_messages
    assert dropped > 0 and dropped % 2 == 0 and answer.usage.prompt_tokens < 256
    assert not hasattr(chat(client, extra={"truncation": "auto"}).choices[0], "dropped_messages")
    *_, last = chat(client, [*LONG, MESSAGES[1]], extra={"truncation": "auto"}, stream=True)
    assert last.choices[0].dropped_messages == dropped


# Tools


def test_tools_that_are_none_are_accepted(client):
    text = chat(client).choices[0].message.content
    for extra in (
        {"tools": [], "tool_choice": None},
        {"tool_choice": "none"},
        {"tools": None, "functions": []},
    ):
        assert chat(client, extra=extra).choices[0].message.content == text


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tools": [{"type": "de_2027", "nada": 1}]}, "tools"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_tools_are_refused_in_a_code_of_their_own(client, extra, param):
    assert refused(client, param, extra=extra).code == "tools_not_supported"


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"modalities": ["text", "audio"]}, "modalities"), ({"audio": {"voice": "a"}}, "audio"),
        ({"echo": True}, "echo"), ({"continue_final_message": True}, "continue_final_message"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"), ({"web_search_options": {}}, "web_search_options"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"), ({"logprobs": 3}, "logprobs"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(client, extra, param):
    refused(client, param, extra=extra)


# Forms


def test_the_three_forms_of_an_answer(client):
    long = {"max_completion_tokens": 120, "temperature": 0.8, "seed": 3}
    assert chat(client, response_format={"type": "text"}).choices[0].message.content
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    named = {"type": "json_schema", "json_schema": {"name": "r", "schema": schema, "strict": False}}
    found = chat(client, response_format=named, **long).choices[0]
    assert isinstance(json.loads(found.message.content)["a"], bool)
    anything = chat(client, response_format={"type": "json_object"}, **long).choices[0]
    assert anything.message.content.startswith("{")
    assert anything.finish_reason == "length" or isinstance(json.loads(anything.message.content), dict)
    bad = {"type": "json_schema", "json_schema": {"name": "com espaço", "schema": schema}}
    error = refused(client, "response_format.json_schema.json_schema.name", response_format=bad)
    assert error.code == "invalid_value"


class Pessoa(pydantic.BaseModel):
    """What `parse` reads."""

    nome: str = pydantic.Field(max_length=5)
    viva: bool


def test_the_client_s_parse_gives_an_object(client):
    asked = {"model": "conversa", "messages": MESSAGES, "seed": 1}
    done = client.chat.completions.parse(response_format=Pessoa, max_completion_tokens=100, **asked)
    assert isinstance(done.choices[0].message.parsed, Pessoa)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(response_format=Pessoa, max_completion_tokens=3, **asked)


def test_a_model_that_has_not_learnt_to_answer_is_told_once_in_the_log(client, model, monkeypatch, caplog):
    monkeypatch.setitem(model.__dict__, "is_tuned", False)
    with caplog.at_level(logging.WARNING, "ptbr_slm.serve"):
        first, second = chat(client), chat(client)
    assert first.choices[0].message == second.choices[0].message
    told = [
        record.getMessage() for record in caplog.records if "treinado para conversar" in record.getMessage()
    ]
    assert len(told) == 1 and MESSAGES[1]["content"] not in told[0]
