"""Bits per byte, and which text they are measured on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import bits_per_byte
from ptbr_slm.eval.held_out import BUILT_IN, built_in_text, held_out_text, run_data
from ptbr_slm.tokenizer import Tokenizer


def test_a_uniform_guess_costs_log2_v_bits_a_token_and_special_tokens_cost_nothing():
    lengths = np.array([0, 1, 2, 5], dtype=np.int32)
    window = np.array([0, 1, 2, 0, 3], dtype=np.int64)  # targets 1, 2, special, 3: 8 bytes
    measured = bits_per_byte(lambda ids: np.zeros((len(ids), 4), dtype=np.float32), [window], lengths)
    assert (measured.targets, measured.bytes) == (3, 8)
    assert measured.value == pytest.approx(3 * math.log2(4) / 8)


def test_the_nats_are_pytorchs_cross_entropy():
    generator = np.random.default_rng(0)
    table = (30 * generator.standard_normal((300, 50))).astype(np.float32)
    ids = generator.integers(0, 50, 301)
    measured = bits_per_byte(lambda _: table, [ids], np.ones(50, dtype=np.int32))
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(table).double(), torch.from_numpy(ids[1:]), reduction="sum"
    )
    assert measured.nats == pytest.approx(float(expected), rel=1e-6)


def test_windows_count_every_target_once(tokenizer):
    text = built_in_text(tokenizer, 64, tokens=10_000)
    assert {len(window) for window in text.windows[:-1]} == {65}
    whole = [int(text.windows[0][0]), *(int(i) for window in text.windows for i in window[1:])]
    assert tokenizer.decode(whole).startswith("A feira da rua Doze começa antes do sol.")
    assert tokenizer.decode(whole).endswith("ela era só nossa.")


@pytest.fixture(scope="module")
def prepared(tokenizer, texts, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dados")
    for number in range(30):
        text = f"Texto {number}. " + " ".join(texts[(number + i) % len(texts)] for i in range(6))
        (root / f"{number}.txt").write_text(text, encoding="utf-8")
    prepare([root], root / "prontos", tokenizer, valid_fraction=0.2)
    return root / "prontos"


def test_the_text_is_the_one_named_or_the_runs_own_or_ours(prepared, tokenizer, tied, tmp_path):
    assert held_out_text(tied, tokenizer, 32).name == BUILT_IN
    named = held_out_text(tied, tokenizer, 32, data=prepared)
    assert named.name == str(prepared) and all(len(window) <= 33 for window in named.windows)
    for model in ("final", "checkpoints/step-00000500"):
        (tmp_path / "run" / model).mkdir(parents=True)
        (tmp_path / "run" / "config.resolved.toml").write_text(f'data = "{prepared}"\n')
        of_the_run = held_out_text(tmp_path / "run" / model, tokenizer, 32)
        assert of_the_run.name == str(prepared)
    (tmp_path / "run" / "config.resolved.toml").write_text('data = "/nada/dados"\n')
    assert run_data(tmp_path / "run" / "final") == Path("/nada/dados")
    assert held_out_text(tmp_path / "run" / "final", tokenizer, 32).name == BUILT_IN


def test_data_of_another_tokenizer_are_refused(prepared, texts, tied):
    with pytest.raises(SlmError) as caught:
        held_out_text(tied, Tokenizer.train(texts, 300), 32, data=prepared)
    assert caught.value.code == "E_TOKENIZER_MISMATCH"
