"""How long a run is and how large its steps are, where the command leaves that open. No torch here.

Tokens first: so many a parameter, but no more passes over the data than teach something. The size of a step
follows from the tokens that there will be time for, and the number of steps from both. A limit of time does
not shorten the run: it goes on in the next session, and each one ends with a cooled model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ptbr_slm.text import number
from ptbr_slm.train.config import AUTO, TOKENS_PER_PARAMETER, TrainConfig
from ptbr_slm.train.config.defaults import (
    LEAST_STEP_TOKENS,
    MOST_PASSES,
    STEP_TOKENS_A_STEP,
    step_tokens,
)

BY_THE_CLOCK = 1_000_000_000
"""Steps of a run that `schedule.minutes` ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """What the length of a run follows from."""

    parameters: int
    train_tokens: int | None = None
    """Of the prepared data; None where they are not prepared yet."""
    ranks: int = 1

    @property
    def passes_decide(self) -> bool:
        """Whether the data are too few for `TOKENS_PER_PARAMETER`."""
        return self.tokens < TOKENS_PER_PARAMETER * self.parameters

    @property
    def tokens(self) -> int:
        """Of the whole run."""
        wanted = TOKENS_PER_PARAMETER * self.parameters
        return wanted if self.train_tokens is None else min(wanted, MOST_PASSES * self.train_tokens)


def with_step(config: TrainConfig, extent: Extent, tokens_per_second: float | None = None) -> TrainConfig:
    """The same with tokens_per_step, where neither it nor batch_size is given.

    tokens_per_second: of all devices, as computed: what fits into the session or into `schedule.minutes`.
    """
    if config.batch_size != AUTO or config.tokens_per_step is not None:
        return config
    tokens: float = extent.tokens
    seconds = 60 * config.schedule.minutes or config.max_time_s
    if seconds and tokens_per_second is not None:
        tokens = min(tokens, seconds * tokens_per_second)
    if config.max_steps != AUTO:
        tokens = min(tokens, STEP_TOKENS_A_STEP * config.max_steps**2)
    least = max(LEAST_STEP_TOKENS, extent.ranks * config.seq_len)
    return replace(config, tokens_per_step=step_tokens(tokens, config.seq_len, least))


def with_steps(config: TrainConfig, extent: Extent) -> TrainConfig:
    """The same with max_steps, where it is not given. tokens_per_step or batch_size is."""
    if config.max_steps != AUTO:
        return config
    steps = BY_THE_CLOCK if config.schedule.minutes else max(1, round(extent.tokens / config.step_tokens))
    return replace(config, max_steps=steps)


def length_reason(asked: TrainConfig, config: TrainConfig, extent: Extent) -> str:
    """Why the run is as long as it is, in a sentence of Portuguese; empty where its steps were asked for."""
    if asked.max_steps != AUTO or config.schedule.minutes:
        return ""
    text = f"{number(config.max_steps)} passos de {number(config.step_tokens)} tokens: "
    if extent.passes_decide:
        ratio = extent.tokens / extent.parameters
        few = number(ratio, 1) if ratio >= 0.05 else "menos de 0,1"
        text += f"os dados {MOST_PASSES} vezes, {few} tokens por parâmetro"
    else:
        text += f"{TOKENS_PER_PARAMETER} tokens por parâmetro"
    if config.max_time:
        text += ", em quantas sessões forem precisas"
    if config.cooldown == "session":
        text += "; cada uma termina com um modelo resfriado (--cooldown schedule: só a última)"
    return f"{text}; --max-steps muda isso"
