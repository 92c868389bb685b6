"""A client that leaves frees what it had within one token, wherever it leaves."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest
from serving import Served, serving, until

from ptbr_slm.runtime.batch import BatchLimits
from ptbr_slm.runtime.model import Model

ASKED = {"model": "base", "prompt": "O rio corre devagar", "temperature": 0, "max_tokens": 400}


@pytest.fixture
def toy(gated):
    with Model.over(gated, Path(__file__)) as model, serving({"base": model}) as served:
        yield served
        gated.open()


def send(server: Served, body) -> socket.socket:
    """A request whose answer nobody has read yet."""
    content = json.dumps(body).encode()
    head = ["POST /v1/completions HTTP/1.1", "host: x", "content-type: application/json"]
    lines = "\r\n".join([*head, f"content-length: {len(content)}", "", ""])
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(lines.encode() + content)
    return connection


def leave(server: Served, connection: socket.socket) -> None:
    """Close, and wait until the server's loop knows it."""
    connection.close()
    until(lambda: not server.connections)
    httpx2.get(f"{server.url}/v1/models")  # the loop has gone round since: whoever waited for it was told


@pytest.mark.parametrize("streamed", [True, False])
def test_a_text_whose_client_leaves_ends_within_one_token(toy, gated, streamed):
    connection = send(toy, ASKED | {"stream": streamed})
    gated.allow(6)
    gated.wait_for(7)  # the seventh run waits
    leave(toy, connection)
    gated.open()
    until(lambda: not toy.requests)
    assert len(gated.runs) <= 8
    assert httpx2.post(f"{toy.url}/v1/completions", json=ASKED | {"max_tokens": 3}).status_code == 200


def test_a_prompt_whose_client_leaves_is_not_read_to_its_end(toy, gated):
    connection = send(toy, ASKED | {"prompt": [7] * 500, "max_tokens": 4})
    gated.wait_for(1)
    leave(toy, connection)
    gated.open()
    until(lambda: not toy.requests)
    assert [what for what, _ in gated.runs] == ["prefill"]


def test_a_queued_request_whose_client_leaves_never_starts(gated):
    limits = BatchLimits(slots=1)
    with Model.over(gated, Path(__file__), limits=limits) as model, serving({"base": model}) as server:
        running = send(server, ASKED | {"max_tokens": 5})
        gated.wait_for(1)
        queued = send(server, ASKED | {"prompt": [9] * 40})
        until(lambda: model.load_figures().waiting == 1)
        queued.close()
        until(lambda: server.connections == 1)
        httpx2.get(f"{server.url}/v1/models")
        gated.open()
        until(lambda: not server.requests)
        running.close()
    assert ("prefill", 40) not in gated.runs


def test_a_hundred_clients_that_give_up_leave_no_slot_taken(toy, gated):
    gated.pace_s = 0.005
    gated.open()
    impatient = openai.OpenAI(base_url=f"{toy.url}/v1", api_key="-", max_retries=0, timeout=0.1)

    def give_up(number):
        with pytest.raises(openai.APITimeoutError):
            impatient.completions.create(
                model="base", prompt=f"{number} rios", max_tokens=480, extra_body={"ignore_eos": True}
            )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(give_up, range(100)))
    until(lambda: not toy.requests)
    until(lambda: not (toy.model.load_figures().running or toy.model.load_figures().waiting))
    answer = httpx2.post(f"{toy.url}/v1/completions", json=ASKED | {"max_tokens": 4}, timeout=60)
    assert answer.json()["usage"]["completion_tokens"] == 4
