"""find-lr: a curve over rates on the real model and data, a suggestion, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.train.find_lr import PEAK_SHARE, find_lr, plot


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_falls_then_rises_and_the_suggestion_stays_below_the_lowest(settings, optimizer):
    found = find_lr(settings({"optimizer.name": optimizer}), steps=60, highest=10.0)
    rates = [point.rate for point in found.points]
    assert rates[0] == pytest.approx(1e-5) and rates == sorted(rates)
    assert found.diverged and len(found.points) < 60
    assert found.lowest.smoothed < found.points[0].smoothed - 0.1
    assert found.points[-1].smoothed > found.lowest.smoothed + 0.3
    assert found.suggestion == pytest.approx(PEAK_SHARE * found.lowest.rate, rel=0.1)
    assert found.optimizer == optimizer and found.tokens_per_step == 64


def test_the_same_command_gives_the_same_curve(settings):
    one, other = (find_lr(settings(), steps=12, highest=0.1) for _ in range(2))
    assert one == other and not one.diverged


def test_a_run_folder_is_neither_made_nor_touched(settings, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    find_lr(settings(), steps=10)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_plot_names_the_suggestion(settings):
    found = find_lr(settings(), steps=12)
    assert plot(found).startswith("<?xml") and "<svg" in plot(found)


def test_too_little_text_is_refused_as_train_would(settings):
    with pytest.raises(SlmError) as caught:
        find_lr(settings({"seq_len": 100_000, "model.max_seq_len": 100_000}), steps=10)
    assert caught.value.code == "E_DATA_TOO_SMALL"


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ptbr_slm", *arguments],
        capture_output=True, text=True, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_the_train_command_with_another_verb_is_a_find_lr_command(train_arguments, tmp_path):
    arguments = ["find-lr", *train_arguments(tmp_path / "run", **{"optimizer.name": "auto"})[1:]]
    done = command(*arguments, "--steps", "15", "--json", "--svg", "curva.svg",
                   folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert len(answer["points"]) <= 15 and answer["optimizer"] == "muon"
    assert answer["learning_rate"] < answer["lowest_loss_rate"]
    assert [path.name for path in tmp_path.iterdir()] == ["curva.svg"]


def test_rates_that_do_not_grow_are_refused(train_arguments, tmp_path):
    done = command("find-lr", *train_arguments(tmp_path / "run")[1:], "--min-rate", "1", "--max-rate", "0.1",
                   folder=tmp_path)  # fmt: skip
    assert done.returncode == 2 and "E_USAGE" in done.stderr and "--min-rate" in done.stderr


def test_onde_of_a_refusal_names_the_data_and_not_the_temporary_folder(settings, tokenizer_file, tmp_path):
    (tmp_path / "curto.txt").write_text("Uma linha só.\n", encoding="utf-8")
    config = settings({"data": tmp_path / "curto.txt", "tokenizer": tokenizer_file, "seq_len": 64})
    with pytest.raises(SlmError) as caught:
        find_lr(config, steps=10)
    assert caught.value.code == "E_DATA_TOO_SMALL" and caught.value.where == str(tmp_path / "curto.txt")
