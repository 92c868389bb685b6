"""Defaults of a training that follow from the size of the model. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass

TOKENS_PER_PARAMETER = 20
"""Where a size makes the most of its FLOPs (Hoffmann et al., 2022, arXiv:2203.15556)."""
MOST_PASSES = 4
"""Times that data are read where the length was left open: so often they teach nearly what new text would
(Muennighoff et al., 2023, arXiv:2305.16264)."""
STEP_TOKENS = 15 / math.sqrt(TOKENS_PER_PARAMETER)
"""Tokens of a step over the root of a run's tokens."""
STEP_TOKENS_A_STEP = STEP_TOKENS**2
"""Tokens of a step over the number of steps: the same rule, where the steps are given."""
LEAST_STEP_TOKENS = 1024
"""The smallest step that taught best in any trial (docs/decisions/0019-muon.md)."""


def default_tokens_per_step(num_parameters: int, seq_len: int) -> int:
    """`step_tokens` of a run of TOKENS_PER_PARAMETER tokens a parameter: some 15 * sqrt(N).

    131,072 at 85m and 160m, 262,144 at 400m and 800m: within a factor of two of DeepSeek LLM's fit for a
    fully trained 85m (2024, arXiv:2401.02954), and less above, where a Kaggle quota ends long before that.
    """
    return step_tokens(TOKENS_PER_PARAMETER * num_parameters, seq_len)


def step_tokens(tokens: float, seq_len: int, least: int = LEAST_STEP_TOKENS) -> int:
    """Tokens of a step for a run of so many: the power of two at or below STEP_TOKENS * sqrt(tokens), in
    whole sequences. The critical batch grows with the data, not with the model (arXiv:2410.21676).
    """
    wanted = 1 << int(math.log2(max(1.0, STEP_TOKENS * math.sqrt(tokens))))
    return max(1, max(least, wanted) // seq_len) * seq_len


MOMENTUM_WARMUP = 300
"""Steps in which Muon's momentum rises (docs/decisions/0117-muon-momentum.md)."""
MUON_RATE = 2.5
"""Best rate of Muon over AdamW's at 2M parameters (docs/decisions/0019-muon.md), for tuning."""


@dataclass(frozen=True, slots=True)
class RateFit:
    """A power law of the best peak rate."""

    rate: float
    """At `parameters`, in steps of `tokens`."""
    parameters: float
    by_parameters: float
    """How it falls with them."""
    by_tokens: float
    """How it falls with the tokens of a step, where these are fewer."""
    most: float
    """It was never better above this in a trial of ours."""
    tokens: int | None = None
    """None: those of `default_tokens_per_step`."""


MUON = RateFit(rate=2.7e-3, parameters=87.5e6, by_parameters=0.18, by_tokens=0.25, most=1e-2)
ADAMW = RateFit(rate=1.9e-3, parameters=109e6, by_parameters=0.5, by_tokens=0.5, most=3e-3, tokens=131_072)
"""Through the best rates of Lingle's sweeps over Llama shapes of 109M to 872M (arXiv:2404.05728)."""


def default_learning_rate(num_parameters: int, optimizer: str = "adamw", tokens: int | None = None) -> float:
    """Peak rate by size and by tokens of a step; None: those of `default_tokens_per_step`.

    Muon's falls with the root of the width (N^-0.18 over our sizes), as the spectral norm of an update of
    constant root mean square asks. How they were fitted: docs/decisions/0115-muon-by-default.md.
    """
    fit = MUON if optimizer == "muon" else ADAMW
    usual = STEP_TOKENS * math.sqrt(TOKENS_PER_PARAMETER * num_parameters)
    share = min(1.0, (tokens or usual) / (fit.tokens or usual))
    rate = fit.rate * (fit.parameters / num_parameters) ** fit.by_parameters * share**fit.by_tokens
    return float(f"{min(fit.most, rate):.1e}")
