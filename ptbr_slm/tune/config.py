"""All settings of a tuning: those of a training with other defaults, and a section of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.train.config import AUTO, MUON_RATE, TrainConfig, seq_len_too_long
from ptbr_slm.train.config.sections import (
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from ptbr_slm.train.config.setting import Section, choice, integer, number, per_session
from ptbr_slm.train.config_file import from_values

DEFAULT_PROMPTS = ("Olá! Quem é você?", "Quanto são 7 mais 5?", "Escreva uma frase sobre o mar.")
LONGEST_SEQ_LEN = 1024
"""Tokens of a training sequence at most, where the model's context is longer and none was asked for."""
STEPS_PER_EPOCH = 64
"""Optimizer steps that an epoch is cut into, where a step of MOST_STEP_TOKENS would be a larger share."""
MOST_STEP_TOKENS = 32_768
"""Tokens of an optimizer step at most, padding included, where none were asked for."""
FEWEST_STEP_ROWS = 2
"""Sequences of an optimizer step at least, where none were asked for: the two cards of a Kaggle session share
every step, and one card takes the same steps."""
WARMUP_SHARE = 0.05
"""Of the steps of a tuning."""
DPO_RATE = 0.1
"""Peak rate of a preference tuning, of that with which the same model learns conversations."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneOptions(Section):
    """What a tuning has besides the settings of a training."""

    PREFIX: ClassVar[str] = "tune."

    method: str = field(default="full", metadata=choice("full", "lora"))
    """`full`: every weight is trained. `lora`: low-rank adapters beside frozen weights, merged at the end."""
    lora_rank: int = field(default=16, metadata=integer(1, 1024))
    """Rank of the adapters of `lora`; what they can learn, and their size, grow with it."""
    lora_alpha: float = field(default=32.0, metadata=number(0, 1e6, open_low=True))
    """What the adapters add is multiplied by lora_alpha / lora_rank."""
    epochs: float = field(default=3.0, metadata=number(0, 1000, open_low=True))
    """Times that every conversation is read; only where max_steps is not given."""
    loss: str = field(default="answers", metadata=choice("answers", "all"))
    """`answers`: only what the assistant writes is trained, its end-of-turn token included. `all`: every
    token of a conversation."""
    format: str = field(
        default="auto",
        metadata=choice("auto", "messages", "prompt_completion", "alpaca", "sharegpt", "preference", "text"),
    )
    """The form of the data; `auto` goes by the columns."""
    valid_fraction: float = field(default=0.05, metadata=number(0, 0.5))
    """Share of the conversations that is held out, for the evaluations."""
    evaluation_sets: tuple[str, ...] = field(default=(), metadata=per_session())
    """Files or folders of evaluation items; conversations that hold one are left out."""
    replay: float = field(default=0.0, metadata=number(0, 0.9))
    """Share of the sequences that are pre-training text, against forgetting; needs replay_data."""
    replay_data: Path | None = field(default=None, metadata=per_session())
    """Prepared text that the model was trained on, or like it, with its tokenizer. Its held-out part is
    measured at every evaluation, also where `replay` is 0 and nothing of it is trained."""
    objective: str = field(default="sft", metadata=choice("sft", "dpo"))
    """`sft`: the model learns conversations. `dpo`: pairs of answers, of which the chosen one becomes more
    likely and the rejected one less."""
    beta: float = field(default=0.1, metadata=number(0, 10, open_low=True))
    """dpo: how much a margin counts; the higher, the nearer to the model before it stays."""
    nll_weight: float = field(default=1.0, metadata=number(0, 10))
    """dpo: weight of the chosen answer's negative log-likelihood per token. With 0 both answers may become
    less likely, and then the model writes neither."""
    max_chosen_drop: float = field(default=0.3, metadata=number(0, 100, open_low=True))
    """dpo: nats per token that held-out chosen answers may become less likely by; more ends the run."""
    watched_answers: int = field(default=16, metadata=integer(0))
    """dpo: held-out prompts to answer freely at every evaluation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneConfig(TrainConfig):
    """All of a tuning. `init_from` is the model that is tuned, `data` the conversations."""

    COMMAND: ClassVar[str] = "tune"

    max_steps: int = field(default=AUTO, metadata=integer(1, unit="passos", auto=True))
    """Optimizer steps of the whole run; `auto`: as many as tune.epochs are."""
    data_options: DataConfig = field(default_factory=lambda: DataConfig(document_mask=True))
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(name="adamw", weight_decay=0.0)
    )
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="cosine"))
    evaluation: EvaluationConfig = field(
        default_factory=lambda: EvaluationConfig(every=100, prompts=DEFAULT_PROMPTS)
    )
    checkpoint: CheckpointConfig = field(default_factory=lambda: CheckpointConfig(every=100))
    tune: TuneOptions = field(default_factory=TuneOptions)

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        for rule in _RULES:
            rule(self)

    def with_defaults(self, num_parameters: int) -> TuneConfig:
        """The same with optimizer, schedule, learning rate and warm-up filled in where they were open."""
        name, rate = self.optimizer.name, self.optimizer.learning_rate
        kind, warmup = self.schedule.kind, self.schedule.warmup_steps
        name, kind = "adamw" if name == "auto" else name, "cosine" if kind == "auto" else kind
        if rate is None:
            rate = default_learning_rate(num_parameters, self.tune.method, name)
            rate *= DPO_RATE if self.tune.objective == "dpo" else 1.0
        if warmup is None:
            warmup = max(1, round(WARMUP_SHARE * self.max_steps))
        return replace(
            self,
            optimizer=replace(self.optimizer, name=name, learning_rate=rate),
            schedule=replace(self.schedule, kind=kind, warmup_steps=warmup),
        )

    def with_steps(self, rows: int) -> TuneConfig:
        """The same with tokens of a step and number of steps filled in. rows: sequences of one epoch."""
        tokens = self.tokens_per_step
        if tokens is None and self.batch_size == AUTO:
            rows_per_step = min(MOST_STEP_TOKENS // self.seq_len, -(-rows // STEPS_PER_EPOCH))
            tokens = self.seq_len * max(FEWEST_STEP_ROWS, rows_per_step)
        config = replace(self, tokens_per_step=tokens)
        if self.max_steps != AUTO:
            return config
        return replace(config, max_steps=max(1, round(self.tune.epochs * rows / config.step_sequences)))


def default_learning_rate(num_parameters: int, method: str, optimizer: str = "adamw") -> float:
    """Peak rate by size and method; Muon's is scaled to AdamW's, as in pre-training.

    The first line is measured (docs/decisions/0090-tuning-defaults.md), the others follow published recipes.
    """
    bounds = [
        (20e6, 1e-3, 3e-3),
        (200e6, 3e-4, 1e-3),
        (600e6, 1e-4, 5e-4),
        (float("inf"), 5e-5, 2e-4),
    ]
    full, lora = next((full, lora) for most, full, lora in bounds if num_parameters <= most)
    rate = lora if method == "lora" else full
    return float(f"{rate * (MUON_RATE if optimizer == 'muon' else 1):.1e}")


def tune_config(model: Path, values: Mapping[str, Any]) -> TuneConfig:
    """The settings from dotted keys, for this model: seq_len follows from its context where none is given.

    Raises E_SEQ_LEN, and what `from_values` and `ModelFolder.check` raise.
    """
    folder = ModelFolder(model)
    folder.check()
    context = folder.config.max_seq_len
    seq_len = min(LONGEST_SEQ_LEN, context)
    config = from_values({"seq_len": seq_len, **values, "init_from": model}, TuneConfig)
    if config.seq_len > context:  # before the conversations are read
        raise seq_len_too_long(config.seq_len, context, new_run=False)
    return config


def _check_replay(config: TuneConfig) -> None:
    """A share of pre-training text needs the text."""
    if not config.tune.replay or config.tune.replay_data is not None:
        return
    raise SlmError(
        "E_USAGE",
        "--replay diz quanto do texto do pré-treino; falta dizer onde ele está.",
        where="--replay",
        hint="Exemplo: --replay 0.1 --replay-data dados  (a pasta de ptbr-slm data prepare)",
    )


def _check_document_mask(config: TuneConfig) -> None:
    """Conversations that share a sequence never see each other."""
    if not config.data_options.document_mask:
        raise SlmError(
            "E_CONFIG",
            "no ajuste, as conversas de uma sequência nunca se veem: data.document_mask é sempre true.",
            where="data.document_mask",
            hint="Tire data.document_mask do arquivo ou de --set.",
        )


def _check_objective(config: TuneConfig) -> None:
    """Pairs of answers have neither replay nor a choice of what is learnt."""
    if config.tune.objective != "dpo":
        return
    for key, given in (("replay", config.tune.replay > 0), ("loss", config.tune.loss != "answers")):
        if given:
            raise SlmError(
                "E_CONFIG",
                f"--{key} não vale com --objective dpo, que compara pares de respostas.",
                where=f"tune.{key}",
                hint=f"Tire --{key}; contra o esquecimento, use --nll-weight ou um --beta maior.",
            )


def _check_teacher(config: TuneConfig) -> None:
    """Stored predictions are of prepared text, not of conversations."""
    if config.distill.logits is not None:
        raise SlmError(
            "E_USAGE",
            "as previsões de um professor são de um texto preparado; aqui se aprende do que ele escreve.",
            where="distill.logits",
            hint="Faça conversas com ele:  python examples/destilar_texto.py --help",
        )


def _check_lora(config: TuneConfig) -> None:
    """Adapters are small matrices beside frozen ones: no shards, and no optimizer for whole matrices."""
    if config.tune.method != "lora":
        return
    if config.parallel == "fsdp":
        message = "o fsdp reparte os pesos que se treinam, que no lora são poucos"
        where, hint = "--parallel fsdp", "Use --parallel ddp."
    elif config.optimizer.name == "muon":
        message = "o muon treina matrizes inteiras, e no lora só se treinam adaptadores ao lado delas"
        where, hint = "--optimizer muon", "Use --optimizer adamw."
    else:
        return
    raise SlmError("E_USAGE", f"{message}.", where=f"--method lora {where}", hint=hint)


_RULES = (_check_objective, _check_replay, _check_document_mask, _check_teacher, _check_lora)
