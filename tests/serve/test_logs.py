"""The server's log: what a line has, what it never has, and a reader that stands still."""

import io
import json
import logging
import os
import sys
import threading

import httpx
import pytest
from toy_server import answering

from ptbr_slm.serve.errors import StreamBroken
from ptbr_slm.serve.process import logs
from ptbr_slm.serve.process.logs import logging_to_stderr

BODY = {"model": "toy", "prompt": "O rio secreto", "max_tokens": 3, "seed": 1}  # which draws no <|eos|>


def lines_of(engine, monkeypatch, *, as_json: bool, requests: bool = True) -> str:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with logging_to_stderr(as_json=as_json, requests=requests), answering(engine) as toy:
        httpx.post(f"{toy.url}/v1/completions", json=BODY, headers={"x-request-id": "meu-1"})
        httpx.post(
            f"{toy.url}/v1/completions", json=BODY | {"max_tokens": "x"}, headers={"x-request-id": "meu-2"}
        )
        httpx.get(f"{toy.url}/nada%1b[2J%0a?chave=1234", headers={"x-request-id": "meu-3"})
        for path in ("/health", "/ready", "/ping", "/version", "/metrics"):
            httpx.get(toy.url + path)
    return stream.getvalue()


def test_a_line_of_json_has_the_figures_of_its_request(engine, monkeypatch):
    first, second, third = map(json.loads, lines_of(engine, monkeypatch, as_json=True).splitlines())
    assert first["event"] == "request" and first["at"]
    assert (first["id"], first["method"], first["path"], first["status"]) == (
        "meu-1",
        "POST",
        "/v1/completions",
        200,
    )
    assert first["model"] == "toy" and first["completion_tokens"] == 3 and first["prompt_tokens"] > 0
    assert first["finish_reasons"] == ["length"] and first["total_s"] >= first["decode_s"] >= 0
    assert {"cached_tokens", "queue_s", "prefill_s"} <= set(first)
    assert (second["id"], second["status"], second["error"]) == ("meu-2", 400, "invalid_value")
    assert (third["status"], third["error"]) == (404, "unknown_route")


def test_a_line_for_a_person_is_one_line_in_portuguese(engine, monkeypatch):
    first, second, third = lines_of(engine, monkeypatch, as_json=False).splitlines()
    assert " 200 POST /v1/completions  " in first and "+ 3 tokens" in first and "fila 0,0" in first
    assert " 400 POST /v1/completions  invalid_value" in second
    assert third.isprintable()


@pytest.mark.parametrize("as_json", [True, False])
def test_no_prompt_no_text_and_no_query_is_in_the_log_and_what_is_polled_is_left_out(
    engine, monkeypatch, as_json
):
    log = lines_of(engine, monkeypatch, as_json=as_json)
    assert not any(word in log for word in ("secreto", "1234", "/health", "/ready", "/metrics"))
    assert len(log.splitlines()) == 3


def test_quietly_only_what_is_wrong_is_logged(engine, monkeypatch):
    assert lines_of(engine, monkeypatch, as_json=False, requests=False) == ""


def test_a_defect_has_its_traceback_in_the_log_and_a_stream_broken_on_purpose_none(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with logging_to_stderr(as_json=True):
        logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=StreamBroken())
        logging.getLogger("ptbr_slm.serve").error("defeito", exc_info=RuntimeError("x"))
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["level"] == "error" and "RuntimeError: x" in line["traceback"]


def test_loggers_are_as_before_afterwards():
    logger = logging.getLogger("ptbr_slm.serve")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with logging_to_stderr(as_json=True):
        assert logger.handlers != before[2]
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_while_nobody_reads_lines_are_dropped_and_counted_and_no_caller_waits(monkeypatch):
    read, write = os.pipe()
    with os.fdopen(write, "w") as stream, os.fdopen(read) as other_end:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(logs, "WAITING", 100)
        with logging_to_stderr(as_json=False):
            for _ in range(2000):  # 64 KiB in the pipe, 100 in the queue
                logging.getLogger("ptbr_slm.serve").info("x" * 1000)
            seen = []
            reader = threading.Thread(target=lambda: seen.extend(other_end))
            reader.start()
            while not any("não foram escritas" in line for line in seen):
                logging.getLogger("ptbr_slm.serve").info("depois")
        stream.close()
        reader.join()
    assert 64 <= sum("x" * 1000 in line for line in seen) < 2000
