"""Server-sent events: their order, their ends, and what they say when something goes wrong."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest
from serving import events_of, serving, until

from ptbr_slm.runtime.batch import BatchLimits
from ptbr_slm.runtime.model import Model
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.openai import stream

PROMPT = "O rio corre devagar"
ASKED = {"model": "base", "prompt": PROMPT, "temperature": 0, "max_tokens": 12}
CHAT = {
    "model": "conversa",
    "messages": [{"role": "user", "content": "Olá!"}],
    "temperature": 0,
    "max_tokens": 9,
}


def test_a_stream_s_text_is_the_whole_answer_s(http):
    for seed in range(4):
        asked = ASKED | {"temperature": 1, "seed": seed, "max_tokens": 40, "stop": ["a", "de"]}
        whole = http.post("/v1/completions", json=asked).json()
        chunks = events_of(http, "/v1/completions", asked)
        choices = [chunk["choices"][0] for chunk in chunks]
        assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
        reasons = [choice["finish_reason"] for choice in choices]
        assert reasons == [None] * (len(reasons) - 1) + [whole["choices"][0]["finish_reason"]]


@pytest.mark.parametrize(("path", "asked"), [("/v1/completions", ASKED), ("/v1/chat/completions", CHAT)])
def test_one_id_and_one_time_run_through_a_stream_and_usage_comes_last(http, path, asked):
    whole = http.post(path, json=asked).json()
    chunks = events_of(http, path, asked | {"stream_options": {"include_usage": True}})
    for name in ("id", "created", "model", "system_fingerprint", "object"):
        assert len({chunk[name] for chunk in chunks}) == 1
    assert chunks[0]["system_fingerprint"] == whole["system_fingerprint"]
    assert chunks[0]["object"] == ("text_completion" if "prompt" in asked else "chat.completion.chunk")
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == [] and all(len(chunk["choices"]) == 1 for chunk in chunks[:-1])
    cached = {"prompt_tokens_details": chunks[-1]["usage"]["prompt_tokens_details"]}
    assert chunks[-1]["usage"] == whole["usage"] | cached


def test_without_include_usage_no_chunk_has_any(http):
    assert not any("usage" in chunk for chunk in events_of(http, "/v1/completions", ASKED))


def test_continuous_usage_counts_what_came_so_far_and_ends_with_the_whole(http):
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = ASKED | {"prompt": [PROMPT, "Maria"], "n": 2, "stream_options": options, "return_token_ids": True}
    *chunks, last = events_of(http, "/v1/completions", asked)
    come, counted = 0, {}  # texts that come together tell one count, that of them all
    for chunk in chunks:
        come += sum(len(choice["token_ids"]) for choice in chunk["choices"])
        counted[chunk["usage"]["completion_tokens"]] = come
    assert list(counted) == list(counted.values()) == sorted(counted)
    assert last["usage"]["completion_tokens"] == come > 0
    assert len({chunk["usage"]["prompt_tokens"] for chunk in [*chunks, last]}) == 1


def test_stream_options_without_stream_are_refused(http):
    answer = http.post("/v1/completions", json=ASKED | {"stream_options": {"include_usage": True}})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "stream_options"


def test_chat_sends_the_role_first_then_content_then_one_end(http):
    chunks = [chunk["choices"][0] for chunk in events_of(http, "/v1/chat/completions", CHAT)]
    assert chunks[0]["delta"] == {"role": "assistant", "content": ""}
    assert all(set(chunk["delta"]) == {"content"} and chunk["delta"]["content"] for chunk in chunks[1:-1])
    assert chunks[-1]["delta"] == {} and chunks[-1]["finish_reason"] == "length"
    assert all(chunk["finish_reason"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize(("path", "asked"), [("/v1/completions", ASKED), ("/v1/chat/completions", CHAT)])
def test_every_index_of_several_choices_is_whole(http, path, asked):
    several = asked | {"n": 3, "temperature": 1, "seed": 1}
    if "prompt" in asked:
        several["prompt"] = [PROMPT, "Maria abriu a janela"]
    whole = http.post(path, json=several).json()["choices"]
    texts, reasons = dict[int, str](), dict[int, list[str]]()
    for chunk in events_of(http, path, several):
        (choice,) = chunk["choices"]
        said = choice["text"] if "text" in choice else choice["delta"].get("content", "")
        texts[choice["index"]] = texts.get(choice["index"], "") + said
        if choice["finish_reason"]:
            reasons.setdefault(choice["index"], []).append(choice["finish_reason"])
    expected = [choice["text"] if "text" in choice else choice["message"]["content"] for choice in whole]
    assert [texts[index] for index in sorted(texts)] == expected
    assert reasons == {index: [choice["finish_reason"]] for index, choice in enumerate(whole)}


def test_echo_begins_each_choice_with_its_prompt(http):
    asked = ASKED | {"prompt": ["Maria", PROMPT], "echo": True}
    texts = dict[int, str]()
    for chunk in events_of(http, "/v1/completions", asked):
        (choice,) = chunk["choices"]
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    whole = http.post("/v1/completions", json=asked).json()["choices"]
    assert texts == {index: choice["text"] for index, choice in enumerate(whole)}


def test_the_headers_keep_proxies_from_holding_a_stream_back(http):
    with http.stream("POST", "/v1/completions", json=ASKED | {"stream": True}) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store" and answer.headers["x-accel-buffering"] == "no"
        assert answer.read().endswith(b"\n\ndata: [DONE]\n\n")


def test_the_client_reads_what_a_stream_says(client):
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **CHAT))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.completion_tokens == 9 and not chunks[-1].choices


# What goes wrong


@pytest.fixture
def toy(tokenizer, gated):
    """A server over a toy engine that runs a step for each permit."""
    with Model.over(gated, Path(__file__)) as model, serving({"base": model}) as served:
        yield served
        gated.open()


def test_what_goes_wrong_before_the_first_byte_is_a_status(http, toy, gated):
    gated.open()
    gated.fault = MemoryError("não há mais")
    answer = httpx2.post(f"{toy.url}/v1/completions", json=ASKED | {"stream": True})
    assert answer.status_code >= 500 and answer.json()["error"]["message"]
    assert "Traceback" not in answer.text and "não há mais" not in answer.text
    gated.fault = None
    assert events_of(httpx2.Client(base_url=toy.url), "/v1/completions", ASKED)


def test_a_full_queue_is_a_status_for_a_stream_too(gated):
    limits = BatchLimits(slots=1, max_waiting=1)
    with Model.over(gated, Path(__file__), limits=limits) as model, serving({"base": model}) as server:
        with ThreadPoolExecutor(2) as pool:
            whole = [pool.submit(events_of, httpx2.Client(base_url=server.url), "/v1/completions", ASKED)]
            gated.wait_for(1)
            whole += [pool.submit(events_of, httpx2.Client(base_url=server.url), "/v1/completions", ASKED)]
            until(lambda: model.load_figures().waiting == 1)
            answer = httpx2.post(f"{server.url}/v1/completions", json=ASKED | {"stream": True})
            gated.open()
        assert [each.result()[-1]["choices"][0]["finish_reason"] for each in whole] == ["length"] * 2
    assert answer.status_code == 429 and answer.headers["retry-after"]
    assert answer.json()["error"]["code"] == "queue_full"


def test_a_text_that_is_out_of_time_says_so_and_ends_as_one_that_is_too_long(gated):
    gated.pace_s = 0.02
    gated.open()
    config = ServeConfig(timeout_s=0.3)
    with Model.over(gated, Path(__file__)) as model, serving({"base": model}, config) as server:
        asked = ASKED | {"max_tokens": 400, "ignore_eos": True}
        answer = httpx2.post(f"{server.url}/v1/completions", json=asked).json()
        (choice,) = answer["choices"]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "timeout")
        assert 0 < answer["usage"]["completion_tokens"] < 400
        last = events_of(httpx2.Client(base_url=server.url), "/v1/completions", asked)[-1]["choices"][0]
        assert (last["finish_reason"], last["stop_reason"]) == ("length", "timeout")


def test_what_goes_wrong_later_is_an_error_in_the_stream_and_no_clean_end(toy, gated):
    gated.fault, gated.fault_at = RuntimeError("defeito"), 4
    gated.open()
    read = b""
    with (
        pytest.raises(httpx2.RemoteProtocolError),
        httpx2.stream("POST", f"{toy.url}/v1/completions", json=ASKED | {"stream": True}) as answer,
    ):
        for piece in answer.iter_raw():
            read += piece
    last = json.loads(read.split(b"data: ")[-1])
    assert last["error"]["type"] == "server_error" and b"[DONE]" not in read
    with openai.OpenAI(base_url=f"{toy.url}/v1", api_key="-", max_retries=0) as client:
        gated.fault_at = len(gated.runs) + 4
        with pytest.raises(openai.APIError) as caught:
            list(client.completions.create(stream=True, **ASKED))
    assert not isinstance(caught.value, openai.APIConnectionError)


def test_a_stream_whose_server_stops_is_told_so(toy, gated):
    read = b""
    gated.allow(3)
    with (
        pytest.raises(httpx2.RemoteProtocolError),
        httpx2.stream("POST", f"{toy.url}/v1/completions", json=ASKED | {"stream": True}) as answer,
    ):
        for piece in answer.iter_raw():
            if not read:
                closing = threading.Thread(target=toy.model.close)
                closing.start()
                gated.open()
            read += piece
    closing.join(30)
    last = json.loads(read.split(b"data: ")[-1])["error"]
    assert last["code"] == "shutting_down" and "ptbr_slm" not in last["message"] and b"[DONE]" not in read


def test_a_silent_stream_is_kept_alive_by_comments(toy, gated, monkeypatch):
    monkeypatch.setattr(stream, "PING_S", 0.02)
    with httpx2.stream("POST", f"{toy.url}/v1/completions", json=ASKED | {"stream": True}) as answer:
        lines = answer.iter_lines()
        assert answer.status_code == 200 and next(lines) == ": ping"
        gated.open()
        said = [line for line in lines if line.startswith("data: ")]
    assert said[-1] == "data: [DONE]" and json.loads(said[-2][6:])["choices"][0]["finish_reason"] == "length"


def test_chunks_that_came_at_once_go_out_as_one(toy, gated):
    """The loop is held while the engine runs: one event then has many tokens, and nothing is lost."""
    whole = {}

    def ask():
        whole["chunks"] = events_of(httpx2.Client(base_url=toy.url), "/v1/completions", ASKED)

    asking = threading.Thread(target=ask)
    asking.start()
    gated.wait_for(1)
    with toy.holding_the_loop():
        gated.open()
        gated.wait_for(12)
    asking.join(30)
    gated.open()
    text = "".join(chunk["choices"][0]["text"] for chunk in whole["chunks"])
    answer = httpx2.post(f"{toy.url}/v1/completions", json=ASKED).json()
    assert text == answer["choices"][0]["text"] and len(whole["chunks"]) <= 3
