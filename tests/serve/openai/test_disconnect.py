"""A client that leaves frees what it had within one token, wherever it leaves."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx2
import pytest
from serving import Served, serving, until

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
