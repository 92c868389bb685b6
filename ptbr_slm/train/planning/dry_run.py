"""`train --dry-run`: the plan of a run and how often it reads the data, without writing anything."""

from __future__ import annotations

from dataclasses import dataclass

from ptbr_slm.data import index
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.order import WindowOrder
from ptbr_slm.train.parallel.launch import ranks_to_start
from ptbr_slm.train.planning.plan import Plan, check_enough_text, make_plan


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would be."""

    plan: Plan
    train_tokens: int | None
    """None where the data are not prepared yet."""
    epochs: float | None
    """Times that every window is read; None likewise."""


def dry_run(config: TrainConfig) -> DryRun:
    """Decide all that `train` would decide. Raises what it would raise before its first step."""
    path = config.data
    if not (path.suffix == ".bin" or path.name == index.NAME or (path / index.NAME).is_file()):
        return _not_prepared(config)
    data = PreparedData.open(config.data, verify=False)
    tokenizer = data.load_tokenizer()
    if config.tokenizer is not None:
        data.check_tokenizer(Tokenizer.load(config.tokenizer), config.tokenizer)
    plan = make_plan(config, tokenizer, ranks_to_start(config))
    check_enough_text(plan.config, data)
    tokens = data.split("train").tokens
    windows = WindowOrder(tokens, config.seq_len, config.seed).windows
    return DryRun(plan, tokens, plan.config.step_sequences * config.max_steps / windows)


def _not_prepared(config: TrainConfig) -> DryRun:
    if not config.data.exists():
        raise SlmError(
            "E_NOT_FOUND", "os dados não existem.", where=config.data, hint="Confira o caminho em --data."
        )
    if config.tokenizer is None:
        raise SlmError(
            "E_TOKENIZER_MISSING",
            "estes dados ainda não foram preparados e falta dizer o tokenizador.",
            where=config.data,
            hint="Diga --tokenizer T, ou treine um com:  ptbr-slm tokenizer train TEXTOS -o tokenizer.json",
        )
    return DryRun(make_plan(config, Tokenizer.load(config.tokenizer), ranks_to_start(config)), None, None)
