"""Going on: bit for bit after any stop, from the newest valid checkpoint, never on that of another run."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from listeners import StopAfter

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.lock import run_lock
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train import trainer
from ptbr_slm.train.checkpoint.files import list_checkpoints, read_state, write_checkpoint
from ptbr_slm.train.planning import plan
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train


def fails(code: str, config) -> SlmError:
    with pytest.raises(SlmError) as caught:
        train(config)
    assert caught.value.code == code, caught.value
    return caught.value


COURSE = ("event", "step", "loss", "learning_rate", "grad_norm", "tokens", "scale", "skipped",
          "bits_per_byte", "prompt", "text")  # fmt: skip
"""What a record says of the run; the rest is of the machine and the clock."""


def metrics(run_folder: Path) -> list[dict]:
    """What metrics.jsonl says of the run."""
    return [{k: r[k] for k in COURSE if k in r} for r in read_metrics(run_folder / "metrics.jsonl")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 3, 4])
def test_stop_and_resume_give_the_run_that_was_never_stopped(
    settings, tmp_path, monkeypatch, weights, number, step
):
    evaluated = {"evaluation.every": 2, "evaluation.sample_tokens": 4, "schedule.kind": "wsd"}
    train(settings(evaluated))
    config = settings({**evaluated, "output": tmp_path / "stopped"})
    stopped = train(config, StopAfter(step=step, number=number))
    assert stopped.status == "stopped" and stopped.step == step
    assert stopped.exit_code == (75 if number == signal.SIGTERM else 130)
    assert (
        stopped.model == config.output / "checkpoints" / f"step-{step:08d}"
        and not (config.output / "final").exists()
    )
    assert train(config).status == "done"
    assert weights(config.output / "final") == weights(tmp_path / "run" / "final")
    assert metrics(config.output) == metrics(tmp_path / "run")


def test_second_ctrl_c_stops_at_once_and_leaves_no_half_checkpoint(settings, monkeypatch, weights):
    config = settings({"checkpoint.every": 2})
    before = signal.getsignal(signal.SIGINT)  # SIG_IGN where a shell started the tests in the background

    def interrupted(*_, **__):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(trainer, "write_checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, StopAfter(step=3, number=signal.SIGINT))
    monkeypatch.undo()
    assert not list(config.output.rglob(".tmp-*"))
    assert signal.getsignal(signal.SIGINT) is before
    assert train(config).status == "done"


def test_lines_beyond_the_resumed_step_and_a_half_line_are_dropped(settings, monkeypatch, tmp_path):
    train(settings())
    config = settings({"output": tmp_path / "killed"})
    train(config, StopAfter(step=3))
    with (config.output / "metrics.jsonl").open("a") as file:  # as a kill at step 5 would leave it
        file.write('{"event": "step", "step": 4, "loss": 9.0}\n{"event": "step", "step": 5, "lo')
    train(config)
    assert metrics(config.output) == metrics(tmp_path / "run")


def broken(kind: str, checkpoint: Path) -> None:
    weights, state = checkpoint / "model.safetensors", checkpoint / "training" / "state.json"
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "empty":
        (checkpoint / "training" / "optimizer.safetensors").write_bytes(b"")
    elif kind == "one bit":
        raw = bytearray(weights.read_bytes())
        raw[len(raw) // 2] ^= 1
        weights.write_bytes(raw)
    elif kind == "no manifest":
        (checkpoint / "manifest.json").unlink()
    elif kind == "manifest is not JSON":
        (checkpoint / "manifest.json").write_text("{")
    elif kind == "missing file":
        state.unlink()


KINDS = ["truncated", "empty", "one bit", "no manifest", "manifest is not JSON", "missing file"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_corrupt_newest_checkpoint_is_told_set_aside_and_the_one_before_used(
    settings, recorder, weights, kind
):
    config = settings()
    train(config)
    expected = weights(config.output / "final")
    shutil.rmtree(config.output / "final")
    broken(kind, config.output / "checkpoints" / "step-00000008")
    assert train(config, recorder).status == "done"
    (warning,) = recorder.named("warning")
    assert warning["code"] == "E_CHECKPOINT_CORRUPT" and "step-00000008.corrupt" in warning["message"]
    assert recorder.named("resume")[0]["step"] == 4
    assert (config.output / "checkpoints" / "step-00000008.corrupt").is_dir()
    assert weights(config.output / "final") == expected


def test_when_all_checkpoints_are_corrupt_nothing_is_silently_begun_anew(settings):
    config = settings()
    train(config)
    for checkpoint in list_checkpoints(config.output / "checkpoints"):
        broken("truncated", checkpoint)
    for _ in range(2):  # the second time they are called .corrupt already
        assert fails("E_CHECKPOINT_CORRUPT", config).exit_code == 3
    assert train(settings({"resume": "never"})).status == "done"


def test_a_checkpoint_of_a_newer_version_is_named_and_kept(settings):
    config = settings()
    train(config)
    manifest = config.output / "checkpoints" / "step-00000008" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": 9}))
    assert fails("E_SCHEMA", config).exit_code == 3
    assert manifest.exists()


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ({"batch_size": 4}, "tokens_per_step 64 -> 128"),
        ({"optimizer.weight_decay": 0.2}, "optimizer.weight_decay 0.1 -> 0.2"),
        ({"seed": 5}, "seed 0 -> 5"),
        ({"max_steps": 20}, "max_steps 8 -> 20"),
    ],
)
def test_changed_settings_are_listed_and_refused_unless_accepted(settings, change, listed):
    train(settings())
    error = fails("E_CONFIG_CHANGED", settings(change))
    assert listed in error.message and "--allow-config-change" in error.hint and error.exit_code == 3
    assert train(settings({**change, "allow_config_change": True})).status == "done"


def test_another_shape_is_refused_even_when_changes_are_accepted(settings):
    train(settings())
    error = fails("E_CONFIG_CHANGED", settings({"model.num_layers": 3, "allow_config_change": True}))
    assert "num_hidden_layers 2 -> 3" in error.message
    fails("E_CONFIG_CHANGED", settings({"seq_len": 32, "allow_config_change": True}))


def test_settings_that_do_not_alter_the_course_may_change(settings):
    train(settings())
    free = {"checkpoint.every": 1, "evaluation.every": 3, "checkpointing": "full", "max_time": "9h"}
    assert train(settings(free)).status == "done"


def test_other_data_and_another_tokenizer_are_refused(settings, corpus, texts, tmp_path, tokenizer_file):
    train(settings())
    other = prepare([corpus], tmp_path / "other", Tokenizer.load(tokenizer_file), valid_fraction=0.2, seed=9)
    error = fails("E_DATA_CORRUPT", settings({"data": other.folder}))
    assert "->" in error.message and error.exit_code == 3
    foreign = prepare([corpus], tmp_path / "foreign", Tokenizer.train(texts, 290), valid_fraction=0.2)
    assert "->" in fails("E_TOKENIZER_MISMATCH", settings({"data": foreign.folder})).message
    assert train(settings()).status == "done"


def test_resume_never_refuses_to_write_over_a_run(settings):
    train(settings())
    assert "--resume auto" in fails("E_EXISTS", settings({"resume": "never"})).hint


def test_resume_from_a_named_checkpoint_of_this_and_of_another_run(settings, tmp_path, weights):
    config = settings()
    train(config)
    expected = weights(config.output / "final")
    middle = config.output / "checkpoints" / "step-00000004"
    elsewhere = settings({"output": tmp_path / "copy", "resume": str(middle)})
    assert train(elsewhere).status == "done"
    assert weights(elsewhere.output / "final") == expected
    assert train(settings({"resume": str(middle)})).status == "done"
    assert (middle.parent / "step-00000008.replaced").is_dir() and weights(
        config.output / "final"
    ) == expected
    fails("E_EXISTS", settings({"output": elsewhere.output, "resume": str(middle)}))
    fails("E_NOT_FOUND", settings({"resume": str(tmp_path / "nada")}))
    broken("one bit", middle)
    fails("E_CHECKPOINT_CORRUPT", settings({"resume": str(middle)}))


def test_two_writers_the_second_is_refused(settings, tmp_path):
    config = settings()
    with run_lock(config.output / "lock"):
        assert "processo" in fails("E_LOCKED", config).message
    assert train(config).status == "done"


def test_a_full_disk_is_foreseen_with_bytes_and_the_checkpoint_before_stays(settings, monkeypatch):
    from collections import namedtuple

    config, usage = settings(), namedtuple("usage", "total used free")

    def full_from_the_second_save(folder, *arguments, **keywords):
        if list_checkpoints(folder):
            monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9, 1_000_000))
        return write_checkpoint(folder, *arguments, **keywords)

    monkeypatch.setattr(trainer, "write_checkpoint", full_from_the_second_save)
    error = fails("E_DISK_FULL", config)
    assert error.exit_code == 5 and "1 MB livres" in error.message
    assert read_state(config.output / "checkpoints" / "step-00000004").step == 4
    assert not list(config.output.rglob(".tmp-*"))


def test_old_checkpoints_go_only_when_the_new_one_is_complete(settings, monkeypatch):
    config = settings({"checkpoint.every": 2, "checkpoint.keep": 1})
    names = []

    def watching(folder, *arguments, **keywords):
        before = [p.name for p in list_checkpoints(folder)]
        path = write_checkpoint(folder, *arguments, **keywords)
        names.append((before, [p.name for p in list_checkpoints(folder)]))
        return path

    monkeypatch.setattr(trainer, "write_checkpoint", watching)
    train(config)
    assert names[0] == ([], ["step-00000002"]) and names[1] == (["step-00000002"], ["step-00000004"])


def test_no_pickle_is_written(settings):
    config = settings()
    train(config)
    endings = {p.suffix for p in config.output.rglob("*") if p.is_file()}
    assert endings <= {".json", ".safetensors", ".toml", ".jsonl", ".md", ".html", ".svg", ""}


def test_the_gradient_scaler_is_saved_and_the_fp16_run_resumes_bit_for_bit(
    settings, tmp_path, monkeypatch, weights
):
    """On the CPU with autocast in fp16, which `choose_precision` itself never picks there."""
    monkeypatch.setattr(plan, "choose_precision", lambda *_: Precision("fp16", "teste"))
    scalers = []
    original = torch.amp.GradScaler

    def eager(device):
        scalers.append(original(device, init_scale=2.0**40, growth_interval=3))
        return scalers[-1]

    monkeypatch.setattr(torch.amp, "GradScaler", eager)
    steps = {"max_steps": 24, "checkpoint.every": 0}
    result = train(settings(steps))
    assert result.skipped_steps > 10, "from a scale of 2^40 the first steps overflow, and are counted"
    config = settings({**steps, "output": tmp_path / "stopped"})
    train(config, StopAfter(step=20))
    state = read_state(config.output / "checkpoints" / "step-00000020")
    assert state.scaler["scale"] == scalers[-1].get_scale() < 2.0**30 and state.skipped_steps > 10
    train(config)
    assert scalers[-1].get_scale() == scalers[0].get_scale()
    assert weights(config.output / "final") == weights(tmp_path / "run" / "final")
    records = [r for r in read_metrics(config.output / "metrics.jsonl") if r["event"] == "step"]
    assert sum(r.get("skipped", False) for r in records) == result.skipped_steps
