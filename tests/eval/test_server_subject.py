"""A model behind an OpenAI-compatible server, on this machine: the scores of the model in this process.

The server is ours, and a fake one for what ours is not: other servers' ways, and faults.
"""

import json
from contextlib import contextmanager

import pytest
from openai_server import openai_server
from serving import serving

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.server_subject import ServerSubject, is_url, open_subject
from ptbr_slm.eval.subject import LocalSubject
from ptbr_slm.runtime.model import Model

REQUESTS = [
    ("O Brasil é", [" um país", " grande.", "  dois espaços"]),
    ("O Brasil é ", ["um país", "é"]),
    ("A casa", ["mento", "s são altas", "❤ coração"]),  # a token may span the border
    ("", ["Texto sem nada antes", "O"]),
    ("Pergunta: quem veio?\nResposta:", [" O homem", " A mulher"]),
]


@pytest.fixture
def opened(model):
    with Model(model.path, "cpu") as opened:
        yield opened


@contextmanager
def ours(model):
    with serving({"modelo-de-teste": model}) as server:
        yield server


@contextmanager
def another(model):
    with openai_server(model, tokenize=True) as server:
        yield server


OURS_AND_ANOTHER = pytest.mark.parametrize("running", [ours, another])


def pauses():
    waited = []
    return waited, waited.append


def assert_same(found, expected):
    for scores, wanted in zip(found, expected, strict=True):
        assert [score.logprob for score in scores] == pytest.approx([s.logprob for s in wanted], abs=1e-4)
        assert [(s.tokens, s.bytes, s.is_greedy, s.prompt_tokens_cut) for s in scores] == [
            (s.tokens, s.bytes, s.is_greedy, s.prompt_tokens_cut) for s in wanted
        ]


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenize": True},
        {"tokenize": True, "zero_tokens": False},
        {"tokenize": True, "text_tokens": False},
    ],
    ids=["pieces of text", "a token must be generated", "tokens in the vocabulary's spelling"],
)
def test_another_server_scores_as_the_model_in_this_process(opened, settings):
    with openai_server(opened, **settings) as server:
        found = list(ServerSubject(server.url).score(REQUESTS))
    assert_same(found, opened.score_batch(REQUESTS))


def test_our_server_scores_as_the_model_in_this_process(opened, model):
    with ours(opened) as server:
        found = list(ServerSubject(server.url).score(REQUESTS))
        by_ids = list(ServerSubject(server.url, tokenizer=model.path / "tokenizer.json").score(REQUESTS))
    assert_same(found, opened.score_batch(REQUESTS))
    assert_same(by_ids, opened.score_batch(REQUESTS))


def test_without_tokenize_the_scores_agree_where_no_token_spans_the_border(opened):
    requests = [REQUESTS[0], REQUESTS[1], REQUESTS[3], REQUESTS[4]]
    with openai_server(opened) as server:
        assert_same(list(ServerSubject(server.url).score(requests)), opened.score_batch(requests))
        assert len(list(ServerSubject(server.url).score(REQUESTS))) == len(REQUESTS)


def test_with_a_tokenizer_of_ones_own_the_server_gets_token_ids(opened, model):
    with openai_server(opened) as server:
        subject = ServerSubject(server.url, tokenizer=model.path / "tokenizer.json")
        found = list(subject.score(REQUESTS))
        assert all(isinstance(request["prompt"][0], list) for request in server.requests[1:])
    assert_same(found, opened.score_batch(REQUESTS))


@OURS_AND_ANOTHER
def test_a_prompt_longer_than_the_context_is_cut_and_counted(opened, running):
    long = "uma palavra e outra " * 60
    with running(opened) as server:
        subject = ServerSubject(server.url)
        ((score,), (short,)) = subject.score([(long + "fim:", [" sim"]), ("fim:", [" sim"])])
        (local,) = opened.score(long + "fim:", [" sim"])
        # The server keeps one token for what it generates, and another for the last of the text.
        assert score.prompt_tokens_cut == local.prompt_tokens_cut + 2
        assert short.prompt_tokens_cut == 0
        (continued,) = subject.continue_text([long], [], 8)
    ids = opened.engine.tokenizer.encode(long)
    assert continued.cut == len(ids) - (subject.context - 8)


def test_a_prompt_too_long_for_a_server_without_tokenizer_is_said(opened):
    with openai_server(opened) as server, pytest.raises(SlmError, match="não cabe") as error:
        list(ServerSubject(server.url).score([("uma palavra " * 100, [" sim"])]))
    assert error.value.code == "E_PROMPT_TOO_LONG"


@OURS_AND_ANOTHER
def test_a_server_generates_as_the_model_in_this_process(opened, model, running):
    prompts = ["O Brasil é", "A casa", "Quem veio foi"] * 8
    with running(opened) as server:
        found = ServerSubject(server.url).continue_text(prompts, ["\n", "e"], 12)
    assert found == LocalSubject(model.path, "cpu").continue_text(prompts, ["\n", "e"], 12)


def test_a_server_without_the_probabilities_of_prompts_still_generates(opened):
    with openai_server(opened, echo=False) as server:
        subject = ServerSubject(server.url)
        with pytest.raises(SlmError, match="echo com logprobs") as error:
            list(subject.score(REQUESTS))
        assert error.value.code == "E_SERVER"
        assert len(subject.continue_text(["O Brasil é"], [], 4)) == 1


def test_a_busy_server_is_asked_again_and_the_key_is_sent(opened, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "segredo")
    waited, pause = pauses()
    with openai_server(opened) as server:
        subject = ServerSubject(server.url, pause=pause)
        server.faults.extend([(503, {}), (429, {"Retry-After": "7"}), (500, {})])
        assert subject.continue_text(["O Brasil é"], [], 4)
        assert {headers["Authorization"] for headers in server.headers} == {"Bearer segredo"}
    assert waited == [0.5, 7.0, 2.0]


def test_a_server_that_is_gone_is_said_after_some_tries(opened):
    waited, pause = pauses()
    with openai_server(opened) as server:
        subject = ServerSubject(server.url, pause=pause, timeout_s=2)
    with pytest.raises(SlmError, match="não respondeu depois de 6") as error:
        subject.continue_text(["O Brasil é"], [], 4)
    assert error.value.code == "E_SERVER" and len(waited) == 5


def test_an_address_that_is_no_such_server_is_said(opened):
    with openai_server(opened) as server, pytest.raises(SlmError, match="mas não em /v1/models") as error:
        ServerSubject(server.url + "/pagina")
    assert error.value.code == "E_SERVER"


def test_a_refused_key_and_an_unknown_model_are_said(opened):
    with openai_server(opened) as server:
        with pytest.raises(SlmError, match="não tem o modelo outro") as error:
            ServerSubject(server.url + "/v1#outro")
        assert "modelo-de-teste" in error.value.hint
        subject = ServerSubject(server.url)
        server.faults.append((401, {}))
        with pytest.raises(SlmError, match="recusou o acesso") as error:
            subject.continue_text(["O Brasil é"], [], 4)
        assert "OPENAI_API_KEY" in error.value.hint


@OURS_AND_ANOTHER
def test_the_identity_of_a_server_stays_and_the_address_may_be_written_out(opened, running):
    with running(opened) as server:
        subjects = [
            ServerSubject(server.url + end)
            for end in ("", "/", "/v1", "/v1/completions", "/v1#modelo-de-teste")
        ]
        assert len({subject.identity for subject in subjects}) == 1
        assert subjects[0].context == opened.engine.config.max_seq_len
        assert subjects[0].name.startswith("modelo-de-teste em 127.0.0.1:")
        assert isinstance(open_subject(server.url), ServerSubject)
    assert not is_url(json.dumps("runs/x"))


def test_another_model_has_another_identity(opened):
    with openai_server(opened) as server:
        before = ServerSubject(server.url).identity
        server.served = "outro"
        assert ServerSubject(server.url).identity != before


def test_our_server_tells_how_many_parameters_the_model_has(opened):
    with ours(opened) as server:
        assert ServerSubject(server.url).parameters == opened.engine.config.num_parameters
