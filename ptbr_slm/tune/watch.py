"""What is watched while preferences are learnt: log-probabilities of held-out pairs, and free generations.

A margin may grow while both answers become less likely, and then what the model writes is neither of them;
it may also grow without any change of what the model writes. So both are measured at every evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.text import number
from ptbr_slm.train.evaluate import sample_ids
from ptbr_slm.tune.events import PreferenceMeasured
from ptbr_slm.tune.preference import Floats, Pairs

_NGRAM = 4


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model wrote to held-out prompts."""

    count: int
    tokens: float
    """Mean length."""
    ended: float
    """Share that an end token ended."""
    repeated: float
    """Share of the 4-grams of an answer that stood in it before."""


def write_answers(model: Llama, prompts: Sequence[Sequence[int]], tokens: int, seed: int) -> Answers:
    """Sample an answer of up to `tokens` tokens to each of the prompts (ids)."""
    written = [sample_ids(model, list(prompt), tokens, seed + at) for at, prompt in enumerate(prompts)]
    return Answers(
        count=len(written),
        tokens=float(np.mean([len(ids) for ids, _ in written])),
        ended=float(np.mean([ended for _, ended in written])),
        repeated=repeated_ngrams([ids for ids, _ in written]),
    )


def repeated_ngrams(texts: Sequence[Sequence[int]]) -> float:
    """Share of all 4-grams that stood before in the same text; 0 where there are none."""
    total = repeats = 0
    for ids in texts:
        found = Counter(zip(*(ids[start:] for start in range(_NGRAM)), strict=False))
        total += found.total()
        repeats += found.total() - len(found)
    return repeats / total if total else 0.0


def prompts_of(pairs: Pairs, count: int) -> tuple[list[list[int]], int]:
    """(up to `count` different prompts, spread evenly over the pairs; tokens of their longest answer)."""
    found: dict[tuple[int, ...], int] = {}
    total = len(pairs.lengths)
    for at in dict.fromkeys((np.arange(min(count, total)) * total // max(min(count, total), 1)).tolist()):
        chosen, rejected = pairs.pair(at)
        prompt = tuple(chosen.ids[: int(chosen.target.argmax())].tolist())
        longest = max(chosen.targets, rejected.targets)
        found[prompt] = max(longest, found.get(prompt, 0))
    return [list(prompt) for prompt in found], max(found.values(), default=0)


def measured(
    step: int,
    log_probs: Floats,
    reference: Floats,
    tokens: npt.NDArray[np.int64],
    answers: Answers | None,
) -> PreferenceMeasured:
    """The event. log_probs, reference, tokens: (pairs, 2), of the chosen and the rejected answers."""
    gain = log_probs - reference
    margin = gain[:, 0] - gain[:, 1]
    each = log_probs.sum(axis=0) / tokens.sum(axis=0)
    before = reference.sum(axis=0) / tokens.sum(axis=0)
    chosen, rejected = log_probs.mean(axis=0).tolist()
    return PreferenceMeasured(
        step=step,
        pairs=len(log_probs),
        won=float((margin > 0).mean()),
        margin=float(margin.mean()),
        chosen=chosen,
        rejected=rejected,
        chosen_per_token=float(each[0]),
        rejected_per_token=float(each[1]),
        chosen_change=float(each[0] - before[0]),
        drift=float(-gain.sum() / tokens.sum()),
        answers=None if answers is None else answers.count,
        answer_tokens=None if answers is None else answers.tokens,
        ended=None if answers is None else answers.ended,
        repeated=None if answers is None else answers.repeated,
    )


def check_chosen(event: PreferenceMeasured, limit: float) -> None:
    """Refuse to go on where the chosen answers became less likely by more than `limit` nats a token.

    Raises E_TRAINING_DIVERGED.
    """
    if -event.chosen_change <= limit:
        return
    raise SlmError(
        "E_TRAINING_DIVERGED",
        f"no passo {number(event.step)} as respostas escolhidas são menos prováveis do que antes do ajuste, "
        f"em {number(-event.chosen_change, 2)} nats por token (o limite é {number(limit, 2)}): a margem "
        "cresce só porque as recusadas caem mais, e o que o modelo escreve piora.",
        where="tune.max_chosen_drop",
        hint="Use uma taxa menor (--learning-rate), ou --nll-weight ou --beta maiores; o último checkpoint "
        "está em checkpoints/.",
    )
