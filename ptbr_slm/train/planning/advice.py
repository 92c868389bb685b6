"""What a plan warns of before its first step: a step that is mostly communication, and far too few tokens.

Nothing is changed and nothing refused: a sentence says what it costs, and what to type instead. No torch
here.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ptbr_slm.config import SIZES, model_config
from ptbr_slm.text import number
from ptbr_slm.train.config import TOKENS_PER_PARAMETER, TrainConfig, default_tokens_per_step
from ptbr_slm.train.planning.choice import Machine, Request, Setting, choose
from ptbr_slm.train.planning.speed import EXCHANGE, exchanged_bytes

FEW = 5
"""Tokens a parameter from which down a smaller model learns more in the same hours, by a wide margin."""
LARGE = 50_000_000
"""Parameters from which on the tokens are watched: below, one tries things out in minutes."""
MUCH, LITTLE = 0.2, 0.1
"""Share of a step in which the cards exchange gradients: warned of from the one, proposed to be the other."""


def notes(config: TrainConfig, request: Request, setting: Setting, machine: Machine) -> list[str]:
    """The warnings of a run, in Portuguese. request: what the plan decided of it; setting: how."""
    if request.adapters is not None or config.init_from is not None:
        return []
    found = [exchange_note(config, request, setting, machine), tokens_note(config, request, setting, machine)]
    return [note for note in found if note]


def exchange_share(request: Request, setting: Setting, machine: Machine) -> float:
    """Of a step, the share in which the ranks exchange what they computed."""
    count = -(-request.sequences // machine.ranks) / setting.batch_size
    sent = exchanged_bytes(request.model.num_parameters, count, machine.ranks, request.parallel)
    return sent / EXCHANGE / setting.seconds


def exchange_note(config: TrainConfig, request: Request, setting: Setting, machine: Machine) -> str:
    """Empty unless the exchange takes more than `MUCH` of a step. FSDP's grows with the step: not judged."""
    share = exchange_share(request, setting, machine)
    if share < MUCH or request.parallel == "fsdp":
        return ""
    times = math.ceil(share * (1 - LITTLE) / ((1 - share) * LITTLE))
    sequences = times * request.sequences
    if config.tokens_per_step is None and request.batch_size is not None:
        larger = f"--grad-accum {sequences // request.batch_size}"
    else:
        larger = f"--tokens-per-step {sequences * request.seq_len}"
    sent = exchanged_bytes(request.model.num_parameters, 1, machine.ranks, "ddp")
    steps = max(1, round(config.max_steps / times))
    return (
        f"cada passo de {number(request.sequences * request.seq_len)} tokens passa "
        f"{number(share * setting.seconds, 2)} de {number(setting.seconds, 2)} s "
        f"({number(100 * share)} %) trocando {number(sent / 1e9, 1)} GB de gradientes entre as GPUs "
        f"(calculado). Com {larger} seriam {number(100 * LITTLE)} %; --max-steps {steps} lê então os mesmos "
        "tokens."
    )


def tokens_note(config: TrainConfig, request: Request, setting: Setting, machine: Machine) -> str:
    """Empty unless a large new model would see fewer than `FEW` tokens a parameter."""
    parameters = request.model.num_parameters
    tokens = config.max_steps * request.sequences * request.seq_len
    if parameters < LARGE or tokens >= FEW * parameters or config.schedule.minutes:
        return ""
    hours = config.max_steps * setting.seconds / 3600
    text = (
        f"{number(config.max_steps)} passos são {number(tokens / 1e6)} milhões de tokens, "
        f"{number(tokens / parameters, 1)} por parâmetro; este tamanho pede uns {TOKENS_PER_PARAMETER}."
    )
    better = smaller_size(request, machine, 3600 * hours)
    if better is None:
        return text
    size, ratio = better
    return (
        f"{text} Nas mesmas {number(hours, 1)} h (calculadas), --model-size {size} --batch-size auto leria "
        f"{number(ratio)} por parâmetro e aprenderia mais. "
        f"A conta:  ptbr-slm plan --hours {max(1, round(hours))}"
    )


def smaller_size(request: Request, machine: Machine, seconds: float) -> tuple[str, float] | None:
    """(name, tokens a parameter) of the smaller large size nearest to `TOKENS_PER_PARAMETER` in so many
    seconds; None where none comes nearer than the one asked for.
    """
    found = []
    for name, shape in SIZES.items():
        if LARGE <= shape.num_parameters < request.model.num_parameters:
            model = model_config(
                name, vocab_size=request.model.vocab_size, max_seq_len=request.model.max_seq_len
            )
            sequences = default_tokens_per_step(model.num_parameters, request.seq_len) // request.seq_len
            open_request = replace(
                request, model=model, sequences=sequences, batch_size=None, checkpoint_every=None, loss=None
            )
            best = choose(open_request, machine)
            if best is not None:
                found.append((name, best.tokens_per_second * seconds / model.num_parameters))
    return min(found, key=lambda size: abs(math.log(size[1] / TOKENS_PER_PARAMETER)), default=None)
