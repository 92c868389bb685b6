"""Checkpoints of other versions: an older one goes on as it would have, a newer one is named and left alone.

checkpoint_schema_1/ was written by the code of 2026-11-22 before state.json had a number (commit 2f2788e), at
step 6 of 12 over the texts below; `LOSSES` are what that code measured in the steps after it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ptbr_slm.data.pipeline import prepare
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.manifest import write_manifest
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.checkpoint.files import STATE_SCHEMA, list_checkpoints, read_state
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train

OLD = Path(__file__).parent / "checkpoint_schema_1"
LOSSES = [5.4913835525512695, 5.435947418212891, 5.349514007568359, 5.241534233093262, 5.11622428894043,
          5.04559326171875]  # fmt: skip
SENTENCES = [
    "O vento da serra trouxe a chuva, e o telhado cantou a noite inteira.",
    "Pedro guardou as cartas na gaveta, fechou a porta e foi ver o mar.",
]


@pytest.fixture
def old_run(tmp_path):
    """The settings of the run that the old checkpoint belongs to, with it in its place."""
    for i in range(8):
        file = tmp_path / "texts" / f"{i}.txt"
        file.parent.mkdir(exist_ok=True)
        text = "\n\n".join(SENTENCES[(i + j) % 2] for j in range(12)) + "\n"
        file.write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.load(OLD / "tokenizer.json")
    prepare([tmp_path / "texts"], tmp_path / "data", tokenizer, valid_fraction=0.2)
    shutil.copytree(OLD, tmp_path / "run" / "checkpoints" / "step-00000006")
    shape = {"num_layers": 1, "hidden_size": 8, "num_heads": 1, "num_kv_heads": 1, "head_dim": 8,
             "intermediate_size": 8}  # fmt: skip
    return from_values(
        {"data": tmp_path / "data", "output": tmp_path / "run", "model_size": "nano", "seq_len": 16,
         "batch_size": 2, "grad_accum": 2, "max_steps": 12, "optimizer.learning_rate": 0.01,
         "evaluation.every": 0, "evaluation.sample_tokens": 0, "checkpoint.every": 6,
         **{f"model.{key}": value for key, value in shape.items()}}
    )  # fmt: skip


def test_a_run_of_the_schema_before_goes_on_as_it_would_have(old_run, recorder):
    result = train(old_run, recorder)
    assert result.status == "done" and recorder.named("resume")[0]["step"] == 6
    steps = [r for r in read_metrics(old_run.output / "metrics.jsonl") if r["event"] == "step"]
    assert [r["step"] for r in steps] == list(range(7, 13))
    assert [r["loss"] for r in steps] == pytest.approx(LOSSES, abs=1e-4)
    newest = list_checkpoints(old_run.output / "checkpoints")[0]
    body = json.loads((newest / "training" / "state.json").read_text())
    assert body["schema"] == STATE_SCHEMA and body["guard"]["seen"] == 6


def test_a_state_of_a_newer_schema_is_named_and_kept(old_run):
    checkpoint = old_run.output / "checkpoints" / "step-00000006"
    file = checkpoint / "training" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": STATE_SCHEMA + 1}))
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint, "checkpoint", step=6)
    with pytest.raises(SlmError) as caught:
        train(old_run)
    assert (caught.value.code, caught.value.exit_code) == ("E_SCHEMA", 3) and checkpoint.is_dir()
    assert f"schema {STATE_SCHEMA + 1} > {STATE_SCHEMA}" in caught.value.message


def test_a_state_that_lacks_what_its_schema_promises_is_corrupt(old_run):
    checkpoint = old_run.output / "checkpoints" / "step-00000006"
    file = checkpoint / "training" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": STATE_SCHEMA}))
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint, "checkpoint", step=6)
    with pytest.raises(SlmError) as caught:
        read_state(checkpoint)
    assert caught.value.code == "E_CHECKPOINT_CORRUPT" and "guard" in caught.value.message
