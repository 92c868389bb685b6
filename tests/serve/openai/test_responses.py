"""/v1/responses, asked by the real client: one object, its events, what it refuses."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter
from serving import serving
from toy_engine import ToyEngine

from ptbr_slm.runtime.model import Model

ASKED: dict[str, Any] = {"model": "conversa", "input": "Quem abriu a janela?", "temperature": 0.0}
SHORT: dict[str, Any] = {**ASKED, "max_output_tokens": 12}
BEGIN = [
    "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
]  # fmt: skip
END = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]


def events_of(client: openai.OpenAI, **asked: Any) -> list[ResponseStreamEvent]:
    return list(client.responses.create(**{**SHORT, **asked}, stream=True))


def test_an_answer_has_every_field_that_the_client_types(client, http):
    raw = http.post("/v1/responses", json=SHORT)
    assert raw.status_code == 200
    body = raw.json()
    answer = Response.model_validate(body)
    assert not answer.model_extra or set(answer.model_extra) <= {"store"}
    assert answer.id.startswith("resp_") and answer.object == "response" and answer.model == "conversa"
    (item,) = answer.output
    assert item.type == "message" and item.role == "assistant" and item.id.startswith("msg_")
    assert body["store"] is False and body["previous_response_id"] is None
    usage = answer.usage
    assert usage is not None and usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.output_tokens <= 12 and usage.output_tokens_details.reasoning_tokens == 0


def test_an_answer_is_the_text_of_the_chat_route(client):
    instructions = "Responda em uma frase."
    answer = client.responses.create(**SHORT, instructions=instructions)
    messages = [
        {"role": "system", "content": instructions}, {"role": "user", "content": ASKED["input"]},
    ]  # fmt: skip
    chat = client.chat.completions.create(
        model="conversa", messages=messages, temperature=0.0, max_completion_tokens=12
    )
    assert answer.output_text == chat.choices[0].message.content
    assert answer.usage is not None and chat.usage is not None
    assert answer.usage.input_tokens == chat.usage.prompt_tokens


def test_a_stream_is_the_same_answer_in_the_order_that_clients_want(client):
    whole = client.responses.create(**SHORT)
    events = events_of(client)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = kinds[len(BEGIN) : -len(END) - 1]
    assert kinds == [*BEGIN, *deltas, *END, f"response.{whole.status}"]
    assert set(deltas) == {"response.output_text.delta"}
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == (
        whole.output_text
    )
    last = events[-1].response
    assert last.output_text == whole.output_text and last.usage is not None and whole.usage is not None
    assert last.usage.output_tokens == whole.usage.output_tokens
    assert {event.response.id for event in events if hasattr(event, "response")} == {last.id}
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {last.output[0].id}
    typed = TypeAdapter(ResponseStreamEvent)
    for event in events:
        typed.validate_python(event.to_dict())


def test_each_event_is_named_twice_and_nothing_follows_the_last(http):
    with http.stream("POST", "/v1/responses", json={**SHORT, "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks = answer.read().decode().split("\n\n")
    assert blocks.pop() == ""
    for block in blocks:
        name, data = block.split("\n")
        assert name.removeprefix("event: ") == json.loads(data.removeprefix("data: "))["type"]


def test_an_answer_cut_short_is_incomplete_and_says_why(client):
    asked = {**ASKED, "max_output_tokens": 1}
    answer = client.responses.create(**asked)
    assert answer.status == "incomplete" and answer.output[0].status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert events_of(client, max_output_tokens=1)[-1].type == "response.incomplete"


class Weather(BaseModel):
    sky: Literal["limpo", "nublado"]
    rain: bool


def test_parse_gives_an_object_of_the_schema_whole_and_streamed(client):
    pytest.importorskip("llguidance", reason="constrained output: pip install 'ptbr-slm[constrain]'")
    asked = {**ASKED, "max_output_tokens": 80}
    answer = client.responses.parse(**asked, text_format=Weather)
    assert isinstance(answer.output_parsed, Weather) and answer.status == "completed"
    assert answer.text is not None and answer.text.format is not None
    assert answer.text.format.type == "json_schema"
    with client.responses.stream(**asked, text_format=Weather) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == answer.output_parsed
    loose = client.responses.create(**asked, text={"format": {"type": "text"}})
    assert loose.output_text != answer.output_text


def test_the_asynchronous_client_reads_the_same_stream(server, client):
    async def read() -> str:
        async with (
            openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as asynchronous,
            asynchronous.responses.stream(**SHORT) as stream,
        ):
            return "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])

    assert asyncio.run(read()) == client.responses.create(**SHORT).output_text


def test_an_answer_given_back_makes_the_next_turn_whatever_the_form_of_its_items(client):
    first = client.responses.create(**SHORT)
    question = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "E a porta?"}]}
    developer = {"role": "developer", "content": "Seja breve."}
    turns = [developer, {"role": "user", "content": ASKED["input"]}, *first.to_dict()["output"], question]
    again = client.responses.create(**{**SHORT, "input": turns})
    plain = [
        {"role": "system", "content": "Seja breve."},
        {"role": "user", "content": ASKED["input"]},
        {"role": "assistant", "content": first.output_text},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "user", "content": "E a porta?"},
    ]
    same = client.responses.create(**{**SHORT, "input": plain})
    assert again.output_text == same.output_text
    assert again.usage is not None and same.usage is not None
    assert again.usage.input_tokens == same.usage.input_tokens
    assert same.usage.input_tokens_details.cached_tokens > 0


def test_what_clients_send_unasked_is_ignored(client):
    unasked = {
        "store": True, "include": ["reasoning.encrypted_content"], "reasoning": {"effort": "low"},
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "prompt_cache_key": "a",
        "service_tier": "auto", "user": "u", "client_metadata": {"a": "b"}, "text": {"verbosity": "low"},
    }  # fmt: skip
    answer = client.responses.create(**SHORT, metadata={"a": "b"}, extra_body=unasked)
    assert answer.output_text == client.responses.create(**SHORT).output_text
    assert answer.metadata == {"a": "b"}


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"previous_response_id": "resp_1"}, "unsupported_parameter", "previous_response_id"),
    ({"conversation": "conv_1"}, "unsupported_parameter", "conversation"),
    ({"prompt": {"id": "p"}}, "unsupported_parameter", "prompt"),
    ({"background": True}, "unsupported_parameter", "background"),
    ({"moderation": {"model": "m"}}, "unsupported_parameter", "moderation"),
    ({"context_management": [{"type": "compaction"}]}, "unsupported_parameter", "context_management"),
    ({"top_logprobs": 2}, "unsupported_parameter", "top_logprobs"),
    ({"tools": [{"type": "web_search"}]}, "tools_not_supported", "tools"),
    ({"tool_choice": "required"}, "tools_not_supported", "tool_choice"),
    ({"input": [{"type": "function_call_output"}]}, "tools_not_supported", "input[0].type"),
    ({"input": [{"type": "item_reference", "id": "a"}]}, "unsupported_parameter", "input[0].type"),
    ({"input": [{"role": "robô", "content": "x"}]}, "invalid_value", "input[0].role"),
    ({"input": [{"role": "user"}]}, "invalid_value", "input[0].content"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "unsupported_parameter",
        "input[0].content",
    ),
    ({"input": [{"role": "assistant", "content": "Oi"}]}, "invalid_messages", "messages[0]"),
    ({"model": "base"}, "chat_template_missing", "model"),
]


@pytest.mark.parametrize(("asked", "code", "param"), REFUSED, ids=[code for _, code, _ in REFUSED])
def test_what_cannot_be_done_is_refused_by_name_before_anything_runs(client, asked, code, param):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(**{**SHORT, **asked}, stream=stream)
        assert (caught.value.code, caught.value.param) == (code, param)


def test_a_conversation_that_does_not_fit_is_refused_unless_its_beginning_may_be_left_out(client, server):
    said = [{"role": role, "content": "rio " * 9} for _ in range(40) for role in ("user", "assistant")]
    asked = {**SHORT, "input": [*said, {"role": "user", "content": "E agora?"}]}
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**asked)
    body = caught.value.body
    assert caught.value.code == "context_length_exceeded" and isinstance(body, dict)
    assert body["n_prompt_tokens"] > body["n_ctx"] == server.models["conversa"].engine.config.max_seq_len
    answer = client.responses.create(**asked, truncation="auto")
    assert answer.truncation == "auto" and answer.usage is not None
    assert answer.usage.input_tokens < body["n_ctx"]


def test_a_fault_in_the_middle_is_an_event_and_then_an_error_and_never_an_end(tokenizer, exports):
    engine = ToyEngine(tokenizer)

    def fail(what: str, slots: list[int]) -> None:
        if sum(kind == "decode" for kind, _ in engine.runs) > 5:
            raise RuntimeError("segredo")

    engine.fail = fail
    with (
        Model.over(engine, exports["conversa"]) as model,
        serving({"conversa": model}) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as client,
    ):
        read = []
        with pytest.raises(openai.APIError) as caught:
            for event in client.responses.create(**{**SHORT, "max_output_tokens": 50}, stream=True):
                read.append(event)
        assert "segredo" not in str(caught.value) and caught.value.code == "internal_error"
        assert [event.type for event in read[: len(BEGIN)]] == BEGIN
        assert read[-1].type == "response.failed" and read[-1].response.error is not None
        assert read[-1].response.status == "failed"
