"""The page through its public API, as gradio_client and plain HTTP see it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from ptbr_slm.app import Page
from ptbr_slm.app.errors import QUEUE_FULL
from ptbr_slm.app.launch import open_server
from ptbr_slm.app.writer import MAX_WAITING, Writer
from ptbr_slm.runtime.batch import BatchLimits
from ptbr_slm.runtime.model import Model

if TYPE_CHECKING:
    from gradio_client import Client

httpx = pytest.importorskip("httpx", reason='instale com: pip install "ptbr-slm[app]"')

PROMPT = "O rio corre"
ENGLISH = ("must", "should", "invalid", "maximum", "minimum", "error", "traceback")


@pytest.fixture(scope="module")
def client(url: str) -> Client:
    from gradio_client import Client

    return Client(url, verbose=False)


def wait_for_text(job, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not job.outputs():
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.01)


def test_generate_is_the_one_public_endpoint_and_its_signature_is_stable(client):
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert not endpoints["unnamed_endpoints"]
    assert list(endpoints["named_endpoints"]) == ["/generate"]
    parameters = endpoints["named_endpoints"]["/generate"]["parameters"]
    assert [(p["parameter_name"], p["parameter_has_default"]) for p in parameters] == [
        ("prompt", False),
        ("max_new_tokens", True),
        ("temperature", True),
        ("top_p", True),
        ("top_k", True),
        ("repetition_penalty", True),
        ("seed", True),
    ]


def test_the_text_grows_from_the_prompt_and_ends_with_the_figures(client):
    job = client.submit(PROMPT, 300, api_name="/generate")
    job.result(timeout=60)
    texts = [text for text, _ in job.outputs()]
    assert len(texts) > 2
    assert all(later.startswith(earlier) for earlier, later in zip([PROMPT, *texts], texts, strict=False))
    status = job.outputs()[-1][1]
    assert status.startswith("300 tokens · ") and status.endswith("limite de tokens")
    assert all(word in status for word in ("tokens/s", "primeiro token", "contexto", "/2048", "semente"))


def test_the_same_seed_writes_the_same_text_and_another_does_not(client):
    texts = [client.predict(PROMPT, 20, seed=seed, api_name="/generate")[0] for seed in ("7", 7, 8)]
    assert texts[0] == texts[1] != texts[2]


def test_without_a_seed_each_text_is_new_and_names_the_seed_that_repeats_it(client):
    first, status = client.predict(PROMPT, 20, api_name="/generate")
    second, _ = client.predict(PROMPT, 20, api_name="/generate")
    seed = status.partition("semente ")[2].split(" ")[0]
    again, _ = client.predict(PROMPT, 20, seed=seed, api_name="/generate")
    assert first != second and first == again


def test_a_cancelled_text_frees_the_model_at_once(client, page):
    job = client.submit(PROMPT, 2000, api_name="/generate")
    wait_for_text(job)
    job.cancel()
    started = time.monotonic()
    client.predict(PROMPT, 1, api_name="/generate")
    assert time.monotonic() - started < 2
    assert len(job.outputs()[-1][0]) < 2000


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"prompt": ""}, "vazio"),
        ({"prompt": None}, "deve ser texto"),
        ({"prompt": {"texto": "Era uma vez"}}, "deve ser texto"),
        ({"prompt": ["Era", "uma"]}, "texto"),
        ({"prompt": 7}, "deve ser texto"),
        ({"prompt": "a" * 2_000_000}, "muito mais do que cabe"),
        ({"prompt": "casa amarela " * 700}, "contexto do modelo"),
        ({"max_new_tokens": 10**9}, "Tokens novos deve ser"),
        ({"max_new_tokens": 0}, "Tokens novos deve ser"),
        ({"temperature": 1e6}, "Temperatura deve ser"),
        ({"temperature": -1}, "Temperatura deve ser"),
        ({"temperature": "quente"}, "Temperatura deve ser"),
        ({"top_p": 0}, "Top-p deve ser"),
        ({"top_p": None}, "Top-p deve ser"),
        ({"top_k": 1.5}, "Top-k deve ser"),
        ({"top_k": True}, "Top-k deve ser"),
        ({"repetition_penalty": 0}, "Repetição deve ser"),
        ({"seed": -3}, "Semente deve ser"),
        ({"seed": "sete"}, "Semente deve ser"),
    ],
)
def test_bad_values_are_refused_in_portuguese_and_the_page_lives_on(client, capfd, values, expected):
    started = time.monotonic()
    with pytest.raises(Exception) as caught:
        client.predict(**{"prompt": PROMPT, "max_new_tokens": 5, **values}, api_name="/generate")
    shown = str(caught.value)
    assert expected in shown
    assert not any(word in shown.lower() for word in ENGLISH)
    assert time.monotonic() - started < 3
    assert "Traceback" not in capfd.readouterr().err
    assert client.predict(PROMPT, 1, api_name="/generate")[1].startswith("1 token ")


def test_markup_in_a_prompt_stays_text(client):
    text, _ = client.predict("<script>alert(1)</script>", 1, api_name="/generate")
    assert text.startswith("<script>alert(1)</script>")


def wait_for_running(page: Page, texts: int, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while page.model.load_figures().running != texts:
        assert time.monotonic() < deadline, page.model.load_figures()
        time.sleep(0.01)


def test_two_visitors_write_at_once_and_stopping_one_leaves_the_other(client, url, page):
    from gradio_client import Client

    first = client.submit(PROMPT, 2000, api_name="/generate")
    second = Client(url, verbose=False).submit(PROMPT, 2000, api_name="/generate")
    wait_for_text(first)
    wait_for_text(second)
    assert page.model.load_figures().running == 2
    first.cancel()
    wait_for_running(page, 1)
    shown = len(second.outputs())
    while len(second.outputs()) == shown:
        assert not second.done()
        time.sleep(0.01)
    second.cancel()
    wait_for_running(page, 0)


def test_a_text_of_the_page_is_the_engine_s_for_the_same_seed_and_settings(client, page):
    text, _ = client.predict(PROMPT, 30, 0.9, 0.9, 20, 1.1, 5, api_name="/generate")
    page.model.forget()
    options = {"temperature": 0.9, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1, "seed": 5}
    assert text == PROMPT + page.model.generate(PROMPT, max_new_tokens=30, **options)


@pytest.fixture
def narrow(gradio, model_folder) -> Iterator[str]:
    """Address of a page whose model writes one text at a time."""
    opened = Page({"estreito": Writer(Model(model_folder, limits=BatchLimits(slots=1)))})
    yield open_server(opened).url
    opened.close()


def test_a_full_queue_answers_in_portuguese(narrow):
    from gradio_client import Client

    url = narrow
    client = Client(url, verbose=False)
    running = client.submit(PROMPT, 2000, api_name="/generate")
    wait_for_text(running)

    def call(_: int) -> httpx.Response:
        return httpx.post(f"{url}gradio_api/call/generate", json={"data": [PROMPT, 1, 0.8, 0.95, 0, 1.0, ""]})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(MAX_WAITING + 4)))
    running.cancel()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    assert {(answer.status_code, answer.json()["detail"]) for answer in refused} == {(429, QUEUE_FULL)}
    assert all(answer.headers["retry-after"] for answer in refused)


def test_files_of_the_machine_are_not_served(url):
    for path in ("/etc/passwd", __file__, "http://example.com/"):
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404)
    assert httpx.get(f"{url}monitoring").status_code in (403, 404)


def test_the_page_asks_nobody_outside_for_anything(url):
    html = httpx.get(url).text
    config = httpx.get(f"{url}config").json()
    assert config["analytics_enabled"] is False
    assert "fonts.googleapis" not in html and "cdn." not in html
