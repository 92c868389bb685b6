"""One of two ranks: plays every case of `CASES` and leaves what came out. Started by test_ranks.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch

from ptbr_slm import faults
from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import HeldOut
from ptbr_slm.model import Llama
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.average import WeightAverage
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.checkpoint.files import restore, write_checkpoint
from ptbr_slm.train.config import DistillConfig, OptimizerConfig
from ptbr_slm.train.distill import DistilledMicroBatch
from ptbr_slm.train.evaluate import bits_per_byte
from ptbr_slm.train.optim import build_optimizer
from ptbr_slm.train.parallel.parallelize import parallelize
from ptbr_slm.train.parallel.shards import fill, gather, is_sharded
from ptbr_slm.train.parallel.world import Ranks, join_ranks
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.state import TrainState
from ptbr_slm.train.step import OutOfMemory, OutOfMemoryAmongOthers, optimizer_step

SHAPE = ModelConfig(vocab_size=300, hidden_size=64, num_layers=3, num_heads=2, num_kv_heads=1, head_dim=32,
                    intermediate_size=96, max_seq_len=32)  # fmt: skip
CPU = torch.device("cpu")
STEPS = 4
CASES = {
    # name: (sequences of a step, sequences of a micro-batch, parallel, precision, tied embedding)
    "even": (8, 2, "ddp", "fp32", True),
    "uneven": (3, 1, "ddp", "fp32", True),
    "scaled": (6, 2, "ddp", "fp16", True),
    "sharded": (8, 2, "fsdp", "fp32", True),
    "sharded, uneven": (5, 1, "fsdp", "fp32", False),
    "sharded, scaled": (4, 2, "fsdp", "fp16", True),
    "shared muon": (4, 2, "ddp", "fp32", True),
    "distilled, uneven": (3, 1, "ddp", "fp32", True),
    "sharded, distilled, uneven": (3, 1, "fsdp", "fp32", False),
}


def windows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(5, 300, (count, 17))


def micro_batch(name: str, count: int, seed: int, share: slice) -> MicroBatch:
    """A rank's share of a step; where the case distills, with what a random teacher says."""
    batch = MicroBatch.of_windows(windows(count, seed))
    if "distilled" not in name:
        return batch[share]
    draw = np.random.default_rng(seed)
    ids = draw.permuted(np.tile(np.arange(300, dtype=np.int32), (count, 16, 1)), axis=-1)[..., :4]
    said = np.log(draw.dirichlet(np.ones(5), (count, 16))).clip(-60, 0).astype(np.float16)
    return DistilledMicroBatch(
        batch.tokens,
        batch.targets,
        teacher_ids=ids,
        teacher_log_probabilities=said,
        settings=DistillConfig(weight=0.7, temperature=2.0),
    )[share]


class Run:
    """A few steps of one case."""

    def __init__(self, name: str, ranks: Ranks) -> None:
        self.sequences, self.batch_size, parallel, precision, tied = CASES[name]
        self.name = name
        self.ranks, self.precision = ranks, Precision(precision, "")  # type: ignore[arg-type]
        self.model = Llama(ModelConfig(**{**SHAPE_FIELDS, "tie_embeddings": tied}))
        self.parallel = parallelize(self.model, CPU, ranks, "auto" if ranks.world == 1 else parallel)
        fill(self.model, lambda model: model.initialize(3))
        optimizer = "muon" if "muon" in name else "adamw"
        self.optimizer = build_optimizer(
            self.model, OptimizerConfig(name=optimizer, learning_rate=0.01), ranks
        )
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18) if precision == "fp16" else None

    def step(self, number: int):
        mine = micro_batch(self.name, self.sequences, number, self.ranks.share(self.sequences))
        return optimizer_step(
            self.model,
            self.optimizer,
            mine.split(self.batch_size),
            precision=self.precision,
            scaler=self.scaler,
            gradient_clip=1.0,
            parallel=self.parallel,
            ranks=self.ranks,
        )

    def weights(self) -> dict[str, np.ndarray]:
        whole = gather(self.model, self.ranks)
        return {} if is_sharded(whole) else whole.to_hf_weights()

    def gradients(self) -> dict[str, np.ndarray]:
        found = {}
        for name, parameter in self.model.named_parameters():
            gradient = parameter.grad
            found[name] = (gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient).numpy()
        return found


SHAPE_FIELDS = {name: getattr(SHAPE, name) for name in SHAPE.__dataclass_fields__}


def play(name: str, ranks: Ranks) -> dict[str, np.ndarray]:
    """Losses, norms, the first step's gradients and the weights after STEPS steps."""
    run = Run(name, ranks)
    first = run.step(0)
    out = {f"gradient {key}": value.copy() for key, value in run.gradients().items()}
    results = [first, *(run.step(number) for number in range(1, STEPS))]
    out["loss"] = np.array([result.loss for result in results])
    out["norm"] = np.array([result.grad_norm for result in results])
    out["applied"] = np.array([result.applied for result in results])
    text = HeldOut(windows(5, 99)[:, :-1], windows(5, 99)[:, 1:], 100)
    out["bits"] = np.array(bits_per_byte(run.parallel, text, 1, run.precision, ranks))
    out |= {f"weight {key}": value for key, value in run.weights().items()}
    if run.scaler is not None:
        run.scaler.update(2.0**60)
        out["overflow applied"] = np.array(run.step(9).applied)
        out["scale after it"] = np.array(run.scaler.get_scale())
    return out


def out_of_memory(ranks: Ranks) -> None:
    """A rank that runs out before the gradients meet: all drop the step, and it can be done again."""
    for fault in ("oom@step.forward:1:1", "oom@step.backward:1:1", "oom@step.forward:2:1"):
        run, undisturbed = Run("even", ranks), Run("even", ranks)
        os.environ[faults.VARIABLE] = fault
        faults.reset()
        try:
            run.step(0)
        except OutOfMemory as error:
            assert not isinstance(error, OutOfMemoryAmongOthers)
        else:
            raise AssertionError("not raised")
        del os.environ[faults.VARIABLE]
        assert all(parameter.grad is None for parameter in run.model.parameters())
        run.batch_size = 1
        assert abs(run.step(0).loss - undisturbed.step(0).loss) < 1e-5
        for ours, theirs in zip(run.model.parameters(), undisturbed.model.parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=2e-4)


SPOILT = {"nan@step.loss:1:1": 3, "nan@step.loss:2:0": 2, "nan@step.loss:2:1": 4}
"""Fault, of the n-th micro-batch of a rank -> its number among the four of the step."""


def blame(ranks: Ranks) -> dict[str, list[int]]:
    """The micro-batches that a step names whose loss was spoilt in one of them."""
    named = {}
    for name in ("even", "sharded"):
        for fault in SPOILT:
            run = Run(name, ranks)
            run.step(0)
            os.environ[faults.VARIABLE] = fault
            faults.reset()
            named[f"{name} {fault}"] = list(run.step(1).bad_parts)
            del os.environ[faults.VARIABLE]
    return named


def averages(ranks: Ranks) -> None:
    """The mean of the weights after three steps takes their place on every rank, in copies and in shards."""
    for name in ("even", "sharded"):
        run = Run(name, ranks)
        taken, average = [], WeightAverage(run.parallel, ranks)
        for number in range(3):
            run.step(number)
            average.add(number + 1)
            taken.append(run.weights())
        average.give()
        for key, value in run.weights().items():
            np.testing.assert_allclose(value, np.mean([one[key] for one in taken], axis=0), atol=1e-6)


def messages(ranks: Ranks) -> None:
    assert ranks.from_main(lambda: {"rank": ranks.rank}) == {"rank": 0}
    assert ranks.any(ranks.rank == 1) and not ranks.any(False)
    assert ranks.total(ranks.rank + 1) == 3 and ranks.exchange([ranks.rank]) == [[0.0], [1.0]]

    def fail() -> None:
        raise SlmError("E_DISK_FULL", "cheio", where="aqui", hint="apague")

    try:
        ranks.from_main(fail)
    except SlmError as error:
        assert (error.code, error.where, error.hint) == ("E_DISK_FULL", "aqui", "apague")
    else:
        raise AssertionError("only the main rank raised it")

    def fail_on_the_other() -> None:
        if not ranks.main:
            fail()

    ranks.all_or_none(lambda: None)
    try:
        ranks.all_or_none(fail_on_the_other)
    except SlmError as error:
        assert (error.code, error.where, error.hint) == ("E_DISK_FULL", "aqui", "apague")
    else:
        raise AssertionError("only the other rank raised it")


def checkpoints(ranks: Ranks, folder: Path) -> None:
    """Two steps, saved in shards and whole; each read back both ways, and a third step."""
    tokenizer, third = Tokenizer.load(Path(sys.argv[2])), {}
    for name, where in (("sharded", "fsdp"), ("even", "ddp")):
        run = Run(name, ranks)
        run.step(0)
        run.step(1)
        write_checkpoint(
            folder / where, run.model, run.optimizer, tokenizer, TrainState(step=2), keep=2, ranks=ranks
        )
        run.step(2)
        third[where] = run.weights()
    for origin in third:
        for name in ("sharded", "even"):
            again = Run(name, ranks)
            restore(folder / origin / "step-00000002", again.model, again.optimizer)
            again.step(2)
            weights = again.weights()  # all ranks gather them
            for key, value in weights.items() if ranks.main else ():
                np.testing.assert_allclose(value, third[origin][key], atol=1e-4)


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with join_ranks("cpu") as ranks:
        messages(ranks)
        for name in CASES:
            np.savez(folder / f"{name}.{ranks.rank}.npz", **play(name, ranks))
        out_of_memory(ranks)
        (folder / f"blamed.{ranks.rank}.json").write_text(json.dumps(blame(ranks)))
        averages(ranks)
        checkpoints(ranks, folder)
    (folder / f"done.{ranks.rank}").touch()


if __name__ == "__main__":
    main()
