"""Bits per byte and samples."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from ptbr_slm.eval.bits import held_out_windows
from ptbr_slm.model import Llama
from ptbr_slm.train.evaluate import bits_per_byte, write_sample
from ptbr_slm.train.planning.plan import make_plan
from ptbr_slm.train.planning.precision import Precision

FP32 = Precision("fp32", "")


@pytest.fixture
def model(settings, prepared):
    return Llama(make_plan(settings(), prepared.load_tokenizer()).model).initialize(0)


def test_bits_per_byte_is_nats_over_ln_2_over_the_bytes_of_the_text(model, prepared):
    """The whole held-out part, written out: special tokens count neither as nats nor as bytes."""
    tokenizer, split = prepared.load_tokenizer(), prepared.split("valid")
    ids, nats, size = split.read(0, split.tokens).tolist(), 0.0, 0
    edges = [0, *range(16, len(ids) - 1, 8), len(ids) - 1]  # what the first window counts, then halves
    for first, last in pairwise(edges):
        begin = max(0, last - 16)
        window = torch.tensor(ids[begin : last + 1])
        scores = F.log_softmax(model(window[None, :-1])[0].detach().double(), dim=-1)
        for position, target in enumerate(window[1:].tolist()):
            if begin + position >= first and target not in tokenizer.special_ids:
                nats -= float(scores[position, target])
                size += int(tokenizer.byte_lengths[target])
    text = held_out_windows(split, tokenizer, 16, 10**9)
    assert size == text.bytes
    assert size == split.bytes, "every byte of the held-out texts is predicted once"
    assert bits_per_byte(model, text, 7, FP32) == pytest.approx(nats / math.log(2) / size, rel=1e-6)


def test_a_limit_in_tokens_spreads_over_the_whole_part(prepared):
    split, tokenizer = prepared.split("valid"), prepared.load_tokenizer()
    text = held_out_windows(split, tokenizer, 16, 160)
    assert text.inputs.shape == (1 + (160 - 16) // 8, 16)
    assert text.inputs[-1][0] != held_out_windows(split, tokenizer, 16, 10**9).inputs[18][0]


def test_nothing_held_out_is_no_evaluation(prepared):
    class Empty:
        tokens = 1

    assert held_out_windows(Empty(), prepared.load_tokenizer(), 16, 100) is None


def test_a_sample_is_repeatable_and_leaves_the_random_state(model, prepared):
    tokenizer = prepared.load_tokenizer()
    model.train()
    before = torch.get_rng_state()
    texts = [write_sample(model, tokenizer, tokenizer.encode("O rio"), 12, seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(before, torch.get_rng_state()) and model.training


def test_a_prompt_longer_than_the_context_still_gives_a_sample(model, prepared):
    tokenizer = prepared.load_tokenizer()
    assert isinstance(
        write_sample(model, tokenizer, tokenizer.encode("Maria abriu a janela " * 20), 50, 0), str
    )
