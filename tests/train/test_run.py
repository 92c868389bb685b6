"""A whole run: what it writes, refuses and reports."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
import typer
from typer.testing import CliRunner

from ptbr_slm.cli import train as verb
from ptbr_slm.config import model_config
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.train import trainer
from ptbr_slm.train.checkpoint.files import list_checkpoints
from ptbr_slm.train.config_file import load_config
from ptbr_slm.train.planning.plan import dry_run
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train

OBSERVED = {
    "evaluation.every": 4,
    "evaluation.sample_tokens": 6,
    "evaluation.prompts": ["O rio <b>", "Maria"],
}


def fails(code: str, config) -> SlmError:
    with pytest.raises(SlmError) as caught:
        train(config)
    assert caught.value.code == code, caught.value
    return caught.value


def test_a_run_writes_the_layout_of_the_design(settings, recorder, weights):
    config = settings(OBSERVED)
    result = train(config, recorder)
    run = config.output
    assert (result.status, result.exit_code, result.step, result.tokens) == ("done", 0, 8, 8 * 64)
    assert {p.name for p in run.iterdir()} == {
        "config.resolved.toml", "metrics.jsonl", "sessions.jsonl", "lock", "checkpoints", "final",
        "report"}  # fmt: skip
    assert (run / "checkpoints" / "latest").read_text() == "step-00000008\n"
    assert [p.name for p in list_checkpoints(run / "checkpoints")] == ["step-00000008", "step-00000004"]
    assert {p.name for p in (run / "report").iterdir()} == {
        "report.md",
        "report.html",
        "report.json",
        "loss.svg",
        "samples.md",
    }
    ModelFolder.open(run / "final")
    manifest = read_manifest(run / "final")
    assert manifest.kind == "model" and manifest.extra["steps"] == 8 and manifest.extra["tokens"] == 512
    assert manifest.extra["bits_per_byte"] == result.bits_per_byte
    trained_on = PreparedData.open(load_config(run / "config.resolved.toml").data)
    told = manifest.extra["data"]
    assert told["sha256"] == trained_on.sha256 and told["tokens"] == trained_on.split("train").tokens
    assert weights(run / "final") == weights(run / "checkpoints" / "step-00000008")
    assert Llama.from_folder(run / "final").config.max_seq_len == 16
    again = load_config(run / "config.resolved.toml")
    assert again.data.is_dir() and again.optimizer.learning_rate == 0.01


def test_metrics_and_events_tell_the_course(settings, recorder):
    config = settings(OBSERVED)
    train(config, recorder)
    records = read_metrics(config.output / "metrics.jsonl")
    steps = [r for r in records if r["event"] == "step"]
    assert [r["step"] for r in steps] == list(range(1, 9))
    assert steps[0]["loss"] == pytest.approx(math.log(300), rel=0.05) and steps[-1]["loss"] < steps[0]["loss"]
    assert steps[-1]["tokens"] == 512 and all(r["tokens_per_second"] > 0 for r in steps)
    assert [r["step"] for r in records if r["event"] == "eval"] == [4, 8]
    assert [r["step"] for r in records if r["event"] == "sample"] == [4, 4, 8, 8]
    assert [e["event"] for e in recorder.events[:2]] == ["start", "step"]
    assert (
        "perda" in recorder.statuses[-1]
        and "tokens/s" in recorder.statuses[-1]
        and "faltam" in recorder.statuses[0]
    )


def test_report_shows_the_curve_and_never_runs_what_the_model_wrote(settings):
    config = settings(OBSERVED)
    train(config)
    report = config.output / "report"
    page, text = (report / "report.html").read_text("utf-8"), (report / "report.md").read_text("utf-8")
    assert "<svg" in page and "<svg" in (report / "loss.svg").read_text() and "bits por byte" in text
    assert "O rio &lt;b&gt;" in page and "O rio <b>" not in page and "> **O rio <b>" not in text
    assert "Passo 4" in (report / "samples.md").read_text("utf-8")


def test_repeating_a_finished_run_changes_nothing(settings, weights):
    config = settings(OBSERVED)
    train(config)
    metrics, before = (config.output / "metrics.jsonl").read_bytes(), weights(config.output / "final")
    result = train(config)
    assert result.status == "done" and result.step == 8 and result.bits_per_byte is not None
    assert (config.output / "metrics.jsonl").read_bytes() == metrics
    assert weights(config.output / "final") == before


@pytest.mark.parametrize(
    ("given", "saved", "evaluated"),
    [
        ({}, [8], [8]),
        (
            {"checkpoint.minutes": 1e-9, "evaluation.minutes": 1e-9},
            [1, 2, 3, 4, 5, 6, 7, 8],
            list(range(1, 9)),
        ),
        ({"checkpoint.every": 3, "evaluation.every": 4}, [3, 6, 8], [4, 8]),
        ({"checkpoint.minutes": 0, "evaluation.minutes": 0}, [8], [8]),
    ],
)
def test_a_run_is_saved_and_evaluated_by_the_clock_or_by_steps_where_asked(settings, given, saved, evaluated):
    config = settings({"checkpoint.every": None, "evaluation.every": None} | given)
    train(config)
    names = sorted(path.name for path in (config.output / "checkpoints").glob("step-*"))
    assert [int(name[5:]) for name in names] == saved
    records = read_metrics(config.output / "metrics.jsonl")
    assert [r["step"] for r in records if r["event"] == "eval"] == evaluated


def test_watching_the_model_does_not_change_it(settings, tmp_path, weights):
    train(settings())
    train(settings({**OBSERVED, "evaluation.every": 1, "output": tmp_path / "evaluated"}))
    assert weights(tmp_path / "run" / "final") == weights(tmp_path / "evaluated" / "final")


def test_recomputing_activations_gives_the_same_weights(settings, tmp_path, weights):
    train(settings())
    train(settings({"checkpointing": "full", "output": tmp_path / "full"}))
    assert weights(tmp_path / "run" / "final") == weights(tmp_path / "full" / "final")


def test_init_from_begins_with_the_weights_of_a_model(settings, tmp_path):
    first = settings()
    train(first)
    values = {"model_size": None, "model.num_layers": None, "model.intermediate_size": None,
              "init_from": first.output / "final", "output": tmp_path / "next", "max_steps": 1}  # fmt: skip
    result = train(settings(values))
    before = [r["loss"] for r in read_metrics(first.output / "metrics.jsonl") if r["event"] == "step"]
    assert result.loss < before[0] - 0.1
    error = fails("E_SEQ_LEN", settings({**values, "seq_len": 64, "output": tmp_path / "third"}))
    assert error.hint.startswith("Use --seq-len 16, ou estenda o contexto com --set model.max_seq_len=64")


def test_a_model_goes_on_with_longer_texts_and_another_rope_base(settings, tmp_path):
    first = train(settings())
    values = {"model_size": None, "model.num_layers": None, "model.intermediate_size": None,
              "init_from": first.model, "output": tmp_path / "next", "max_steps": 4, "seq_len": 64,
              "model.max_seq_len": 64, "model.rope_theta": 50_000.0}  # fmt: skip
    longer = train(settings(values))
    before, after = (ModelFolder(result.model).config for result in (first, longer))
    assert replace(before, max_seq_len=64, rope_theta=50_000.0) == after
    resumed = train(settings({**values, "max_steps": 6, "allow_config_change": True}))
    assert resumed.step == 6 and ModelFolder(resumed.model).config == after
    with pytest.raises(SlmError) as caught:
        settings({**values, "model.num_layers": 3})
    assert caught.value.code == "E_USAGE" and caught.value.where == "--init-from"


def test_a_diverged_run_keeps_its_last_checkpoint(settings, monkeypatch):
    config = settings({"checkpoint.every": 2})
    original, steps = trainer.optimizer_step, []

    def poisoned(model, *arguments, **keywords):
        steps.append(len(steps) + 1)
        if steps[-1] == 6:
            with torch.no_grad():
                model.norm.weight.fill_(math.nan)
        return original(model, *arguments, **keywords)

    monkeypatch.setattr(trainer, "optimizer_step", poisoned)
    error = fails("E_TRAINING_DIVERGED", config)
    assert "passo 6" in error.message and "taxa" in error.message and "--learning-rate" in error.hint
    assert (config.output / "checkpoints" / "latest").read_text() == "step-00000004\n"
    monkeypatch.undo()
    assert train(config).step == 8


def test_a_first_loss_far_from_ln_v_is_told(settings, monkeypatch, recorder):
    original = Llama.initialize

    def loud(model, seed):
        original(model, seed)
        with torch.no_grad():
            model.embed.weight.mul_(50)
        return model

    monkeypatch.setattr(Llama, "initialize", loud)
    train(settings({"max_steps": 1}), recorder)
    assert [w["code"] for w in recorder.named("warning")] == ["first_loss"]


def test_too_little_data_says_which_length_would_do(settings, prepared):
    tokens = prepared.split("train").tokens
    error = fails("E_DATA_TOO_SMALL", settings({"seq_len": tokens}))
    assert str(tokens) in error.message and "--seq-len" in error.hint


def test_what_cannot_begin_leaves_no_folder(settings, tmp_path):
    fails("E_NOT_FOUND", settings({"data": tmp_path / "nada"}))
    fails("E_CONFIG", settings({"precision": "fp16", "device": "cpu"}))
    assert not (tmp_path / "run").exists()


def test_a_refusal_after_reading_the_texts_leaves_no_folder_either(settings, tmp_path, tokenizer_file):
    """It once left one with nothing but `lock` in it."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("\n \n", encoding="utf-8")
    deep = tmp_path / "runs" / "novo"
    fails("E_DATA_EMPTY", settings({"data": tmp_path / "empty", "tokenizer": tokenizer_file, "output": deep}))
    assert not (tmp_path / "runs").exists()
    deep.mkdir(parents=True)
    fails("E_DATA_EMPTY", settings({"data": tmp_path / "empty", "tokenizer": tokenizer_file, "output": deep}))
    assert deep.is_dir(), "a folder that was there stays"


def test_out_of_memory_suggests_the_same_step_in_smaller_pieces(settings, monkeypatch):
    def explode(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(trainer, "set_learning_rate", explode)
    error = fails("E_MEMORY", settings())
    assert error.exit_code == 5 and "calculado" in error.hint and "--batch-size" in error.hint


def test_a_run_in_minutes_ends_on_time_and_cooled_down(settings):
    timed = {"schedule.minutes": 0.03, "schedule.kind": "wsd", "schedule.cooldown_fraction": 0.5}
    config = settings({**timed, "schedule.warmup_steps": 2, "max_steps": 1_000_000, "checkpoint.every": 0})
    result = train(config)
    assert result.status == "done" and result.seconds >= 1.8 and 5 < result.step < 1_000_000
    rates = [
        r["learning_rate"] for r in read_metrics(config.output / "metrics.jsonl") if r["event"] == "step"
    ]
    assert rates[5] == 0.01 and rates[-1] < 0.002


def test_raw_text_is_prepared_on_the_way_and_reused(settings, corpus, tokenizer_file):
    config = settings({"data": corpus, "tokenizer": tokenizer_file, "max_steps": 2})
    train(config)
    folder = load_config(config.output / "config.resolved.toml").data
    assert folder.is_relative_to(config.output.resolve()) and (folder / "index.json").is_file()
    before = (folder / "index.json").stat().st_mtime_ns
    train(replace(config, max_steps=3, allow_config_change=True))
    assert (folder / "index.json").stat().st_mtime_ns == before


def test_json_lines_end_with_done(train_arguments, tmp_path):
    app = typer.Typer()
    app.callback()(lambda: None)
    verb.register(app)
    done = CliRunner().invoke(app, [*train_arguments(tmp_path / "run", max_steps=2), "--json"])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["event"] == "start" and lines[-1]["event"] == "done" and lines[-1]["step"] == 2
    assert lines[-1]["model"] == str(tmp_path / "run" / "final")


SEED_OPTIONS = (
    "--model-size 400m --batch-size 2 --grad-accum 16 --seq-len 256 --max-steps 50000".split()  # noqa: SIM905
)


def test_the_command_line_of_the_seed_documents_is_understood(prepared, tokenizer_file, tmp_path):
    """As it stands there, with --dry-run: 400m needs 5 GB for each of its checkpoints."""
    app = typer.Typer()
    app.callback()(lambda: None)
    verb.register(app)
    # The tiny corpus is shorter than a sequence of 256 only in its held-out part.
    arguments = [
        "--data",
        prepared.folder,
        "--tokenizer",
        tokenizer_file,
        "--output",
        tmp_path / "o",
        *SEED_OPTIONS,
    ]
    done = CliRunner().invoke(app, ["train", *map(str, arguments), "--dry-run", "--json"])
    plan = json.loads(done.stdout)
    assert plan["tokens_per_step"] == 8192 and plan["max_steps"] == 50_000 and plan["precision"] == "fp32"
    assert plan["parameters"] == model_config("400m", vocab_size=300, max_seq_len=256).num_parameters
    assert plan["epochs"] > 1 and plan["memory_bytes"]["total"] > 12 * plan["parameters"]  # with muon
    assert not (tmp_path / "o").exists()


def test_dry_run_of_raw_text_needs_a_tokenizer_and_prepares_nothing(
    settings, corpus, tokenizer_file, tmp_path
):
    found = dry_run(settings({"data": corpus, "tokenizer": tokenizer_file}))
    assert found.epochs is None and found.plan.model.vocab_size == 300
    with pytest.raises(SlmError, match="tokenizador"):
        dry_run(settings({"data": corpus}))
    assert not (tmp_path / "run").exists()
