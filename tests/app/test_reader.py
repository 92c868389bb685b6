"""What the tabs of tokens are told, against the model itself; and what they are refused."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import aclosing

import numpy as np
import pytest

from ptbr_slm.app.errors import sentence
from ptbr_slm.app.reader import ONE_BY_ONE, Reader, json_line
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.prompt import TokenPrompt

TEXT = "O rio corre, não é? 🙂"
VALUES = (12, 0.9, 0.95, 0, 1.0, 7)


@pytest.fixture(scope="module")
def reader(page) -> Reader:
    return Reader(page.writer)


def continued(reader: Reader, ids: list[int], *values: object) -> list[dict]:
    async def run() -> list[dict]:
        async with aclosing(reader.continued(ids, *(values or VALUES))) as parts:
            return [facts async for facts in parts]

    return asyncio.run(run())


def test_a_text_is_read_with_the_model_s_own_probabilities(reader, page):
    tokenizer = page.model.engine.tokenizer
    pieces = asyncio.run(reader.read(TEXT))["pieces"]
    ids = tokenizer.encode(TEXT)
    assert [piece["id"] for piece in pieces] == ids
    assert pieces[0]["logprob"] is None and pieces[0]["top"] == []
    wanted = page.model.logprobs(ids)
    assert [piece["logprob"] for piece in pieces[1:]] == pytest.approx(wanted.tolist(), abs=1e-3)
    logits = page.model.logits(ids)
    for place, piece in enumerate(pieces[1:]):
        scores = logits[place, : tokenizer.vocab_size]
        assert piece["rank"] == 1 + int((scores > scores[piece["id"]]).sum())
        assert [each[0] for each in piece["top"]] == np.argsort(-scores, kind="stable")[:10].tolist()
    assert sum(piece["bytes"] for piece in pieces) == len(TEXT.encode())


def test_an_alternative_is_continued_as_the_engine_continues_its_ids(reader, page):
    ids = page.model.engine.tokenizer.encode("Era uma")
    parts = continued(reader, ids)
    pieces = [piece for part in parts for piece in part["pieces"]]
    options = {"max_new_tokens": 12, "temperature": 0.9, "top_p": 0.95, "seed": 7, "logprobs": 0}
    wanted = page.model.generate_detailed(TokenPrompt(tuple(ids)), **options)
    assert tuple(piece["id"] for piece in pieces) == wanted.tokens
    assert [p["logprob"] for p in pieces] == pytest.approx([s.logprob for s in wanted.logprobs], abs=1e-3)
    assert [text for text, _, _ in parts[0]["base"]] == [
        "<|bos|>",
        *page.model.engine.tokenizer.tokens(ids[1:]),
    ]
    assert [part["ended"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1]["line"].startswith("12 tokens") and "semente 7" in parts[-1]["line"]


def test_the_status_line_speaks_the_visitor_s_language(reader, page):
    async def run() -> list[dict]:
        ids = page.model.engine.tokenizer.encode("Era uma")
        return [facts async for facts in reader.continued(ids, *VALUES, language="en")]

    assert "seed 7" in asyncio.run(run())[-1]["line"]


def test_a_character_that_the_alternative_begins_is_whole_once_the_continuation_completes_it(reader, page):
    tokenizer = page.model.engine.tokenizer
    start, accent = (
        next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == bytes([byte]))
        for byte in (0xC3, 0xA9)
    )
    ids = [*tokenizer.encode("caf"), start]
    real = reader._writer.chunks

    async def chunks(prompt: object, options: dict) -> object:  # the model's first choice completes the "é"
        async for chunk in real(prompt, options | {"logit_bias": {accent: 100.0}}):
            yield chunk

    reader._writer.chunks = chunks
    try:
        parts = continued(reader, ids, 1, 0.0, 1.0, 0, 1.0, 1)
    finally:
        del reader._writer.chunks
    base = [part["base"] for part in parts if "base" in part][-1]
    assert base[-1] == ["é", "", 1] and parts[-1]["pieces"][-1]["text"] == "‹A9›"


def test_the_next_token_s_facts_are_the_model_s_logits(reader, page):
    tokenizer = page.model.engine.tokenizer
    facts = asyncio.run(reader.next_token("Era uma vez"))
    logits = page.model.logits(facts["ids"])[-1][: tokenizer.vocab_size]
    told = {each["id"]: each for each in facts["tokens"]}
    assert {i for i, each in told.items() if each["seen"]} == set(facts["ids"])
    assert sum(not each["seen"] for each in told.values()) == ONE_BY_ONE
    for token, each in told.items():
        assert each["logit"] == pytest.approx(float(logits[token]), abs=1e-4)
    others = [float(logits[i]) for i in range(tokenizer.vocab_size) if i not in told]
    assert sum(count for _, count in facts["levels"]) == len(others)
    assert max(others) <= min(each["logit"] for each in told.values() if not each["seen"]) + 1e-4
    assert (facts["text"], facts["pending"], facts["context"]) == ("Era uma vez", "", 2048)


def test_appended_ids_are_the_text_and_an_unfinished_character_waits(reader, page):
    tokenizer = page.model.engine.tokenizer
    start = next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == b"\xc3")
    ids = [*tokenizer.encode("Era"), start]
    facts = asyncio.run(reader.next_token(ids))
    assert (facts["ids"], facts["text"], facts["pending"]) == (ids, "Era", "C3")


@pytest.mark.parametrize(
    "what", [{"ids": 3}, "", None, ["a"], [True], [10**9], [], "casa " * 5000, "a" * 10**6]
)
def test_what_is_no_text_or_too_long_is_refused_in_portuguese(reader, what):
    with pytest.raises(SlmError) as caught:
        asyncio.run(reader.next_token(what))
    assert caught.value.code == ("E_PROMPT_TOO_LONG" if len(what or "") > 1000 else "E_PROMPT")
    assert not {"must", "should", "invalid"} & set(sentence(caught.value, "pt").lower().split())


@pytest.mark.parametrize("ids", [None, "texto", [1.5], [-1]])
def test_ids_that_are_none_are_refused(reader, ids):
    with pytest.raises(SlmError):
        continued(reader, ids)


def test_closing_the_reader_ends_the_text(reader, page):
    async def run() -> None:
        parts = reader.continued(page.model.engine.tokenizer.encode("Era"), 2000, 1.0, 1.0, 0, 1.0, 1)
        await anext(parts)
        assert page.model.load_figures().running == 1
        await parts.aclose()
        while page.model.load_figures().running:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_line_for_the_browser_is_json_without_markup():
    facts = {"text": "<script>\n", "n": math.pi}
    line = json_line(facts)
    assert "<" not in line and line.endswith("\n") and line.count("\n") == 1
    assert json.loads(line) == facts
