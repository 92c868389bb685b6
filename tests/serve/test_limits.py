"""What a request may cost: sizes, times, forms of a body, headers, and clients that do not read."""

import json
import logging
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from starlette.responses import StreamingResponse
from toy_server import answering

from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.middleware.late_body import MOST_BYTES
from ptbr_slm.serve.middleware.lifecycle import Phase
from ptbr_slm.serve.process.connection import MOST_HEADER_BYTES, GuardedConnection

GOOD = {"model": "toy", "prompt": "O rio", "max_tokens": 2}
JSON = {"content-type": "application/json"}
LIMIT = 4096


@pytest.fixture(scope="module")
def client(new_engine):
    config = ServeConfig(max_body_bytes=LIMIT, body_timeout_s=1.0)
    with answering(new_engine(), config) as toy, httpx.Client(base_url=toy.url, timeout=30) as client:
        yield client


def answer_to(client, body: bytes, headers=JSON):
    answer = client.post("/v1/completions", content=body, headers=headers)
    after = client.post("/v1/completions", json=GOOD)
    assert after.status_code == 200, "the server does not answer normally after an error"
    return answer


def deep(levels: int) -> bytes:
    return b'{"prompt":' + b"[" * levels + b"]" * levels + b"}"


BAD_BODIES = {
    "empty": (b"", "invalid_json"),
    "not JSON": (b"O rio", "invalid_json"),
    "cut short": (b'{"prompt": "O r', "invalid_json"),
    "a list": (b"[1, 2]", "invalid_json"),
    "a string": (b'"O rio"', "invalid_json"),
    "null": (b"null", "invalid_json"),
    "two objects": (b"{}{}", "invalid_json"),
    "invalid UTF-8": (b'{"prompt": "\xff"}', "invalid_utf8"),
    "UTF-16": ('{"prompt": "O rio"}'.encode("utf-16"), "invalid_utf8"),
    "half a character": (b'{"prompt": "\\ud800"}', "invalid_json"),
    "NaN": (b'{"prompt": "a", "temperature": NaN}', "invalid_json"),
    "infinity": (b'{"prompt": "a", "temperature": 1e999}', "invalid_json"),
    "an endless integer": (b'{"prompt": "a", "seed": 1' + b"0" * 4000 + b"}", None),
    "a key twice": (b'{"prompt": "a", "prompt": "b"}', "invalid_json"),
    "a key twice, inside": (b'{"prompt": "a", "logit_bias": {"1": 1, "1": 2}}', "invalid_json"),
    "200 levels": (deep(200), "invalid_json"),
    "2,000 levels": (deep(2000), "invalid_json"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_with_no_one_meaning_is_400_in_openais_form(client, name):
    body, code = BAD_BODIES[name]
    answer = answer_to(client, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert error["code"] == code or code is None
    assert len(answer.content) < 2000


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 415),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "multipart/form-data; boundary=x"}, 415),
        ({"content-type": "application/json; charset=utf-16"}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/json; charset=UTF-8"}, 200),
        ({"content-type": "Application/JSON"}, 200),
        ({"content-type": "application/vnd.api+json"}, 200),
    ],
)
def test_only_plain_json_in_utf_8_is_read(client, headers, status):
    assert answer_to(client, json.dumps(GOOD).encode(), headers).status_code == status


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 10 * LIMIT, LIMIT + MOST_BYTES // 2])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_counted_as_it_comes_whatever_it_declares(client, size, chunked):
    body = json.dumps(GOOD | {"user": ""}).encode()
    body = body.replace(b'"user": ""', b'"user": "' + b"u" * (size - len(body)) + b'"')
    assert len(body) == size
    pieces = (body[start : start + 65536] for start in range(0, size, 65536))
    answer = answer_to(client, pieces if chunked else body)
    assert answer.status_code == (200 if size <= LIMIT else 413)
    if size > LIMIT:
        assert answer.json()["error"]["code"] == "body_too_large"
        assert answer.headers["connection"] == "close"


def speak(client, *pieces: bytes) -> bytes:
    """What the server says to raw bytes, until it closes the connection."""
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=30) as raw:
        with suppress(ConnectionError):  # it may close before it has read all
            for piece in pieces:
                raw.sendall(piece)
        return read_all(raw)


def read_all(raw: socket.socket) -> bytes:
    said = b""
    with suppress(ConnectionError):
        while piece := raw.recv(65536):
            said += piece
    return said


HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def test_a_body_that_does_not_come_is_408_and_the_connection_ends(client):
    said = speak(client, HEAD + b'content-length: 100\r\n\r\n{"prompt":')
    assert said.startswith(b"HTTP/1.1 408 ") and b"connection: close" in said
    assert b'"code":"request_timeout"' in said


def test_a_client_that_waits_for_leave_is_refused_before_it_sends(client):
    said = speak(client, HEAD + b"expect: 100-continue\r\ncontent-length: 9999\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")


def test_headers_that_do_not_end_are_408(client, monkeypatch):
    monkeypatch.setattr(GuardedConnection, "headers_timeout_s", 0.2)
    assert speak(client) == b""
    assert speak(client, HEAD).startswith(b"HTTP/1.1 408 ")


def test_headers_that_do_not_end_between_two_requests_are_408(client, monkeypatch):
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=30) as raw:
        raw.sendall(b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n")
        said = b""
        while not said.endswith(b"pong"):
            said += raw.recv(65536)
        monkeypatch.setattr(GuardedConnection, "headers_timeout_s", 0.2)
        raw.sendall(b"GET /ping HTTP/1.1\r\n")
        assert read_all(raw).startswith(b"HTTP/1.1 408 ")


def test_headers_without_end_are_refused_in_bounded_memory(client):
    said = speak(
        client, HEAD, *[b"x-%d: %s\r\n" % (n, b"y" * 1000) for n in range(4 * MOST_HEADER_BYTES // 1000)]
    )
    assert said == b"" or said.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert client.get("/ping").status_code == 200


@pytest.mark.parametrize("size", [200_000, 4_000_000])
def test_a_refusal_before_the_body_is_read_reaches_a_client_that_writes_first(new_engine, size):
    """401 and 503 come from the headers alone; a reset connection would hide them."""
    with (
        answering(new_engine(), ServeConfig(api_keys=("k",))) as toy,
        httpx.Client(base_url=toy.url) as client,
    ):
        for phase, status in [(Phase.READY, 401), (Phase.LOADING, 503), (Phase.DRAINING, 503)]:
            toy.lifecycle.phase = phase
            for _ in range(10):
                assert client.post("/v1/completions", content=b"x" * size, headers=JSON).status_code == status


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        HEAD
        + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS greeting
        b"GET /ping HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\n\r\n",
    ],
)
def test_an_ambiguous_request_is_answered_once_and_nothing_is_smuggled(client, request_bytes):
    said = speak(client, request_bytes)
    assert said.count(b"HTTP/1.1 ") == 1 and said.startswith(b"HTTP/1.1 400 ")
    assert b"toy" not in said


def test_a_client_that_does_not_read_is_cut_off_and_its_request_ends(engine, caplog):
    """What is sent to it fits in no buffer of the two kernels."""
    caplog.set_level(logging.INFO, "ptbr_slm.serve")
    with answering(engine, ServeConfig(write_timeout_s=0.3)) as toy:

        @toy.app.get("/flood")
        async def flood() -> StreamingResponse:
            async def pieces():
                while True:
                    yield b"x" * 65536

            return StreamingResponse(pieces())

        host, port = toy.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as raw:
            raw.sendall(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
            wait_until(lambda: records(caplog))
            assert records(caplog)[0].error == "client_stalled"
            assert toy.lifecycle.running == 0
            assert httpx.get(f"{toy.url}/ping").status_code == 200
            assert not read_all(raw).endswith(b"0\r\n\r\n"), "it looks like a whole answer"


WITHOUT_HTTPTOOLS = """
import sys
sys.modules["httptools"] = None
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "not httptools", sys.argv[1]]))
"""


@pytest.mark.slow
def test_the_same_holds_where_httptools_is_not_installed(support_environment):
    """`pip install uvicorn` alone brings h11."""
    pytest.importorskip("httptools", reason="sem httptools, os outros testes já usam h11")
    command = [sys.executable, "-c", WITHOUT_HTTPTOOLS, __file__]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, env=support_environment, cwd=root)
    assert done.returncode == 0, done.stdout[-4000:]


def records(caplog):
    return [vars(each)["record"] for each in caplog.records if "record" in vars(each)]


def wait_until(holds, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
