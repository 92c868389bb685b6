"""A preference tuning as a run: its reference, what it watches, how it stops and goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from listeners import Recorder, StopAfter
from ranks import run_ranks
from safetensors.numpy import load_file
from tiny_models import random_weights, write_model
from tiny_runs import assert_same_weights, records

from ptbr_slm.cli.train import sentence
from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.run import train
from ptbr_slm.tune import reference as reference_module
from ptbr_slm.tune.config import TuneConfig, tune_config
from ptbr_slm.tune.events import PreferenceMeasured
from ptbr_slm.tune.preference_spec import PreferenceSpec

VALUES: dict[str, Any] = {
    "tune.objective": "dpo",
    "tune.valid_fraction": 0.3,
    "tune.watched_answers": 3,
    "tune.nll_weight": 0.0,
    "tune.max_chosen_drop": 50.0,
    "seq_len": 128,
    "batch_size": 2,
    "grad_accum": 2,
    "max_steps": 6,
    "optimizer.learning_rate": 3e-3,
    "schedule.warmup_steps": 1,
    "evaluation.every": 3,
    "evaluation.sample_tokens": 0,
    "checkpoint.every": 2,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A random model with our chat template; do not write into it."""
    torch.set_num_threads(1)
    tokenizer = Tokenizer.train(texts * 4, 400)
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=16,
        intermediate_size=48,
        max_seq_len=128,
        bos_token_id=tokenizer.bos_id,
        eos_token_ids=(tokenizer.eos_id,),
    )
    folder = tmp_path_factory.mktemp("model") / "final"
    return write_model(folder, shape, tokenizer, random_weights(shape, scale=3.0))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs in which the short answer is the chosen one."""
    file = tmp_path_factory.mktemp("pairs") / "pares.jsonl"
    words = ("rio", "mar", "feira", "janela", "trem", "pão", "praça", "avô", "livro", "rua")
    rows = [
        {"prompt": f"O {a} e o {b}?", "chosen": f"Sim, {a}.", "rejected": f"Não, {b}, e a {a}."}
        for a in words
        for b in words[:4]
        if a != b
    ]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def settings(model: Path, pairs: Path, tmp_path: Path) -> Callable[..., TuneConfig]:
    """Settings of a tiny run in tmp_path/run."""

    def make(**values: Any) -> TuneConfig:
        dotted = {key.replace("__", "."): value for key, value in values.items()}
        return tune_config(model, {"data": pairs, "output": tmp_path / "run", **VALUES, **dotted})

    return make


def run(config: TuneConfig, listener: Any = None) -> Any:
    return train(config, listener, spec=PreferenceSpec())


def weights(config: TuneConfig) -> str:
    return sha256_file(config.output / "final" / "model.safetensors")


def test_a_run_widens_the_margin_and_tells_it(settings: Callable[..., TuneConfig]) -> None:
    config, recorder = settings(max_steps=12), Recorder()
    result = run(config, recorder)
    assert result.status == "done"
    found = records(config.output, "preference")
    assert [record["step"] for record in found] == [0, 3, 6, 9, 12]
    assert recorder.named("preference") == found and recorder.named("pairs")[0]["held_out"] > 3
    assert found[0]["margin"] == pytest.approx(0, abs=1e-4) and found[0]["drift"] == pytest.approx(
        0, abs=1e-5
    )
    assert found[-1]["margin"] > 0.5 and found[-1]["won"] > 0.8
    assert found[-1]["answers"] == 3 and 0 <= found[-1]["ended"] <= 1
    steps = records(config.output)
    assert steps[0]["loss"] == pytest.approx(np.log(2), abs=1e-4) and steps[-1]["loss"] < 0.6
    train_data = recorder.named("pairs")[0]
    assert steps[-1]["tokens"] > train_data["target_tokens"], "tokens, and not pairs, are counted"
    folder = ModelFolder.open(config.output / "final")
    assert (
        folder.chat_template is not None
        and folder.tokenizer.token_id("<|im_end|>") in folder.config.eos_token_ids
    )


def test_both_events_can_be_read(settings: Callable[..., TuneConfig]) -> None:
    listener = Sentences()
    run(settings(max_steps=3), listener)
    text = "\n".join(listener.lines)
    assert "pares de respostas para treinar" in text and "% dos pares ganhos, margem" in text
    assert "3 respostas livres" in text
    mine = [line for line in text.splitlines() if "pares" in line or "livres" in line]
    assert len(mine) == 5 and all(len(line) <= 110 for line in mine)


def test_adapters_learn_preferences_too(settings: Callable[..., TuneConfig], model: Path) -> None:
    """The reference is the model without them."""
    config = settings(max_steps=12, tune__method="lora", tune__lora_rank=4, optimizer__learning_rate=0.02)
    run(config)
    found = records(config.output, "preference")
    assert found[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert found[-1]["margin"] > 0.5 and found[-1]["won"] > 0.8
    final, base = (
        load_file(config.output / "final" / "model.safetensors"),
        load_file(model / "model.safetensors"),
    )
    assert np.array_equal(final["model.norm.weight"], base["model.norm.weight"])
    assert not np.array_equal(
        final["model.layers.0.mlp.up_proj.weight"], base["model.layers.0.mlp.up_proj.weight"]
    )


class Sentences(Recorder):
    """Keeps what a person would read."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def event(self, event: Any) -> None:
        self.lines.append(sentence(event))


def test_the_reference_is_measured_once(
    settings: Callable[..., TuneConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = settings(max_steps=1)
    run(config)
    (file,) = (config.output / "data").glob("reference-*.safetensors")
    before, computed = load_file(file), []
    original = reference_module._computed
    monkeypatch.setattr(reference_module, "_computed", lambda *given: computed.append(1) or original(*given))
    further = replace(config, max_steps=2, allow_config_change=True)
    run(further)
    assert not computed
    damaged = bytearray(file.read_bytes())
    damaged[-5] ^= 1
    file.write_bytes(damaged)
    run(replace(config, max_steps=3, allow_config_change=True))
    assert computed == [1]
    assert all(np.array_equal(values, before[name]) for name, values in load_file(file).items())


def test_another_reference_is_another_run(
    settings: Callable[..., TuneConfig], model: Path, tmp_path: Path
) -> None:
    config = settings(max_steps=1)
    run(config)
    folder = ModelFolder(model)
    other = write_model(
        tmp_path / "other", folder.config, folder.tokenizer, random_weights(folder.config, 5, scale=3.0)
    )
    with pytest.raises(SlmError):
        run(replace(config, init_from=other))
    assert len(list((config.output / "data").glob("reference-*.safetensors"))) == 2


def test_stopped_and_resumed_is_never_stopped(settings: Callable[..., TuneConfig], tmp_path: Path) -> None:
    whole = settings()
    run(whole)
    stopped = settings(output=tmp_path / "stopped")
    assert run(stopped, StopAfter(step=3)).status == "stopped"
    assert run(stopped).status == "done"
    assert weights(stopped) == weights(whole)
    assert records(stopped.output, "preference") == records(whole.output, "preference")


def command(config: TuneConfig, model: Path, output: Path) -> list[str]:
    values = {**VALUES, "evaluation.every": 0, "output": str(output), "data": str(config.data)}
    sets = [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return [sys.executable, "-m", "ptbr_slm", "tune", str(model), *sets, "--json"]


def test_killed_and_resumed_or_by_two_ranks_it_is_the_same(
    settings: Callable[..., TuneConfig], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = settings(evaluation__every=0)
    run(whole)
    killed = settings(evaluation__every=0, output=tmp_path / "killed")
    monkeypatch.setenv("PTBR_SLM_FAULT", "kill@step.optimizer:5")
    done = subprocess.run(command(whole, model, killed.output), capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    monkeypatch.delenv("PTBR_SLM_FAULT")
    assert run(killed).status == "done"
    assert weights(killed) == weights(whole)
    errors = run_ranks(command(whole, model, tmp_path / "two"))
    assert_same_weights(tmp_path / "two" / "final", whole.output / "final", atol=2e-5)
    two, one = records(tmp_path / "two", "preference"), records(whole.output, "preference")
    assert [record["step"] for record in two] == [0, 6], errors
    for mine, wanted in zip(two, one, strict=True):
        assert mine["margin"] == pytest.approx(wanted["margin"], abs=1e-3)
        assert mine["answers"] == wanted["answers"]


def test_a_fall_of_the_chosen_answers_ends_the_run(settings: Callable[..., TuneConfig]) -> None:
    config = settings(tune__max_chosen_drop=1e-6, optimizer__learning_rate=0.05, tune__beta=2.0, max_steps=9)
    with pytest.raises(SlmError) as caught:
        run(config)
    error = caught.value
    assert error.code == "E_TRAINING_DIVERGED" and "nats por token" in error.message
    assert "--nll-weight" in error.hint
    found = records(config.output, "preference")
    assert found[-1]["chosen_change"] < 0 and found[-1]["step"] == 3


def test_an_nll_term_keeps_the_chosen_answers_more_likely(
    settings: Callable[..., TuneConfig], tmp_path: Path
) -> None:
    alone, with_term = (
        settings(max_steps=12, tune__nll_weight=0.0),
        settings(max_steps=12, tune__nll_weight=1.0, output=tmp_path / "n"),
    )
    run(alone)
    run(with_term)
    ends = [records(config.output, "preference")[-1]["chosen_per_token"] for config in (alone, with_term)]
    assert ends[1] > ends[0] + 0.05


def test_without_a_rate_it_is_a_tenth_of_that_of_conversations(model: Path, pairs: Path) -> None:
    given = {"data": pairs, "output": "run", "max_steps": 10}
    sft, dpo = (
        tune_config(model, {**given, "tune.objective": name}).with_defaults(10**7) for name in ("sft", "dpo")
    )
    assert sft.optimizer.learning_rate is not None
    assert dpo.optimizer.learning_rate == pytest.approx(0.1 * sft.optimizer.learning_rate)
    assert dpo.tune.nll_weight == 1.0


@pytest.mark.parametrize(
    "values",
    [
        {"tune__loss": "all"},
        {"tune__replay": 0.1, "tune__replay_data": Path("texto")},
        {"tune__beta": 0},
    ],
)
def test_settings_that_say_nothing_of_pairs_are_refused(
    settings: Callable[..., TuneConfig], values: dict[str, Any]
) -> None:
    with pytest.raises(SlmError) as caught:
        settings(**values)
    assert caught.value.code == "E_CONFIG"


def test_conversations_are_no_pairs(settings: Callable[..., TuneConfig], tmp_path: Path) -> None:
    file = tmp_path / "conversas.jsonl"
    file.write_text('{"prompt": "Oi?", "completion": "Olá."}\n', encoding="utf-8")
    with pytest.raises(SlmError) as caught:
        run(settings(data=file))
    assert caught.value.code == "E_DATA_FORMAT" and "chosen" in caught.value.hint


def test_an_event_without_free_answers_has_no_keys_for_them() -> None:
    event = PreferenceMeasured(
        step=1, pairs=2, won=0.5, margin=0.1, chosen=-3.0, rejected=-4.0, chosen_per_token=-1.0,
        rejected_per_token=-1.0, chosen_change=0.0, drift=0.0,
    )  # fmt: skip
    assert "answers" not in event.record() and "livres" not in sentence(event)
