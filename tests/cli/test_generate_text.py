"""What `ptbr-slm generate` says of its results."""

from __future__ import annotations

import math

import pytest

from ptbr_slm.cli.generate import document, logprob_table, status, status_of_all
from ptbr_slm.runtime.results import GenerationResult, TokenLogprob
from ptbr_slm.tokenizer import Tokenizer

FIGURES = {"greedy": False, "context": 1024, "formed": False}


@pytest.fixture(scope="module")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 3, 300)


def result(reason="eos", **fields) -> GenerationResult:
    known = {
        "text": "oi",
        "tokens": (5, 6),
        "prompt_tokens": 3,
        "finish_reason": reason,
        "seed": 7,
        "time_to_first_token_s": 0.0342,
        "tokens_per_second": 1234.5,
    }
    return GenerationResult(**(known | fields))


@pytest.mark.parametrize(
    ("reason", "formed", "end"),
    [
        ("eos", True, ""),
        ("stop", False, ""),
        ("length", False, ""),
        ("length", True, " · a forma ficou incompleta: aumente -n"),
        ("context", False, " · o contexto do modelo acabou (1.024 tokens)"),
        ("timeout", False, " · o tempo acabou"),
        ("timeout", True, " · o tempo acabou, e a forma ficou incompleta"),
        ("cancelled", False, " · interrompido"),
    ],
)
def test_the_line_of_figures_says_why_a_text_ended_where_one_would_wonder(reason, formed, end):
    shown = status(result(reason), **(FIGURES | {"formed": formed}))
    assert shown == f"2 tokens · 1.234 tokens/s · primeiro token 34 ms · semente 7{end}"


def test_guesses_are_told_and_a_greedy_text_names_no_seed():
    shown = status(result(drafted=10, accepted=8), **(FIGURES | {"greedy": True}))
    assert shown == "2 tokens · 1.234 tokens/s · primeiro token 34 ms · 8 de 10 palpites certos"


def test_where_no_token_was_wanted_there_is_no_first_one():
    shown = status(result("length", tokens=(), tokens_per_second=0.0), **FIGURES)
    assert shown == "0 tokens · semente 7"


def test_several_texts_have_one_line_that_counts_how_they_ended():
    found = [result(), result("timeout", time_to_first_token_s=0.5), result("timeout")]
    assert status_of_all(found, 0.5, **FIGURES) == (
        "3 textos · 6 tokens · 12 tokens/s ao todo · primeiro token 34 ms · 2: o tempo acabou"
    )


def test_a_table_shows_spaces_bytes_and_probabilities(tokenizer):
    half = next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"\xc3")
    space = tokenizer.encode(" ", special=False)[0]
    scores = [
        None,
        TokenLogprob(half, math.log(0.5), ((space, math.log(0.25)), (1, -20.0))),
        TokenLogprob(space, math.log(0.25), ()),
    ]
    lines = logprob_table(scores, tokenizer).splitlines()
    assert lines[0].split() == ["token", "probabilidade", "as", "mais", "prováveis"]
    assert lines[2] == '"\\xc3"         50,0 %  " " 25,0 %  "<|eos|>" < 0,1 %'
    assert lines[3] == '" "            25,0 %'


def test_the_document_names_the_text_of_each_token(tokenizer):
    token = tokenizer.encode("a", special=False)[0]
    score = TokenLogprob(token, -1.0, ((token, -1.0),))
    named = {"token": token, "text": "a", "logprob": -1.0}
    found = document([result(logprobs=(score,), prompt_logprobs=(None, score))], tokenizer)
    assert found["logprobs"] == [{**named, "top": [named]}]
    assert found["prompt_logprobs"] == [None, {**named, "top": [named]}]
    assert document([result()], tokenizer)["logprobs"] is None
    assert [part["seed"] for part in document([result(), result()], tokenizer)["completions"]] == [7, 7]
