"""Several ranks compute what one does: gradients, losses, weights, checkpoints, in copies and in shards."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.train.checkpoint.files import read_state, restore
from ptbr_slm.train.parallel.parallelize import check_parallel
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks, _avoid_peer_access, check_shares

sys.path.insert(0, str(Path(__file__).parent))
import two_ranks


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path, start_two, no_pickle) -> Path:
    """The folder in which two real gloo ranks left the outcome of all cases; one launch for all tests.

    The ranks cannot pickle.
    """
    folder = tmp_path_factory.mktemp("ranks")
    errors = start_two(two_ranks.__file__, folder, tokenizer_file, env=no_pickle(folder / "pickles"))
    assert not (folder / "pickles").exists(), (folder / "pickles").read_text()
    assert all((folder / f"done.{rank}").exists() for rank in (0, 1)), errors
    return folder


@pytest.mark.parametrize("case", two_ranks.CASES)
def test_two_ranks_compute_what_one_computes(played, case):
    alone = two_ranks.play(case, SINGLE_PROCESS)
    main, other = (dict(np.load(played / f"{case}.{rank}.npz")) for rank in (0, 1))
    half = "scaled" in case  # fp16 rounds its products by 2^-11, and micro-batches are cut differently
    scale = max(np.abs(value).max() for key, value in alone.items() if key.startswith("gradient"))
    for key, value in alone.items():
        if key.startswith("gradient"):
            assert np.abs(main[key] - value).max() <= (4e-3 if half else 1e-6) * scale, key
        elif key.startswith("weight"):
            np.testing.assert_allclose(main[key], value, atol=5e-2 if half else 2e-4, err_msg=key)
        else:  # courses drift apart as Adam divides by small roots: fp16's far, fp32's to 1.1e-5 in a norm
            np.testing.assert_allclose(main[key], value, rtol=0.1 if half else 5e-5, err_msg=key)
            assert np.array_equal(main[key], other[key]), f"{key} differs between the ranks"


def test_the_fp16_case_skips_a_step_on_both_ranks(played):
    for case in ("scaled", "sharded, scaled"):
        main, other = (dict(np.load(played / f"{case}.{rank}.npz")) for rank in (0, 1))
        assert main["applied"].all() and not main["overflow applied"] and not other["overflow applied"]
        assert main["scale after it"] == other["scale after it"] == 2.0**59


def test_a_micro_batch_that_is_no_number_is_blamed_alone_and_not_the_other_ranks_last(played):
    for rank in (0, 1):
        for case, named in json.loads((played / f"blamed.{rank}.json").read_text()).items():
            assert named == [two_ranks.SPOILT[case.split()[1]]], case


def test_one_process_goes_on_from_shards(played, tokenizer_file):
    checkpoint = played / "fsdp" / "step-00000002"
    ModelFolder.open(checkpoint)
    assert read_state(checkpoint).step == 2
    assert len(list((checkpoint / "training" / "shards").glob("*.safetensors"))) == 2
    again, undisturbed = (two_ranks.Run("even", SINGLE_PROCESS) for _ in range(2))
    restore(checkpoint, again.model, again.optimizer)
    for number in range(3):
        undisturbed.step(number)
    again.step(2)
    for key, value in undisturbed.weights().items():
        np.testing.assert_allclose(again.weights()[key], value, atol=2e-4, err_msg=key)
    assert Llama.from_folder(checkpoint).config == again.model.config


def test_a_step_with_fewer_sequences_than_ranks_is_refused_with_what_to_change(settings):
    check_shares(settings({"batch_size": 1, "grad_accum": 3}), Ranks(0, 2))
    with pytest.raises(SlmError) as caught:
        check_shares(settings({"batch_size": 1, "grad_accum": 1}), Ranks(0, 2))
    assert caught.value.code == "E_CONFIG" and "--grad-accum 2" in caught.value.hint


def test_shares_cover_every_sequence_once_and_evenly():
    for world in (1, 2, 3, 8):
        for count in (8, 9, 31):
            pieces = [Ranks(rank, world).share(count) for rank in range(world)]
            assert [i for piece in pieces for i in range(count)[piece]] == list(range(count))
            sizes = [piece.stop - piece.start for piece in pieces]
            assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("ranks", "how"), [(Ranks(0, 2), "none"), (SINGLE_PROCESS, "fsdp")])
def test_a_way_of_sharing_that_the_ranks_cannot_go_is_refused(ranks, how):
    with pytest.raises(SlmError) as caught:
        check_parallel(ranks, how)
    assert f"--parallel {how}" in caught.value.where


def test_nccl_leaves_peer_access_alone_on_t4s_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("NCCL_P2P_DISABLE", "0")
    _avoid_peer_access("Tesla T4")
    assert os.environ["NCCL_P2P_DISABLE"] == "0"
    monkeypatch.delenv("NCCL_P2P_DISABLE")
    _avoid_peer_access("NVIDIA A100-SXM4-40GB")
    assert "NCCL_P2P_DISABLE" not in os.environ
    _avoid_peer_access("Tesla T4")
    assert os.environ["NCCL_P2P_DISABLE"] == "1"
    monkeypatch.delenv("NCCL_P2P_DISABLE")
