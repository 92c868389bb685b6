"""Faults in the client's terms: status, form, bounds, and a broken stream that is no end."""

import json
import threading

import httpx
import openai
import pytest
from toy_server import answering

from ptbr_slm.errors import CODES, SlmError
from ptbr_slm.serve.errors import ApiError, StreamBroken, as_api_error
from ptbr_slm.serve.validation import validation_error

GOOD = {"model": "toy", "prompt": "O rio", "max_tokens": 2, "seed": 1}


@pytest.fixture(scope="module")
def toy(new_engine):
    with answering(new_engine()) as toy:

        @toy.app.post("/v1/defeito")
        async def defect():
            raise RuntimeError("/segredo/pasta: a chave é 1234")

        @toy.app.get("/v1/defeito-no-meio")
        async def late_defect():
            from starlette.responses import StreamingResponse

            async def pieces():
                yield b"data: 1\n\n"
                raise RuntimeError("/segredo/pasta")

            return StreamingResponse(pieces())

        @toy.app.get("/v1/quebrado")
        async def broken():
            from starlette.responses import StreamingResponse

            async def pieces():
                yield b"data: 1\n\n"
                raise StreamBroken

            return StreamingResponse(pieces())

        yield toy


@pytest.fixture(scope="module")
def client(toy):
    with httpx.Client(base_url=toy.url, timeout=60) as client:
        yield client


def error_of(answer) -> dict:
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert len(answer.content) <= 2048 and answer.headers["x-request-id"]
    assert not any(
        word in answer.text for word in ("Traceback", "/segredo", "/work/", "site-packages", ".py")
    )
    return error


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "unknown_route"),
        ("GET", "/v1", 404, "unknown_route"),
        ("POST", "/v1/completions/", 404, "unknown_route"),
        ("POST", "/v1/v1/completions", 404, "unknown_route"),
        ("POST", "/v1/" + "x" * 5000, 404, "unknown_route"),
        ("POST", "/v1/%0d%0aset-cookie:a=b%1b[2J", 404, "unknown_route"),
        ("GET", "/v1/completions", 405, "method_not_allowed"),
        ("PUT", "/v1/completions", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
    ],
)
def test_an_unknown_route_and_a_wrong_method_have_the_same_form(client, method, path, status, code):
    answer = client.request(method, path, json=GOOD)
    assert answer.status_code == status and error_of(answer)["code"] == code
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        (GOOD | {"prompt": None}, "prompt"),
        (GOOD | {"prompt": 7}, "prompt"),
        (GOOD | {"prompt": {"a": 1}}, "prompt"),
        (GOOD | {"max_tokens": "muitos"}, "max_tokens"),
        (GOOD | {"max_tokens": -1}, "max_tokens"),
        (GOOD | {"temperature": "quente"}, "temperature"),
        (GOOD | {"temperature": -0.5}, "temperature"),
        (GOOD | {"stream": "talvez"}, "stream"),
        (GOOD | {"model": "outro"}, "model"),
        (GOOD | {"model": "x" * 10_000}, "model"),
    ],
)
def test_a_wrong_field_is_400_or_404_and_named(client, body, param):
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == (404 if param == "model" else 400)
    error = error_of(answer)
    assert error["param"] == param and error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [
        GOOD | {"prompt": [["x"] * 5] * 5000},
        GOOD | {"prompt": [{"a" * 100: n} for n in range(2000)]},
        GOOD | {"stop": [{}] * 20_000},
        GOOD | {"prompt": "a" * 900_000},
        GOOD | {"x" * 500_000: 1, "max_tokens": "y" * 400_000},
    ],
    ids=lambda body: str(len(json.dumps(body))),
)
def test_an_error_stays_under_2_kb_whatever_was_sent(client, body):
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 400
    error_of(answer)


def test_what_pydantic_finds_is_told_in_portuguese_three_errors_at_most():
    errors = [{"type": "int_type", "loc": ("body", "n"), "msg": "x"}]
    errors += [
        {"type": "string_type", "loc": ("body", "stop", n, "list[str]"), "msg": "x"} for n in range(50)
    ]
    fault = validation_error(errors)
    assert fault.message == (
        "n: deve ser um número inteiro. stop.0: deve ser um texto. stop.1: deve ser um texto. …"
    )
    assert (fault.status, fault.param, fault.code) == (400, "n", "invalid_value")
    fault = validation_error([{"type": "value_error", "loc": ("body",), "msg": "Value error, " + "á" * 9999}])
    assert len(fault.message) <= 200 and fault.param is None


def test_a_defect_is_500_without_detail_and_is_not_to_be_repeated(client):
    answer = client.post("/v1/defeito", json={})
    assert answer.status_code == 500 and answer.headers["x-should-retry"] == "false"
    assert error_of(answer)["type"] == "server_error"


def test_the_client_does_not_repeat_a_defect_and_repeats_a_full_queue(toy):
    """It repeats 5xx and 429 twice by itself; a header tells it not to."""
    seen = []

    @toy.app.post("/v1/embeddings-contadas")
    async def counted():
        seen.append(1)
        raise SlmError("E_BUSY" if len(seen) < 3 else "E_INTERNAL", "a fila está cheia.", hint="")

    client = openai.OpenAI(base_url=f"{toy.url}/v1", api_key="x")
    with pytest.raises(openai.InternalServerError):
        client.post("/embeddings-contadas", body={}, cast_to=object)
    assert len(seen) == 3, "two of a full queue, each repeated, and one defect, not repeated"


def test_a_full_queue_is_429_with_when_to_come_again():
    fault = as_api_error(SlmError("E_BUSY", "a fila está cheia.", hint=""))
    assert (fault.status, fault.code, fault.kind) == (429, "queue_full", "rate_limit_error")
    assert int(fault.headers["retry-after"]) >= 1


@pytest.mark.parametrize("code", CODES)
def test_every_error_of_ours_has_an_answer_and_only_the_clients_faults_have_detail(code):
    fault = as_api_error(SlmError(code, "em /segredo/pasta.", where="/segredo", hint="veja /segredo"))
    assert 400 <= fault.status <= 503
    if fault.status >= 500:
        assert fault.headers.get("x-should-retry") == "false" or fault.headers.get("retry-after")
    if fault.status == 500:
        assert "segredo" not in str(fault.body())


def test_a_message_is_at_most_500_characters():
    assert len(ApiError(400, "á" * 10_000).body()["error"]["message"]) == 500


@pytest.mark.parametrize(
    ("given", "kept"), [("meu-pedido_1.2", True), ("a" * 64, True), ("a" * 65, False), ("a b", False)]
)
def test_a_harmless_request_id_is_taken_and_another_replaced(client, given, kept):
    for path in ("/ping", "/nada"):
        answer = client.get(path, headers={"x-request-id": given})
        assert (answer.headers["x-request-id"] == given) is kept
        assert answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]


@pytest.mark.parametrize("path", ["/v1/quebrado", "/v1/defeito-no-meio"])
def test_a_stream_that_breaks_does_not_end_cleanly(client, path):
    with client.stream("GET", path) as answer, pytest.raises(httpx.RemoteProtocolError):
        list(answer.iter_bytes())
    assert client.get("/ping").status_code == 200


def test_an_engine_that_fails_in_a_stream_arrives_as_an_error(toy):
    """The engine's own message, with its paths, stays here."""
    reached = threading.Event()

    def fail(what, slots):
        if len(toy.engine.runs) > 8:
            reached.set()
            raise RuntimeError("falha em /segredo/onnx")

    toy.engine.runs.clear()
    toy.engine.fail = fail
    client = openai.OpenAI(base_url=f"{toy.url}/v1", api_key="x", max_retries=0)
    try:
        with pytest.raises(openai.APIError) as caught:
            list(client.completions.create(model="toy", prompt="O rio", max_tokens=50, seed=1, stream=True))
    finally:
        toy.engine.fail = lambda what, slots: None
    assert reached.is_set() and "segredo" not in str(caught.value)
    assert client.completions.create(**GOOD).usage.completion_tokens == 2


def test_an_engine_that_fails_without_a_stream_is_a_500_and_the_next_request_is_answered(toy):
    def fail(what, slots):
        raise RuntimeError("falha em /segredo/onnx")

    toy.engine.fail = fail
    try:
        answer = httpx.post(f"{toy.url}/v1/completions", json=GOOD, timeout=60)
    finally:
        toy.engine.fail = lambda what, slots: None
    assert answer.status_code == 500
    error_of(answer)
    assert httpx.post(f"{toy.url}/v1/completions", json=GOOD, timeout=60).status_code == 200
