"""Prompt-lookup drafts: the same text as without them, in fewer runs where the text repeats itself."""

from __future__ import annotations

import pytest
from batch_readers import step
from hypothesis import given
from hypothesis import strategies as st
from near_ties import assert_same_but_for_near_ties

from ptbr_slm.runtime.batch import Batch
from ptbr_slm.runtime.drafting.costs import StepCosts
from ptbr_slm.runtime.drafting.lookup import LookupDrafter
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sequence import PromptState, make_sequences


class FreeCosts(StepCosts):
    """Of a machine on which a further token costs nothing: drafts are as long as they may be."""

    def passed(self, tokens, seconds):
        pass

    def relative(self, tokens):
        return 1.0


def costs_of(**relative):
    """Of a machine on which a pass over `two=` tokens costs so many steps, and so on."""
    costs = StepCosts()
    costs.passed(1, 1.0)
    for size, name in enumerate(("two", "three", "four", "five"), start=2):
        if name in relative:
            costs.passed(size, relative[name])
    return costs


def finish(engine, prompt, **options):
    """The result of one text, and how often the engine ran."""
    [sequence] = make_sequences(engine, [PromptState(prompt)], SamplingParams(**options))
    chunks = []
    sequence.deliver = chunks.append
    batch = Batch(engine)
    batch.costs = FreeCosts()
    batch.submit([sequence])
    before = len(engine.runs)
    while batch.sequences:
        step(batch)
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
    found, also = finish(toy(), [7, 8] * 60, max_new_tokens=300, temperature=0.0, lookahead=3)
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
    draft = drafter.draft(most, FreeCosts())
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
    assert drafter.draft(9, FreeCosts()) == LookupDrafter(ids, 4).draft(9, FreeCosts()) == [4, 1, 2]


def test_a_draft_is_as_long_as_pays_best_on_the_machine():
    """As measured: on AVX2 five tokens cost 2.4 to 2.8 steps in int4, on this AVX-512 1.7."""
    old = costs_of(two=1.14, three=1.85, five=2.6)
    new = costs_of(two=1.1, three=1.3, five=1.7)
    drafter = LookupDrafter([1, 2, 3, 4, 5, 6, 7, 8, 9] * 3, 8)
    assert len(drafter.draft(8, old)) == 1 and len(drafter.draft(8, new)) == 3
    for _ in range(8):
        drafter.learn(1, 1, FreeCosts())
    assert len(drafter.draft(8, new)) > 5  # nearly all comes true, and a further token costs a fifth
    for _ in range(4):
        drafter.learn(8, 1, FreeCosts())
    assert len(drafter.draft(8, new)) < 4


def test_drafts_pause_longer_after_each_miss():
    drafter = LookupDrafter([1, 2, 3] * 9, 4)
    pauses = []
    for _ in range(9):
        drafter.learn(1, 0, FreeCosts())
        pauses.append(0)
        while not drafter.draft(4, FreeCosts()):
            pauses[-1] += 1
    assert pauses == [1, 3, 7, 15, 31, 63, 64, 64, 64]


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
        step(batch)
    assert not [what for what, _ in engine.runs if what == "extend"]
