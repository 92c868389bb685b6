"""--resume auto finds the run of an earlier notebook version below /kaggle/input, and copies it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from listeners import StopAfter

from ptbr_slm.errors import SlmError
from ptbr_slm.train.checkpoint.files import read_state
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train


@pytest.fixture
def kaggle(tmp_path, monkeypatch) -> Path:
    """A pretended /kaggle."""
    root = tmp_path / "kaggle"
    (root / "input").mkdir(parents=True)
    (root / "working").mkdir()
    monkeypatch.setenv("PTBR_SLM_KAGGLE_ROOT", str(root))
    return root


def mounted(run: Path, kaggle: Path, name: str = "notebooks/ana/treino/runs/x") -> Path:
    """The run as the next version sees it: elsewhere and read-only."""
    target = kaggle / "input" / name
    shutil.copytree(run, target)
    (target / "lock").unlink(missing_ok=True)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return target


@pytest.fixture(autouse=True)
def _writable_again(tmp_path):
    yield
    for folder, names, _ in os.walk(tmp_path):
        for name in names:
            (Path(folder) / name).chmod(0o755)


def stopped_at(settings, output: Path, step: int) -> Path:
    """A run that was stopped after `step` steps."""
    train(settings({"output": output, "checkpoint.every": 2}), StopAfter(step=step))
    return output


def test_the_next_version_goes_on_bit_for_bit_with_its_history(
    settings, tmp_path, kaggle, monkeypatch, weights, recorder
):
    train(settings({"checkpoint.every": 2}))
    before = mounted(stopped_at(settings, tmp_path / "first", 5), kaggle)
    config = settings({"output": kaggle / "working" / "runs" / "x", "checkpoint.every": 2})
    assert train(config, recorder).status == "done"
    (copied,) = recorder.named("copied")
    assert copied["step"] == 5 and copied["from"] == str(before / "checkpoints" / "step-00000005")
    assert "sha256" in copied["message"] and recorder.named("resume")[0]["step"] == 5
    assert weights(config.output / "final") == weights(tmp_path / "run" / "final")
    losses = [[(r["step"], r["loss"]) for r in read_metrics(run / "metrics.jsonl") if r["event"] == "step"]
              for run in (config.output, tmp_path / "run")]  # fmt: skip
    assert losses[0] == losses[1] and len(losses[0]) == 8
    copy = config.output / "checkpoints" / "step-00000005"
    assert all(path.stat().st_mode & stat.S_IWUSR for path in [copy, *copy.rglob("*")]), "not read-only"


def test_a_newer_local_checkpoint_wins_and_another_run_is_left_alone(
    settings, tmp_path, kaggle, monkeypatch, recorder, corpus, texts
):
    mounted(stopped_at(settings, tmp_path / "old", 2), kaggle)
    mounted(stopped_at(settings, tmp_path / "new", 3), kaggle, "second/runs/x")
    own = stopped_at(settings, tmp_path / "own", 6)
    train(settings({"output": own, "checkpoint.every": 2}), recorder)
    assert not recorder.named("copied") and recorder.named("resume")[0]["step"] == 6
    recorder.events.clear()
    train(settings({"output": tmp_path / "again", "checkpoint.every": 2}), recorder)
    assert recorder.named("copied")[0]["step"] == 3, "the newest of those below /kaggle/input"
    recorder.events.clear()
    other = settings({"output": tmp_path / "other", "model.num_layers": 1})
    train(other, recorder)
    assert not recorder.named("copied") and not recorder.named("resume")


def test_a_corrupt_one_is_named_and_skipped_for_the_one_before(
    settings, tmp_path, kaggle, monkeypatch, recorder
):
    run = stopped_at(settings, tmp_path / "first", 5)
    file = run / "checkpoints" / "step-00000005" / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    (run / "checkpoints" / "step-00000002" / "training" / "state.json").write_text("{")
    mounted(run, kaggle)
    config = settings({"output": tmp_path / "next", "checkpoint.every": 2})
    assert train(config, recorder).status == "done"
    warnings = [w["message"] for w in recorder.named("warning") if w["code"] == "E_CHECKPOINT_CORRUPT"]
    assert len(warnings) == 2 and "step-00000002" in warnings[0] and "step-00000005" in warnings[1]
    assert recorder.named("copied")[0]["step"] == 4
    assert not (config.output / "checkpoints" / "step-00000005.corrupt").exists()
    assert not list(config.output.rglob(".tmp-*"))


def test_other_settings_of_the_same_run_are_listed_and_refused(settings, tmp_path, kaggle, monkeypatch):
    mounted(stopped_at(settings, tmp_path / "first", 4), kaggle)
    with pytest.raises(SlmError) as caught:
        train(settings({"output": tmp_path / "next", "seed": 7}))
    assert caught.value.code == "E_CONFIG_CHANGED" and "seed 0 -> 7" in caught.value.message
    assert "--resume never" in caught.value.hint and not (tmp_path / "next").exists()
    assert train(settings({"output": tmp_path / "next", "seed": 7, "resume": "never"})).status == "done"


def test_a_run_of_the_same_course_is_preferred_to_a_newer_one_of_another(
    settings, tmp_path, kaggle, monkeypatch, recorder
):
    mounted(stopped_at(settings, tmp_path / "same", 3), kaggle, "a/runs/x")
    train(settings({"output": tmp_path / "other", "seed": 3, "resume": "never"}))
    mounted(tmp_path / "other", kaggle, "b/runs/x")
    train(settings({"output": tmp_path / "next"}), recorder)
    assert recorder.named("copied")[0]["step"] == 3


def test_resume_never_does_not_look_there(settings, tmp_path, kaggle, monkeypatch, recorder):
    mounted(stopped_at(settings, tmp_path / "first", 4), kaggle)
    train(settings({"output": tmp_path / "next", "resume": "never"}), recorder)
    assert not recorder.named("copied") and not recorder.named("resume")


def test_a_kill_while_copying_leaves_nothing_that_counts(settings, tmp_path, kaggle, monkeypatch):
    from ptbr_slm.train.checkpoint import kaggle_input

    mounted(stopped_at(settings, tmp_path / "first", 4), kaggle)
    config = settings({"output": tmp_path / "next"})

    def die(checkpoint):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kaggle_input, "read_state", die)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert not list((tmp_path / "next").rglob("step-*"))
    assert train(config).status == "done"
    assert read_state(config.output / "checkpoints" / "step-00000008").step == 8
