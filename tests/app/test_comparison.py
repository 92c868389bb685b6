"""Two texts at once, and where they part: without a browser and without Gradio."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from gated_engine import GatedEngine
from toy_engine import ToyEngine

from ptbr_slm.app.comparison import Comparison, Side, shown_text, write_both
from ptbr_slm.app.figures import Progress
from ptbr_slm.app.writer import Writer, sampling
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.results import GenerationChunk
from ptbr_slm.tokenizer import Tokenizer

PROMPT = "O rio corre"


@pytest.fixture(scope="module")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 4, 384)


@pytest.fixture
def toy(tokenizer) -> ToyEngine:
    return ToyEngine(tokenizer)


@pytest.fixture
def writer(toy) -> Writer:
    return Writer(Model.over(toy, Path("toy")))


def side(writer: Writer, temperature: float = 0.8, tokens: int = 30) -> Side:
    return Side(writer, sampling(tokens, temperature, 0.95, 0, 1.0, 7))


def written(comparison: Comparison, prompt: str = PROMPT) -> Comparison:
    async def read() -> None:
        async with aclosing(write_both(prompt, comparison)) as growing:
            async for _ in growing:
                pass

    asyncio.run(read())
    return comparison


def test_the_same_model_settings_and_seed_give_the_same_text_on_both_sides(toy):
    together: list[int] = []
    model, submitted, both = Model.over(toy, Path("toy")), [], threading.Event()

    def submit(*given, **options):
        submitted.append(model.submit(*given, **options))
        if len(submitted) == 2:
            both.set()
        return submitted[-1]

    def step(what: str, slots: list[int]) -> None:
        assert both.wait(60)  # a fast engine ends the first text before the second is asked for
        if what == "decode":
            together.append(len(slots))

    toy.fail, writer = step, Writer(model, submit)
    done = written(Comparison(side(writer), side(writer)))
    first, second = done.sides
    assert first.tokens == second.tokens and len(first.tokens) == 30 == done.common
    assert not done.parted and done.split(0) == (first.text, "", "")
    assert max(together) == 2  # one step of the engine made a token of each


def test_two_settings_part_at_the_first_token_that_differs(writer):
    done = written(Comparison(side(writer), side(writer, temperature=1.2)))
    (a, b), common = done.sides, done.common
    assert done.parted and a.tokens[:common] == b.tokens[:common] and a.tokens[common] != b.tokens[common]
    for index, own in enumerate(done.sides):
        same, mark, rest = done.split(index)
        assert (
            same + mark + rest == own.text == own.writer.model.generate(PROMPT, **own.options)
        )  # and each side is the text that its settings give alone
        assert same == "".join(own.pieces[:common])


def test_a_text_that_ends_where_the_other_goes_on_has_parted(writer):
    done = written(Comparison(side(writer, tokens=10), side(writer, tokens=20)))
    assert done.parted and done.common == 10
    assert done.split(0)[1:] == ("", "") and done.split(1)[2]


def test_a_mark_on_half_a_character_covers_the_whole_one(writer):
    both = Comparison(side(writer), side(writer))
    for own, pieces in zip(both.sides, ([(1, "a"), (2, ""), (3, "é!")], [(1, "a"), (4, "b")]), strict=True):
        for token, text in pieces:
            own.add(GenerationChunk(text, token), Progress(0.0, 512, 7))
    assert both.split(0) == ("a", "é!", "") and both.split(1) == ("a", "b", "")


def test_models_of_other_tokenizers_are_compared_by_characters(writer, texts):
    other = Writer(Model.over(ToyEngine(Tokenizer.train(texts * 4, 300)), Path("outro")))
    done = written(Comparison(side(writer), side(other)))
    first, second = (own.text for own in done.sides)
    assert not done.by_token and first[: done.common] == second[: done.common]
    assert "".join(done.split(0)) == first and len(done.split(0)[1]) == 1


def test_closing_the_comparison_ends_both_texts(writer, toy):
    toy.fail = lambda what, slots: time.sleep(0.002)

    async def begin_and_leave() -> None:
        async with aclosing(write_both(PROMPT, Comparison(side(writer), side(writer, 1.2, 400)))) as growing:
            async for _ in growing:
                assert writer.model.load_figures().running == 2
                break

    asyncio.run(begin_and_leave())
    deadline = time.monotonic() + 10
    while writer.model.load_figures().running:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_page_that_is_closed_before_the_first_token_is_noticed(tokenizer):
    gated = GatedEngine(tokenizer)
    writer = Writer(Model.over(gated, Path("parado")))

    async def leave() -> None:
        growing = write_both(PROMPT, Comparison(side(writer), side(writer)))
        async with asyncio.timeout(20), aclosing(growing):
            for _ in range(3):  # Gradio looks whether somebody is there when something is yielded
                await anext(growing)

    asyncio.run(leave())
    gated.open()
    assert writer.model.drain(10) and len(gated.runs) < 4


def test_a_side_that_cannot_write_ends_the_other_and_says_why(writer, tokenizer):
    short = Writer(Model.over(ToyEngine(tokenizer, context=16), Path("curto")))
    both = Comparison(side(writer, tokens=300), side(short, tokens=8))
    with pytest.raises(SlmError) as caught:
        written(both, PROMPT * 20)
    assert caught.value.code == "E_PROMPT_TOO_LONG"
    assert writer.model.drain(10) and len(both.sides[0].tokens) < 300


def test_a_prompt_and_a_text_with_markup_are_shown_as_they_are():
    shown = shown_text("<b>x</b>", ("<script>alert(1)</script>", "<i>", "${x} & {{y}}"))
    assert "<script" not in shown and "<b>x" not in shown
    assert "<mark>&lt;i&gt;</mark>${x} &amp; {{y}}" in shown
