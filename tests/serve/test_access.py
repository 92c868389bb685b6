"""Keys: who may come in, what a refusal says, and that no key is ever in a log."""

import hashlib
import hmac
import logging
import os

import httpx
import pytest
from toy_engine import ToyEngine
from toy_server import answering

from ptbr_slm.errors import SlmError
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.middleware.access import digest_of, tenant_of
from ptbr_slm.serve.process.keys import read_keys, readable_by_others

KEYS = ("chave-da-ana-0123456789", "chave-do-beto-987654321")
BODY = {"model": "toy", "prompt": "O rio", "max_tokens": 2}


@pytest.fixture(scope="module")
def guarded(tokenizer):
    with (
        answering(ToyEngine(tokenizer), ServeConfig(api_keys=KEYS)) as toy,
        httpx.Client(base_url=toy.url) as client,
    ):
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEYS[0]}"},
        {"authorization": f"bearer {KEYS[1]}"},
        {"x-api-key": KEYS[1]},
        {"authorization": "Basic YTpi", "x-api-key": KEYS[0]},
    ],
)
def test_each_of_two_keys_opens_in_either_header(guarded, headers):
    assert guarded.post("/v1/completions", json=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"authorization": "Bearer"}, "invalid_api_key"),
        ({"authorization": "Bearer errada"}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEYS[0][:-1]}"}, "invalid_api_key"),
        ({"authorization": f"Bearer {KEYS[0]}x"}, "invalid_api_key"),
        ({"authorization": f"Basic {KEYS[0]}"}, "invalid_api_key"),
        ({"authorization": KEYS[0]}, "invalid_api_key"),
        ({"x-api-key": "errada"}, "invalid_api_key"),
        ({"authorization": b"Bearer \xff\xfe"}, "invalid_api_key"),
    ],
)
def test_without_a_right_key_nothing_is_done_and_401_says_why(guarded, headers, code):
    for method, path in [
        ("POST", "/v1/completions"),
        ("GET", "/v1/models"),
        ("POST", "/tokenize"),
        ("GET", "/nada"),
    ]:
        answer = guarded.request(method, path, json=BODY, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.json()["error"]["code"] == code
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["x-request-id"]
        assert not any(key in answer.text for key in KEYS)


@pytest.mark.parametrize("path", ["/health", "/ready", "/ping", "/version", "/docs", "/openapi.json"])
def test_the_state_of_the_server_and_its_documentation_need_no_key(guarded, path):
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/health/../v1/models", "//v1/models", "/v1/models/", "/health/", "/%76%31/models"]
)
def test_no_spelling_of_a_path_gets_around_the_key(guarded, path):
    assert guarded.get(path).status_code in (401, 404)
    assert "toy" not in guarded.get(path).text


def test_options_passes_without_a_key_and_does_nothing(guarded):
    assert guarded.options("/v1/completions").status_code == 405


def test_without_keys_everybody_may_come_in(engine):
    with answering(engine) as toy:
        assert httpx.post(f"{toy.url}/v1/completions", json=BODY).status_code == 200


def test_keys_and_prompts_are_in_no_log_and_the_tenant_is_a_hash(engine, caplog):
    caplog.set_level(logging.DEBUG)
    secret = "palavra-secreta-do-texto"
    with answering(engine, ServeConfig(api_keys=KEYS)) as toy:
        for key in (KEYS[0], "errada-0987654321"):
            headers = {"authorization": f"Bearer {key}"}
            httpx.post(f"{toy.url}/v1/completions", json=BODY | {"prompt": secret}, headers=headers)
    records = [vars(each)["record"] for each in caplog.records if hasattr(each, "record")]
    assert [record.tenant for record in records] == [hashlib.sha256(KEYS[0].encode()).hexdigest()[:12], ""]
    logged = " ".join(map(repr, records)) + caplog.text
    assert not any(word in logged for word in (*KEYS, "errada-0987654321", secret))


@pytest.mark.parametrize("given", [KEYS[0], KEYS[1], "errada"])
def test_a_key_is_compared_with_all_keys_whichever_is_right(given, monkeypatch):
    """So that the time of an answer does not tell which key a guess resembles."""
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or compare(a, b))
    digests = [digest_of(key) for key in KEYS]
    tenant_of([given], digests)
    assert compared == digests


def test_a_key_file_has_comments_and_blank_lines_and_the_variable_adds_one(tmp_path):
    file = tmp_path / "chaves"
    file.write_text("# Ana\nana-1\n\n  beto-2  \nana-1\n")
    assert read_keys(file, {"PTBR_SLM_API_KEY": "carla-3"}) == ("carla-3", "ana-1", "beto-2")
    assert read_keys(None, {}) == ()


@pytest.mark.parametrize("content", ["", "# só comentário\n\n", "chave com espaço\n", "chave-ç\n"])
def test_a_key_file_without_a_usable_key_is_refused_and_its_content_not_told(tmp_path, content):
    file = tmp_path / "chaves"
    file.write_text(content)
    with pytest.raises(SlmError) as caught:
        read_keys(file, {})
    assert caught.value.code == "E_USAGE"
    assert "chave com" not in str(caught.value) and "chave-ç" not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="o modo de um arquivo só diz isto em POSIX")
def test_a_key_file_that_others_may_read_is_noticed(tmp_path):
    file = tmp_path / "chaves"
    file.write_text("ana-1")
    file.chmod(0o644)
    assert readable_by_others(file)
    file.chmod(0o600)
    assert not readable_by_others(file)


def test_other_machines_are_not_answered_without_a_key_unless_told():
    for host in ("0.0.0.0", "::", "192.168.0.7"):
        with pytest.raises(SlmError) as caught:
            ServeConfig(host=host)
        assert caught.value.code == "E_USAGE" and "--insecure" in caught.value.hint
    ServeConfig(host="0.0.0.0", insecure=True)
    ServeConfig(host="0.0.0.0", api_keys=("k",))
