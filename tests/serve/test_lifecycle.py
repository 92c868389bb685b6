"""A server's life, as processes: loading, ready, draining, forced, killed."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.process.server import listen, serve

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "toy_server.py"
SLOW = "0.02"
"""Seconds a token of a paced server takes, or the whole of a step."""
LONG = 3000
"""Tokens that such a server needs a minute for: it is cut, and does not end by itself."""


class Process:
    """A toy server as a process, ended with the test."""

    def __init__(self, tokenizer_file, environment, seconds=SLOW, gate="", **config):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, str(SCRIPT), str(tokenizer_file), seconds, str(gate)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
        )
        self.process.stdin.write(json.dumps({"port": self.port, **config}))
        self.process.stdin.close()
        self.process.stdin = None

    def ready(self):
        line = self.process.stdout.readline()
        assert json.loads(line)["event"] == "ready", self.process.stderr.read()
        return self

    def client(self, **options):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="x", max_retries=0, timeout=60, **options)

    def send(self, number):
        self.process.send_signal(number)

    def end(self) -> dict:
        """Its last event."""
        out, self.log = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.log
        assert "Traceback" not in self.log, self.log
        return json.loads(out.splitlines()[-1])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def tokenizer_file(tokenizer, tmp_path_factory):
    file = tmp_path_factory.mktemp("toy") / "tokenizer.json"
    file.write_text(tokenizer.to_json(), encoding="utf-8")
    return file


@pytest.fixture
def start(tokenizer_file, support_environment):
    started = []

    def start(**options):
        started.append(Process(tokenizer_file, support_environment, **options))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


def until_it_listens(process) -> None:
    while True:
        assert process.process.poll() is None
        try:
            return httpx.get(f"{process.url}/ping", timeout=60).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.01)


def stream(process, tokens=LONG):
    """A stream whose first chunk has come."""
    asked = {"model": "toy", "prompt": "O rio", "max_tokens": tokens, "extra_body": {"ignore_eos": True}}
    chunks = iter(process.client().completions.create(stream=True, **asked))
    next(chunks)
    return chunks


def refused(process, path="/v1/completions"):
    body = {"model": "toy", "prompt": "O rio", "max_tokens": 1}
    return httpx.request(
        "POST" if path.startswith("/v1") else "GET", process.url + path, json=body, timeout=60
    )


def until_it_drains(process) -> None:
    while httpx.get(f"{process.url}/ready", timeout=60).status_code != 503:
        time.sleep(0.01)


def test_while_the_model_loads_it_says_so_and_a_patient_client_is_answered(start, tmp_path):
    gate = tmp_path / "gate"
    process = start(gate=gate, seconds="0")
    until_it_listens(process)
    for path in ("/health", "/ready", "/v1/completions", "/v1/models", "/nada"):
        answer = refused(process, path)
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "model_loading"
        assert answer.headers["retry-after"] and answer.headers["x-request-id"]
    threading.Timer(0.2, gate.touch).start()
    patient = openai.OpenAI(base_url=f"{process.url}/v1", api_key="x", max_retries=5)
    answer = patient.completions.create(model="toy", prompt="O rio", max_tokens=2, seed=1)
    assert answer.usage.completion_tokens == 2
    assert httpx.get(f"{process.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{process.url}/ready").status_code == 200
    process.ready().send(signal.SIGTERM)
    process.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_model_loads_ends_it(start, tmp_path, number):
    process = start(gate=tmp_path / "never")
    until_it_listens(process)
    process.send(number)
    assert process.end() == {"event": "done", "cut": 0, "signal": number}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_a_signal_the_running_text_ends_whole_and_new_ones_are_refused(start, number):
    process = start().ready()
    running = stream(process, tokens=100)
    process.send(number)
    until_it_drains(process)
    answer = refused(process)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "shutting_down"
    assert answer.headers["retry-after"] and answer.headers["connection"] == "close"
    assert httpx.get(f"{process.url}/health").json() == {"status": "draining"}
    assert [chunk.choices[0].finish_reason for chunk in running][-1] == "length"
    assert process.end() == {"event": "done", "cut": 0, "signal": number}


def test_a_text_that_outlasts_the_drain_ends_with_an_error_that_the_client_raises(start):
    process = start(drain_s=0.3).ready()
    running = stream(process)
    process.send(signal.SIGTERM)
    with pytest.raises(openai.APIError) as caught:
        list(running)
    assert caught.value.code in ("shutting_down", "internal_error")
    assert process.end()["cut"] == 1


def test_a_second_signal_ends_at_once_and_the_streams_are_told(start):
    process = start(drain_s=3600).ready()
    running = [stream(process) for _ in range(3)]
    process.send(signal.SIGTERM)
    until_it_drains(process)
    process.send(signal.SIGTERM)
    for each in running:
        with pytest.raises(openai.APIError):
            list(each)
    assert process.end()["cut"] == 3


def test_a_client_that_is_idle_or_half_way_through_its_headers_does_not_delay_the_end(start):
    process = start(drain_s=3600).ready()
    with (
        socket.create_connection(("127.0.0.1", process.port)) as silent,
        socket.create_connection(("127.0.0.1", process.port)) as half,
        httpx.Client(base_url=process.url) as idle,
    ):
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nhost:")
        assert idle.get("/ping").status_code == 200
        process.send(signal.SIGTERM)
        assert process.end()["cut"] == 0
        assert silent.recv(1) == b""


def test_a_server_killed_in_a_stream_is_an_error_and_not_an_end(start):
    process = start().ready()
    running = stream(process)
    process.send(signal.SIGKILL)
    with pytest.raises(openai.APIError):
        list(running)


def test_a_taken_port_is_told_before_a_model_is_opened():
    opened = []

    def opening():
        opened.append(True)
        yield from ()

    with listen("127.0.0.1", 0) as taken, pytest.raises(SlmError) as caught:
        serve(opening(), ServeConfig(port=taken.getsockname()[1]), lambda url, models: None)
    assert caught.value.code == "E_PORT" and not opened


@pytest.mark.parametrize("host", ["127.0.0.2.3", "203.0.113.7", "::g"])
def test_an_address_that_is_not_this_machines_is_told(host):
    with pytest.raises(SlmError) as caught:
        listen(host, 0)
    assert caught.value.code == "E_PORT"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full é do Linux")
@pytest.mark.parametrize("stderr", ["full", "closed"])
def test_a_log_that_cannot_be_written_harms_no_request(tokenizer_file, support_environment, stderr):
    port = free_port()
    redirect = "2>/dev/full" if stderr == "full" else "2>&-"
    command = f'exec "{sys.executable}" "{SCRIPT}" "{tokenizer_file}" 0 {redirect}'
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=support_environment,
    )
    try:
        process.stdin.write(json.dumps({"port": port}))
        process.stdin.close()
        process.stdin = None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            for _ in range(30):
                body = {"model": "toy", "prompt": "O rio", "max_tokens": 2}
                assert client.post("/v1/completions", json=body).status_code == 200
                assert client.post("/v1/completions", content=b"{").status_code == 415
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0 and json.loads(out)["event"] == "done"
    finally:
        process.kill()
        process.communicate()


def test_an_answer_on_an_open_connection_does_not_wait_for_an_acknowledgement(start):
    process = start(seconds="0").ready()
    taken = []
    with httpx.Client(base_url=process.url, timeout=60) as client:
        for _ in range(15):
            started = time.perf_counter()
            client.get("/nada")
            taken.append(time.perf_counter() - started)
    process.send(signal.SIGTERM)
    process.end()
    assert min(taken[1:]) < 0.03, (
        "Nagle's wait for a delayed acknowledgement is 40 ms in every answer but one"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="um pipe guarda 64 KiB só no Linux")
def test_a_log_that_nobody_reads_harms_no_request(start):
    """Standard error is a pipe of 64 KiB that stands full: writing to it blocks."""
    process = start(seconds="0").ready()
    with httpx.Client(base_url=process.url, timeout=60) as client:
        for _ in range(350):
            assert client.get("/" + "n" * 200).status_code == 404
        deadline = time.monotonic() + 30
        while bytes_waiting(process.process.stderr) < 60_000:
            assert time.monotonic() < deadline, "the log does not say what was asked for"
            time.sleep(0.01)
        for _ in range(20):
            assert client.get("/nada").status_code == 404
    process.send(signal.SIGTERM)
    event = process.end()
    assert event["cut"] == 0 and len(process.log) > 65536


def bytes_waiting(pipe) -> int:
    """What was written to a pipe and not yet read."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
