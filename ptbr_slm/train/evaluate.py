"""Evaluation of a model in training: bits per byte of the held-out part, tasks, and sampled texts.

The definition of bits per byte and the choice of windows are in `ptbr_slm.eval.bits`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits import HeldOut
from ptbr_slm.model import KVCache, Llama
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.batches import MicroBatch
from ptbr_slm.train.events import TasksScored, Warned
from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.step import autocast, is_out_of_memory

SAMPLE_TEMPERATURE = 0.8
SAMPLE_TOP_K = 50


@torch.no_grad()
def bits_per_byte(
    model: Llama | Parallel,
    text: HeldOut,
    batch_size: int,
    precision: Precision,
    ranks: Ranks = SINGLE_PROCESS,
) -> float:
    """Bits per byte of the whole text; each rank reads its share of the windows. All ranks call it."""
    parallel = model if isinstance(model, Parallel) else Parallel(model)
    model = parallel.model
    device = model.embed.weight.device
    was_training = model.training
    model.eval()
    nats = torch.zeros((), dtype=torch.float64, device=device)
    mine = ranks.share(len(text.inputs))
    most = math.ceil(len(text.inputs) / ranks.world) if parallel.lockstep else 0
    for part, counts in pieces(mine, batch_size, most):
        documents = None if text.document_ids is None else text.document_ids[part]
        batch = MicroBatch(text.inputs[part], text.targets[part], documents).to(device)
        if not counts:  # the others have another batch, and need this rank there
            batch = batch.without_targets()
        with autocast(device, precision):
            nats += parallel.loss_sum(batch)
    model.train(was_training)
    return text.value(float(ranks.sum_(nats)))


def pieces(mine: slice, size: int, windows: int) -> list[tuple[slice, bool]]:
    """`mine` in pieces of `size`, with True; then pieces that do not count, with False, up to as many as
    `windows` would make.
    """
    found = [
        (slice(start, min(start + size, mine.stop)), True) for start in range(mine.start, mine.stop, size)
    ]
    return found + [(slice(0, 1), False)] * (math.ceil(windows / size) - len(found))


class ScoredTask(Protocol):
    """What a model scored in a task."""

    @property
    def task(self) -> str:
        """Its name."""

    @property
    def value(self) -> float:
        """The score, a share."""

    @property
    def chance(self) -> float | None:
        """What guessing gives, where it is known."""

    @property
    def items(self) -> int:
        """Items that were asked."""


class TaskScorer(Protocol):
    """Scores a model in tasks. A run is given one: training itself does not know how tasks are asked."""

    def score(self, model: Llama, tokenizer: Tokenizer, items: Mapping[str, int]) -> Sequence[ScoredTask]:
        """The scores. items: task -> how many items to ask, where it was asked before."""


def score_tasks(
    scorer: TaskScorer, model: Llama, tokenizer: Tokenizer, step: int, before: TasksScored | None
) -> TasksScored | Warned:
    """The scores of a model, on the items of the event before; or why there are none: training goes on.

    model: whole, on this rank.
    """
    began, was_training = time.monotonic(), model.training
    model.eval()
    try:
        found = scorer.score(model, tokenizer, {} if before is None else before.items)
    except SlmError as error:
        return _unscored(error.code, error.message, error.where)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return _unscored("E_MEMORY", "a memória não foi suficiente", "")
    finally:
        model.train(was_training)
    return TasksScored(
        step=step,
        scores={each.task: round(each.value, 6) for each in found},
        items={each.task: each.items for each in found},
        chance={each.task: each.chance for each in found if each.chance is not None},
        seconds=round(time.monotonic() - began, 3),
    )


def _unscored(code: str, why: str, where: str) -> Warned:
    message = f"as tarefas de evaluation.tasks ficam de fora daqui em diante: {why.rstrip('.')}."
    return Warned(code=code, message=message, where=where or None)


def write_sample(model: Llama, tokenizer: Tokenizer, prompt: list[int], tokens: int, seed: int) -> str:
    """The continuation of the ids `prompt` by up to `tokens` tokens."""
    return tokenizer.decode(sample_ids(model, prompt, tokens, seed)[0])


@torch.no_grad()
def sample_ids(model: Llama, prompt: list[int], tokens: int, seed: int) -> tuple[list[int], bool]:
    """(up to `tokens` ids that go on from `prompt`, whether an end token ended them).

    They also end at a full context. Draws from a generator of its own: sampling leaves the training's random
    state as it was.
    """
    was_training = model.training
    model.eval()
    device = model.embed.weight.device
    generator = torch.Generator().manual_seed(seed)
    ids = prompt[-(model.config.max_seq_len - 1) :]
    capacity = min(model.config.max_seq_len, len(ids) + tokens)
    cache = KVCache(model.config, 1, capacity, model.embed.weight)
    fresh, written, ended = ids, list[int](), False
    while len(ids) + len(written) < capacity:
        states = model.hidden(torch.tensor([fresh], device=device), cache)  # (1, T, C)
        token = _draw(model.logits(states[0, -1]).float().cpu(), generator)
        if token in model.config.eos_token_ids:
            ended = True
            break
        written.append(token)
        fresh = [token]
    model.train(was_training)
    return written, ended


def _draw(logits: Tensor, generator: torch.Generator) -> int:
    """logits: (V,) on the CPU -> one id among the SAMPLE_TOP_K."""
    best, ids = logits.topk(min(SAMPLE_TOP_K, len(logits)))
    chosen = torch.multinomial(torch.softmax(best / SAMPLE_TEMPERATURE, dim=-1), 1, generator=generator)
    return int(ids[chosen])
