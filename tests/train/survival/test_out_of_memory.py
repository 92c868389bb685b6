"""Out of memory in the middle of a run: the same step in smaller pieces, and the same result."""

from __future__ import annotations

import gc
import json
import weakref

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_runs import losses

from ptbr_slm import faults
from ptbr_slm.errors import SlmError
from ptbr_slm.train import trainer as trainer_module
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.planning import plan
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train
from ptbr_slm.train.step import OutOfMemory, optimizer_step
from ptbr_slm.train.survival import out_of_memory

ROWS = {"batch_size": 4, "grad_accum": 2, "max_steps": 6}


@pytest.fixture(autouse=True)
def _forget_faults():
    faults.reset()
    yield
    faults.reset()


@pytest.mark.parametrize("point", ["step.forward:6", "step.backward:5", "step.optimizer:3"])
def test_the_step_is_done_again_in_halves_and_the_run_ends_as_if_nothing_had_been(
    settings, tmp_path, recorder, monkeypatch, point
):
    train(settings(ROWS))
    monkeypatch.setenv("PTBR_SLM_FAULT", f"oom@{point}")
    config = settings({**ROWS, "output": tmp_path / "hit"})
    result = train(config, recorder)
    assert result.status == "done" and result.tokens == 6 * 8 * 16 and result.skipped_steps == 0
    (event,) = recorder.named("out_of_memory")
    assert (event["step"], event["before"], event["after"]) == (3, 4, 2)
    assert losses(config.output) == pytest.approx(losses(tmp_path / "run"), abs=1e-5)
    ours, theirs = (
        load_file(run / "final" / "model.safetensors") for run in (config.output, tmp_path / "run")
    )
    for name, weight in theirs.items():
        np.testing.assert_allclose(ours[name], weight, atol=2e-4, err_msg=name)


def test_it_halves_again_and_again_and_a_later_start_begins_small(settings, recorder, monkeypatch):
    monkeypatch.setenv("PTBR_SLM_FAULT", "oom@step.forward:1;oom@step.forward:2")
    config = settings({**ROWS, "max_steps": 2})
    train(config, recorder)
    assert [(e["before"], e["after"]) for e in recorder.named("out_of_memory")] == [(4, 2), (2, 1)]
    assert json.loads((config.output / "micro_batch.json").read_bytes())["batch_size"] == 1
    used = []
    original = trainer_module.optimizer_step

    def watching(model, optimizer, batches, **keywords):
        used.append([len(batch) for batch in batches])
        return original(model, optimizer, batches, **keywords)

    monkeypatch.setattr(trainer_module, "optimizer_step", watching)
    train(settings({**ROWS, "max_steps": 3, "allow_config_change": True}))
    assert used == [[1] * 8]
    train(settings({**ROWS, "batch_size": 8, "grad_accum": 1, "max_steps": 4, "allow_config_change": True}))
    assert used[-1] == [8], "another batch_size is another question"


def test_when_one_row_does_not_fit_the_answer_names_what_needs_less(settings, monkeypatch):
    monkeypatch.setenv("PTBR_SLM_FAULT", "oom@step.forward:1;oom@step.forward:2;oom@step.forward:3")
    config = settings(ROWS)
    with pytest.raises(SlmError) as caught:
        train(config)
    error = caught.value
    assert error.code == "E_MEMORY" and error.exit_code == 5 and "uma sequência por vez" in error.message
    assert "--checkpointing full" in error.hint and "calculado" in error.hint, error.hint
    assert train(config).status == "done", "memory that was freed since then is used"


def test_nothing_keeps_the_failed_step_alive(settings, monkeypatch):
    """An error's traceback holds the tensors, so that each retry begins with less memory (PyTorch's FAQ)."""
    held: list[weakref.ref] = []
    alive: list[int] = []
    original = trainer_module.optimizer_step

    def failing(model, optimizer, batches, **keywords):
        if held:
            alive.append(sum(reference() is not None for reference in held))
            return original(model, optimizer, batches, **keywords)
        activations = torch.ones(1000)
        held.append(weakref.ref(activations))
        gc.disable()  # reference counting alone must free it
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(trainer_module, "optimizer_step", failing)
    monkeypatch.setattr(out_of_memory, "free", lambda device: None)
    try:
        assert train(settings({**ROWS, "max_steps": 1})).status == "done"
    finally:
        gc.enable()
    assert alive == [0]


@pytest.mark.parametrize("scaled", [False, True])
def test_a_failed_update_leaves_weights_moments_and_gradients_clean(settings, monkeypatch, scaled):
    if scaled:  # a scaler left between unscale_ and update refuses the next step
        monkeypatch.setattr(plan, "choose_precision", lambda *_: Precision("fp16", "teste"))
    monkeypatch.setenv("PTBR_SLM_FAULT", "oom@step.optimizer:2")
    before = {}
    original, calls = trainer_module.optimizer_step, []

    def watching(model, optimizer, batches, **keywords):
        calls.append(len(batches))
        if len(calls) == 3:  # step 2 again
            before["weights"] = [p.detach().clone() for p in model.parameters()]
            before["gradients"] = [p.grad for p in model.parameters()]
            before["steps"] = {float(s["step"]) for s in optimizer.state.values() if "step" in s}
        result = original(model, optimizer, batches, **keywords)
        if len(calls) == 1:
            before["after_one"] = [p.detach().clone() for p in model.parameters()]
        return result

    monkeypatch.setattr(trainer_module, "optimizer_step", watching)
    assert train(settings({**ROWS, "max_steps": 3})).status == "done"
    assert all(torch.equal(a, b) for a, b in zip(before["weights"], before["after_one"], strict=True))
    assert before["gradients"] == [None] * len(before["weights"]) and before["steps"] <= {1.0}


def test_a_half_done_update_is_never_trained_on(settings, monkeypatch):
    original = trainer_module.optimizer_step

    def tearing(model, optimizer, batches, **keywords):
        result = original(model, optimizer, batches, **keywords)
        if len(torn) == 1:
            torn.append(2)
            with torch.no_grad():
                model.norm.weight.add_(1e-3)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        torn.append(1)
        return result

    torn: list[int] = []
    monkeypatch.setattr(trainer_module, "optimizer_step", tearing)
    config = settings({**ROWS, "checkpoint.every": 1})
    with pytest.raises(SlmError) as caught:
        train(config)
    assert caught.value.code == "E_MEMORY" and "no meio da atualização" in caught.value.message
    monkeypatch.undo()
    assert train(config).step == 6
    assert json.loads((config.output / "micro_batch.json").read_bytes())["batch_size"] == 2


def test_evaluation_out_of_memory_is_read_in_smaller_pieces(settings, monkeypatch, tmp_path):
    train(settings(ROWS))
    sizes = []
    original = out_of_memory.bits_per_byte

    def greedy(model, text, batch_size, *others):
        sizes.append(batch_size)
        if batch_size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(model, text, batch_size, *others)

    monkeypatch.setattr(out_of_memory, "bits_per_byte", greedy)
    result = train(settings({**ROWS, "output": tmp_path / "small"}))
    assert sizes == [4, 2, 1] and result.bits_per_byte == pytest.approx(
        read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["bits_per_byte"], rel=1e-5
    )


def test_the_step_alone_raises_its_own_error_and_leaves_no_gradient(monkeypatch):
    from ptbr_slm.config import ModelConfig
    from ptbr_slm.model import Llama
    from ptbr_slm.train.config import OptimizerConfig
    from ptbr_slm.train.optim import build_optimizer

    shape = ModelConfig(vocab_size=64, hidden_size=64, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=64,
                        intermediate_size=64, max_seq_len=16)  # fmt: skip
    model = Llama(shape).initialize(0).train()
    monkeypatch.setenv("PTBR_SLM_FAULT", "oom@step.backward:2")
    batches = [MicroBatch.of_windows(np.ones((1, 9), np.int64))] * 3
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", learning_rate=1e-3))
    with pytest.raises(OutOfMemory):
        optimizer_step(
            model, optimizer, batches, precision=Precision("fp32", ""), scaler=None, gradient_clip=1.0
        )
    assert all(parameter.grad is None for parameter in model.parameters())
