"""From what a caller asks to rows: one for each completion of each prompt."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from ptbr_slm.runtime.generation.cancel import Cancel
from ptbr_slm.runtime.generation.row import Prompt, Row
from ptbr_slm.runtime.sampling.sampler import Recipe
from ptbr_slm.runtime.types import Engine, SamplingParams

_SEEDS = 2**63


def make_rows(
    engine: Engine, prompts: Sequence[Sequence[int]], params: SamplingParams, cancel: Cancel | None = None
) -> list[Row]:
    """Rows for prompts of token ids, each shorter than the context.

    Completion i of every prompt draws with the seed `params.seed` + i; without one, each prompt gets a fresh
    seed. Raises E_SAMPLING or E_DEPENDENCY for what cannot be had from this model.
    """
    recipe = Recipe(params, engine.tokenizer, engine.config.eos_token_ids)
    rows = []
    for index, ids in enumerate(prompts):
        prompt = Prompt(ids, index, waiting=params.n)
        seed = secrets.randbits(32) if params.seed is None else params.seed
        rows += [
            Row(engine, prompt, recipe, (seed + completion) % _SEEDS, completion, cancel)
            for completion in range(params.n)
        ]
    return rows
