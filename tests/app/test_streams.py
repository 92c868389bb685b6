"""The routes of growing texts, as plain HTTP sees them: a text lives as long as its response."""

from __future__ import annotations

import json
import time
import warnings

import pytest

from ptbr_slm.app import Page
from ptbr_slm.app.streams import KEY_HEADER, MAX_BODY_BYTES
from ptbr_slm.app.writer import MAX_WAITING

httpx = pytest.importorskip("httpx", reason='instale com: pip install "ptbr-slm[app]"')

PROMPT = "O rio corre"
SAMPLING = [20, 0.8, 0.95, 0, 1.0, "7"]
CHAT = [{"role": "user", "content": "Quem abriu a janela?"}]


@pytest.fixture
def http(url: str, page: Page):
    headers = {KEY_HEADER: page.streams.key}
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


def events(answer: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line) for line in answer.text.splitlines()]


def wait_until(holds, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("path", "asked"), [("stream/text", {"prompt": PROMPT}), ("stream/chat", {"messages": CHAT})]
)
def test_the_pieces_are_the_text_of_the_engine_and_the_last_line_says_done(http, page, path, asked):
    *pieces, last = events(http.post(path, json={**asked, "sampling": SAMPLING}))
    text = "".join(str(piece["text"]) for piece in pieces)
    options = {"max_new_tokens": 20, "temperature": 0.8, "top_p": 0.95, "seed": 7}
    if path == "stream/text":
        assert text == page.model.generate(PROMPT, **options)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the model is not tuned
            assert text == page.model.chat(CHAT, **options)
    assert last == {"done": True} and "semente 7" in str(pieces[-1]["status"])


def test_who_has_not_read_the_page_may_not_write(http):
    asked = {"prompt": PROMPT, "sampling": SAMPLING}
    assert http.post("stream/text", json=asked, headers={KEY_HEADER: "outra"}).status_code == 403
    assert http.get("stream/text").status_code == 405


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[1]", "JSON"),
        (b"{}", "seis valores"),
        (json.dumps({"prompt": PROMPT, "sampling": [1, 2]}).encode(), "seis valores"),
        (json.dumps({"sampling": SAMPLING}).encode(), "deve ser texto"),
        (json.dumps({"prompt": "", "sampling": SAMPLING}).encode(), "vazio"),
        (
            json.dumps({"prompt": PROMPT, "sampling": [20, -1, 1, 0, 1, ""]}).encode(),
            "Temperatura deve ser",
        ),
        (b'{"prompt": "' + b"a" * MAX_BODY_BYTES + b'"}', "mais de 2 MB"),
    ],
)
def test_what_is_wrong_is_said_in_portuguese(http, body, expected):
    (answer,) = events(http.post("stream/text", content=body))
    assert expected in str(answer["error"])


def test_a_conversation_out_of_order_is_refused(http):
    for messages in (None, [], ["Oi"], [{"role": "assistant", "content": "Oi"}], "Oi"):
        (answer,) = events(http.post("stream/chat", json={"messages": messages, "sampling": SAMPLING}))
        assert "conversa" in str(answer["error"]) or "mensage" in str(answer["error"])


def test_in_english_errors_and_figures_are_english(http):
    english = {"accept-language": "en-US,en;q=0.9,pt;q=0.8"}
    asked = {"prompt": "", "sampling": SAMPLING}
    (answer,) = events(http.post("stream/text", json=asked, headers=english))
    assert answer == {"error": "There is no text yet. Write how it begins, in Portuguese."}
    *_, piece, _ = events(http.post("stream/text", json={**asked, "prompt": PROMPT}, headers=english))
    assert "first token" in str(piece["status"]) and str(piece["status"]).endswith("seed 7 · token limit")


def test_who_leaves_before_the_first_token_frees_the_place_at_once(http, page):
    asked = {"prompt": PROMPT, "sampling": [1000, *SAMPLING[1:]]}
    with page.model._loop.turn():  # no token comes meanwhile
        for path in ("stream/text", "stream/chat"):
            with http.stream("POST", path, json={**asked, "messages": CHAT}):
                assert page.streams.open == 1
            wait_until(lambda: page.streams.open == 0)
    wait_until(lambda: page.model.load_figures().waiting == page.model.load_figures().running == 0)


def test_beyond_the_places_the_next_one_is_told_to_come_back(http, page, monkeypatch):
    monkeypatch.setattr(page.streams, "open", page.writer.slots + MAX_WAITING)
    (answer,) = events(http.post("stream/text", json={"prompt": PROMPT, "sampling": SAMPLING}))
    assert answer == {"error": "Há muita gente usando. Tente de novo em alguns segundos."}
