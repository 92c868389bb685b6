"""The page mounted on `ptbr-slm serve`: one origin and one engine with the API, and no open door."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from toy_engine import ToyEngine

from ptbr_slm.runtime.model import Model
from ptbr_slm.tokenizer import Tokenizer

httpx = pytest.importorskip("httpx", reason='instale com: pip install "ptbr-slm[app]"')
pytest.importorskip("fastapi", reason='instale com: pip install "ptbr-slm[serve]"')

PROMPT = "O rio corre"
KEY = "chave-de-teste"
OPTIONS = {"temperature": 0.9, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1, "seed": 5}


@contextmanager
def serving(model: Model, **config) -> Iterator[str]:
    """Base address of a server with the page."""
    from ptbr_slm.serve.app import create_app
    from ptbr_slm.serve.config import ServeConfig
    from ptbr_slm.serve.process.server import Running, listen
    from ptbr_slm.serve.served import ServedModel, ServedModels

    settings = ServeConfig(page=True, **config)
    app = create_app(ServedModels({"toy": ServedModel("toy", model, "0123456789abcdef")}), settings)
    app.state.page.open()
    with listen("127.0.0.1", 0) as listening, Running(app, listening, settings):
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        model.close()


@pytest.fixture(scope="module")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 4, 384)


@pytest.fixture(scope="module")
def toy(tokenizer) -> ToyEngine:
    """Its texts never end by themselves: an end token outside the vocabulary is never drawn."""
    engine = ToyEngine(tokenizer, context=2048)
    engine.config = replace(engine.config, eos_token_ids=(tokenizer.vocab_size,))
    return engine


@pytest.fixture(scope="module")
def model(gradio: ModuleType, toy) -> Model:
    return Model.over(toy, Path("toy"))


@pytest.fixture(scope="module")
def server(model) -> Iterator[str]:
    with serving(model) as url:
        yield url


@pytest.fixture(scope="module")
def visitor(server):
    from gradio_client import Client

    return Client(f"{server}/page/", verbose=False)


def wait_for_running(model: Model, texts: int) -> None:
    deadline = time.monotonic() + 30
    while model.load_figures().running != texts:
        assert time.monotonic() < deadline, model.load_figures()
        time.sleep(0.005)


def test_page_api_and_engine_write_the_same_text_for_the_same_seed_and_settings(server, visitor, model):
    shown, _ = visitor.predict(PROMPT, 30, *OPTIONS.values(), api_name="/generate")
    body = {"prompt": PROMPT, "max_tokens": 30, **OPTIONS}
    answer = httpx.post(f"{server}/v1/completions", json=body, trust_env=False).json()
    text = model.generate(PROMPT, max_new_tokens=30, **OPTIONS)
    assert shown == PROMPT + text
    assert answer["choices"][0]["text"] == text


def test_a_text_of_the_page_and_one_of_the_api_run_in_one_batch_and_stop_apart(server, visitor, model, toy):
    toy.fail = lambda what, slots: time.sleep(0.002)
    job = visitor.submit(PROMPT, 1000, api_name="/generate")
    wait_for_running(model, 1)
    body = {"prompt": PROMPT, "max_tokens": 1500, "stream": True}
    with httpx.stream("POST", f"{server}/v1/completions", json=body, trust_env=False) as stream:
        lines = stream.iter_lines()
        next(lines)
        assert model.load_figures().running == 2
        job.cancel()
        wait_for_running(model, 1)
        assert next(line for line in lines if line)
    wait_for_running(model, 0)
    toy.fail = lambda what, slots: None
    cancelled = 'ptbr_slm_texts_total{model_name="toy",reason="cancelled"} 2.0'
    while cancelled not in (page := httpx.get(f"{server}/metrics", trust_env=False).text):
        time.sleep(0.01)  # a slot is free a moment before its text is counted
    assert 'route="/page",status="200"' in page and "gradio" not in page


def test_the_page_lies_below_its_path_alone(server):
    with httpx.Client(base_url=server, trust_env=False) as http:
        assert http.get("/page").headers["location"] == "/page/"
        page = http.get("/page/")
        assert page.status_code == 200 and "ptbr-slm" in page.text
        assert http.get("/page/config").json()["root"] == f"{server}/page"
        assert http.get("/page/favicon.ico").status_code == 200
        assert http.get("/v1/models").json()["data"][0]["id"] == "toy"
        for path in (
            "/",
            "/config",
            "/gradio_api/info",
            "/v1/page/",
            "/v1/config",
            "/pagex",
            "/page/v1/models",
        ):
            assert http.get(path).status_code == 404, path


def test_no_other_origin_may_read_what_the_page_answers(server):
    for method in ("GET", "OPTIONS"):
        headers = {"origin": "http://localhost:1", "access-control-request-method": "POST"}
        answer = httpx.request(method, f"{server}/page/config", headers=headers, trust_env=False)
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_body_without_a_length_or_too_long_a_one_is_refused_unread(server):
    address = f"{server}/page/gradio_api/queue/join"
    with httpx.Client(trust_env=False) as http:
        assert http.post(address, content=iter([b"{}"])).status_code == 411
        assert http.post(address, content=b" " * ((1 << 20) + 1)).status_code == 413


@pytest.mark.parametrize("stripped", [False, True])
def test_under_the_prefix_of_a_proxy_the_page_and_the_api_are_found(gradio, tokenizer, stripped):
    """A proxy may take the prefix off or leave it."""
    before = "" if stripped else "/modelo"
    with (
        serving(Model.over(ToyEngine(tokenizer), Path("toy")), root_path="/modelo") as url,
        httpx.Client(base_url=url + before, trust_env=False) as http,
    ):
        assert http.get("/page").headers["location"] == "/modelo/page/"
        assert http.get("/page/").status_code == 200
        assert http.get("/page/config").json()["root"] == f"{url}/modelo/page"
        assert http.get("/page/theme.css").status_code == 200
        assert http.get("/v1/models").status_code == 200
        sent = {"data": [PROMPT, 2, 0.8, 0.95, 0, 1.0, ""]}
        event = http.post("/page/gradio_api/call/generate", json=sent).json()["event_id"]
        assert "event: complete" in http.get(f"/page/gradio_api/call/generate/{event}").text


def test_where_the_server_has_keys_the_page_asks_for_one_and_opens_nothing_else(gradio, tokenizer):
    with (
        serving(Model.over(ToyEngine(tokenizer), Path("toy")), api_keys=(KEY,)) as url,
        httpx.Client(base_url=url, trust_env=False) as http,
    ):
        call = "/page/gradio_api/call/generate"
        sent = {"data": [PROMPT, 2, 0.8, 0.95, 0, 1.0, ""]}
        join = {"data": sent["data"], "fn_index": 0, "session_hash": "a"}
        assert http.get("/page/config").status_code == 401
        assert http.post(call, json=sent).status_code == 401
        assert http.post("/page/gradio_api/queue/join", json=join).status_code == 401
        wrong = {"username": "maria", "password": "errada"}
        assert http.post("/page/login", data=wrong).status_code == 400
        assert http.post("/page/login", data={**wrong, "password": KEY}).status_code == 200
        assert http.get("/page/config").status_code == 200
        event = http.post(call, json=sent).json()["event_id"]
        assert "event: complete" in http.get(f"{call}/{event}").text
        assert http.get("/v1/models").status_code == 401  # the page's cookie is no key
        assert http.get("/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200


def test_without_the_option_there_is_no_page():
    from ptbr_slm.serve.app import create_app
    from ptbr_slm.serve.config import ServeConfig
    from ptbr_slm.serve.served import ServedModels

    assert create_app(ServedModels({}), ServeConfig()).state.page is None
