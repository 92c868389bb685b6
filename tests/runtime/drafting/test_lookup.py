"""Prompt-lookup drafts: the same text as without them, in fewer runs where the text repeats itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from near_ties import assert_same_but_for_near_ties

from ptbr_slm.runtime.batch import Batch
from ptbr_slm.runtime.drafting.lookup import LookupDrafter
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sequence import PromptState, make_sequences


def finish(engine, prompt, **options):
    """The result of one text, and how often the engine ran."""
    [sequence] = make_sequences(engine, [PromptState(prompt)], SamplingParams(**options))
    chunks = []
    sequence.deliver = chunks.append
    batch = Batch(engine)
    batch.submit([sequence])
    before = len(engine.runs)
    while batch.sequences:
        batch.step()
    return chunks[-1].result, len(engine.runs) - before


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 5, "temperature": 0.5, "top_k": 2}])
def test_a_text_that_repeats_itself_takes_fewer_runs_and_stays_the_same(toy, options):
    prompt = [7, 8, 9, 10]
    plain, runs = finish(toy(memory=1), prompt, max_new_tokens=300, **options)
    found, fewer = finish(toy(memory=1), prompt, max_new_tokens=300, lookahead=8, **options)
    assert (found.tokens, found.text, found.finish_reason) == (plain.tokens, plain.text, plain.finish_reason)
    assert (plain.drafted, plain.accepted) == (0, 0)
    assert 0 < found.accepted <= found.drafted
    assert fewer == runs - found.accepted
    if options["temperature"] == 0:
        assert fewer < runs / 2


def test_drafts_that_never_come_true_are_soon_given_up(toy):
    """Two words that take turns in the prompt; the toy goes on with anything but them."""
    plain, runs = finish(toy(), [7, 8] * 60, max_new_tokens=300, temperature=0.0)
    found, also = finish(toy(), [7, 8] * 60, max_new_tokens=300, temperature=0.0, lookahead=8)
    assert found.tokens == plain.tokens
    assert found.drafted < 30
    assert also <= runs


def test_a_draft_never_runs_past_the_context(toy):
    engine = toy(memory=1, context=64)
    found, _ = finish(engine, [7, 8, 9] * 10, max_new_tokens=500, temperature=0.0, lookahead=32)
    plain, _ = finish(toy(memory=1, context=64), [7, 8, 9] * 10, max_new_tokens=500, temperature=0.0)
    assert found.tokens == plain.tokens
    assert found.finish_reason in ("context", "eos")


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 4), st.integers(0, 9))
def test_a_draft_is_what_followed_the_latest_match(ids, limit, most):
    drafter = LookupDrafter(ids, limit)
    draft = drafter.draft(most)
    assert len(draft) <= min(limit, most)
    for size in (3, 2):
        ends = [end for end in range(size, len(ids)) if ids[end - size : end] == ids[-size:]]
        if ends:
            assert draft == ids[ends[-1] : ends[-1] + min(limit, most)]
            return
    assert draft == []


def test_a_growing_text_is_known_as_a_whole_one_is():
    ids = [1, 2, 3, 1, 2, 4, 1, 2]
    grown = list(ids[:3])
    drafter = LookupDrafter(grown, 4)
    for token in ids[3:]:
        grown.append(token)
        drafter.push()
    assert drafter.draft(9) == LookupDrafter(ids, 4).draft(9) == [4, 1, 2]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"seed": 3}, {"temperature": 0.0, "stop": ["a"]}])
def test_on_a_real_export_drafts_change_nothing(export_folder, options):
    prompt = "O rio corre devagar. O rio corre devagar. O rio corre"
    with Model(export_folder) as model:
        plain = model.generate_detailed(prompt, max_new_tokens=200, **options)
        found = model.generate_detailed(prompt, max_new_tokens=200, lookahead=5, **options)
        assert_same_but_for_near_ties(model, prompt, found, plain, **options)
    assert found.drafted > 0 or "seed" in options


def test_sequences_that_share_a_batch_do_not_draft(toy):
    engine = toy(memory=1)
    prompts = [PromptState([7, 8, 9]), PromptState([9, 8, 7])]
    sequences = make_sequences(engine, prompts, SamplingParams(temperature=0.0, lookahead=8))
    batch = Batch(engine)
    batch.submit(sequences)
    for _ in range(30):
        batch.step()
    assert not [what for what, _ in engine.runs if what == "extend"]
