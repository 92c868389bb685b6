"""Tuning by adapters: what it leaves, how it goes on after a kill, and that two ranks do what one does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapted_models import LORA_RUN, tunable_shape
from listeners import Recorder
from ranks import run_ranks
from safetensors.numpy import load_file
from tiny_chat import conversation_file, tiny_chat, tiny_tokenizer, write_lines
from tiny_models import random_weights, write_model
from tiny_runs import losses, records

from ptbr_slm.chat.messages import Message
from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.train.checkpoint.files import list_checkpoints
from ptbr_slm.train.run import train
from ptbr_slm.tune.adapter_files import load_adapter
from ptbr_slm.tune.config import tune_config
from ptbr_slm.tune.preference_spec import PreferenceSpec
from ptbr_slm.tune.spec import TuneSpec


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model to tune; do not write into it."""
    return write_model(tmp_path_factory.mktemp("base") / "model", tunable_shape(), tiny_tokenizer())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conversation_file(tmp_path_factory.mktemp("conversas") / "conversas.jsonl", 40)


def tune(base: Path, data: Path, output: Path, listener: Recorder | None = None, **settings: Any) -> Path:
    values = LORA_RUN | {key.replace("__", "."): value for key, value in settings.items()}
    result = train(tune_config(base, {**values, "data": data, "output": output}), listener, spec=TuneSpec())
    assert result.status == "done"
    return output


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Path:
    """A run that nothing disturbed."""
    return tune(base, data, tmp_path_factory.mktemp("alone") / "run")


def command(base: Path, data: Path, output: Path, **settings: Any) -> list[str]:
    values = {"data": str(data), "output": str(output), **LORA_RUN, **settings}
    sets = [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    return [sys.executable, "-m", "ptbr_slm", "tune", str(base), *sets]


def test_the_adapter_learns_and_final_is_base_and_adapter_merged(alone: Path, base: Path) -> None:
    found = losses(alone)
    assert found[-1] < found[0] - 0.2
    final = ModelFolder.open(alone / "final")
    before, after = ModelFolder(base).weights, final.weights
    same = {n for n in before.names() if np.array_equal(*(w.read(n, _shape(w, n)) for w in (before, after)))}
    assert {name.split(".")[-2] for name in same} == {"norm", "input_layernorm", "post_attention_layernorm"}
    controls = [tiny_tokenizer().token_id(name) for name in ("<|im_start|>", "<|im_end|>")]
    config = json.loads((alone / "final/adapter/adapter_config.json").read_bytes())
    assert config["trainable_token_indices"] == {"embed_tokens": sorted(controls)}
    assert config["base_model_name_or_path"] == str(base) and config["r"] == 4
    table = [
        load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
        for folder in (base, alone / "final")
    ]
    moved = np.nonzero((table[0] != table[1]).any(1))[0]
    assert moved.tolist() == sorted(controls)
    assert controls[1] in final.config.eos_token_ids and final.config.tie_embeddings
    model = Llama.from_folder(base)
    load_adapter(model, alone / "final" / "adapter")
    assert final.manifest is not None
    for name, weight in model.to_hf_weights().items():
        np.testing.assert_array_equal(after.read(name, weight.shape), weight, err_msg=name)


def _shape(weights: Any, name: str) -> tuple[int, ...]:
    return tuple(load_file(weights.folder / "model.safetensors")[name].shape)


def test_every_checkpoint_is_a_whole_model_with_the_adapter_beside_it(alone: Path, base: Path) -> None:
    newest = list_checkpoints(alone / "checkpoints")[0]
    assert Llama.from_folder(newest).config.hidden_size == 64
    arrays = load_file(newest / "training" / "adapter.safetensors")
    assert all(array.dtype == np.float32 for array in arrays.values())
    assert not any(name.endswith("weight") for name in arrays)
    moments = load_file(newest / "training" / "optimizer.safetensors")
    assert {name.partition(".")[2] for name in moments if name.startswith("exp_avg.")} == set(arrays)
    state = json.loads((newest / "training" / "state.json").read_bytes())
    assert state["base_sha256"] == ModelFolder(base).sha256
    np.testing.assert_array_equal(
        load_file(newest / "model.safetensors")["model.norm.weight"],
        load_file(base / "model.safetensors")["model.norm.weight"],
    )


def test_killed_and_resumed_it_gives_the_weights_of_the_undisturbed_run(
    alone: Path, base: Path, data: Path, tmp_path: Path
) -> None:
    line = command(base, data, tmp_path / "run")
    killed = subprocess.run(
        line, env={**os.environ, "PTBR_SLM_FAULT": "kill@step.backward:9"}, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "run" / "final").exists()
    tune(base, data, tmp_path / "run")
    assert len(records(tmp_path / "run")) == 6
    for file in ("final/model.safetensors", "final/adapter/adapter_model.safetensors"):
        assert (tmp_path / "run" / file).read_bytes() == (alone / file).read_bytes()
    assert losses(tmp_path / "run") == losses(alone)


def test_two_ranks_tune_as_one_does(alone: Path, base: Path, data: Path, tmp_path: Path) -> None:
    errors = run_ranks(command(base, data, tmp_path / "run"))
    assert (tmp_path / "run" / "final").is_dir(), errors
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone), rtol=1e-5)
    expected = load_file(alone / "final" / "model.safetensors")
    for name, weight in load_file(tmp_path / "run" / "final" / "model.safetensors").items():
        np.testing.assert_allclose(weight, expected[name], atol=2e-4, err_msg=name)


def test_a_resumed_run_whose_model_is_gone_or_another_is_refused(
    base: Path, data: Path, tmp_path: Path
) -> None:
    model, output = tmp_path / "model", tmp_path / "run"
    shutil.copytree(base, model)
    tune(model, data, output, max_steps=2)
    shutil.rmtree(model)
    with pytest.raises(SlmError) as caught:
        tune(model, data, output, max_steps=4, allow_config_change=True)
    assert caught.value.code == "E_NOT_FOUND" and str(model) in caught.value.where
    write_model(model, tunable_shape(), tiny_tokenizer(), random_weights(tunable_shape(), seed=9))
    with pytest.raises(SlmError, match="não é aquele") as caught:
        tune(model, data, output, max_steps=4, allow_config_change=True)
    assert caught.value.code == "E_CONFIG_CHANGED"
    shutil.rmtree(model)
    shutil.copytree(base, model)
    tune(model, data, output, max_steps=4, allow_config_change=True)


@pytest.mark.parametrize("setting", [{"parallel": "fsdp"}, {"optimizer.name": "muon"}])
def test_what_does_not_go_with_adapters_is_refused(
    setting: dict[str, str], base: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(SlmError) as caught:
        tune_config(base, {**LORA_RUN, "data": data, "output": tmp_path, **setting})
    assert caught.value.code == "E_USAGE" and "--method lora" in caught.value.where


def test_a_head_that_is_not_tied_has_trained_rows_of_its_own(data: Path, tmp_path: Path) -> None:
    untied = write_model(tmp_path / "model", tunable_shape(tie_embeddings=False), tiny_tokenizer())
    run = tune(untied, data, tmp_path / "run", max_steps=2)
    before, after = (load_file(folder / "model.safetensors") for folder in (untied, run / "final"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert len(np.nonzero((before[name] != after[name]).any(1))[0]) == 2


def test_bad_steps_are_skipped_and_blamed_as_with_whole_weights(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTBR_SLM_FAULT", "nan@step.loss:6")
    run = tune(base, data, tmp_path / "run")
    (dropped,) = records(run, "dropped")
    assert dropped["step"] == 3 and dropped["bad_micro_batches"] == [2]
    assert len(losses(run)) == 5


def test_transformers_peft_and_we_write_the_same_greedy_answer(alone: Path, base: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    ids = torch.tensor([tiny_chat().prompt([Message("user", "Qual é a capital do Maranhão?")])])
    merged = transformers.AutoModelForCausalLM.from_pretrained(alone / "final", dtype=torch.float32)
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    beside = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), alone / "final/adapter"
    )
    ours = Llama.from_folder(alone / "final").eval()
    ways = (ours, lambda x: merged(x).logits, lambda x: beside(x).logits)
    written: list[list[int]] = []
    with torch.no_grad():
        for logits in ways:
            assert (logits(ids) - ours(ids)).abs().max() <= 1e-4
            text = ids
            for _ in range(12):
                text = torch.cat((text, logits(text)[:, -1:].argmax(-1)), dim=1)
            written.append(text[0].tolist())
    assert written[0] == written[1] == written[2]


def test_a_preference_is_learnt_by_adapters_too(base: Path, tmp_path: Path) -> None:
    words = ("rio", "mar", "feira", "janela", "trem", "praça")
    rows = [{"prompt": f"O {w}?", "chosen": f"Sim, {w}.", "rejected": f"Não, {w} não."} for w in words]
    pairs = write_lines(tmp_path / "pares.jsonl", rows)
    settings = {
        "tune.objective": "dpo",
        "tune.nll_weight": 0.0,
        "tune.watched_answers": 0,
        "seq_len": 64,
        "batch_size": 2,
    }
    values = LORA_RUN | settings | {"data": pairs, "output": tmp_path / "run"}
    train(tune_config(base, values), spec=PreferenceSpec())
    found = losses(tmp_path / "run")
    assert found[0] == pytest.approx(np.log(2), abs=1e-3)  # new adapters change nothing: margins are 0
    assert found[-1] < found[0] - 0.1
    assert (tmp_path / "run/final/adapter/adapter_model.safetensors").is_file()
