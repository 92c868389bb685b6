"""All settings of a run, the rules between them, and what follows from them. No torch here.

Read from TOML and the command line by `train.config_file`; written to RUN/config.resolved.toml with every
derived value filled in.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from ptbr_slm.config import ModelConfig, model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.text import DURATION, parse_duration
from ptbr_slm.train.config.defaults import MOMENTUM_WARMUP, default_learning_rate
from ptbr_slm.train.config.sections import (
    CheckpointConfig,
    DataConfig,
    DistillConfig,
    EvaluationConfig,
    GuardConfig,
    ModelOverrides,
    OptimizerConfig,
    ScheduleConfig,
)
from ptbr_slm.train.config.setting import AUTO, Section, choice, integer, number, per_session, text


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(Section):
    """All of a run. Tokens of an optimizer step = batch_size * grad_accum * seq_len, over all devices."""

    COMMAND: ClassVar[str] = "train"
    """The command whose settings these are. A subclass names its own, and a section of that name."""

    data: Path = field(metadata=per_session())
    """Prepared data, or text, JSONL or Parquet to prepare on the way."""
    output: Path = field(metadata=per_session())
    """The run's folder."""
    cooldown_data: Path | None = field(default=None, metadata=per_session())
    """Better text, as `data`, of the same tokenizer, that the steps of a wsd schedule's cooldown read in its
    place, also those of `cooldown` session; validation stays that of data. None: no change of data."""
    tokenizer: Path | None = field(default=None, metadata=per_session())
    """tokenizer.json or its folder; None takes the one that the prepared data names."""
    model_size: str | None = field(default=None, metadata=per_session())
    """A named size (`ptbr-slm info`). None: mini, or the shape of init_from."""
    init_from: Path | None = field(default=None, metadata=per_session())
    """A model folder whose weights the run starts from."""
    batch_size: int = field(default=AUTO, metadata=integer(1, unit="sequências", auto=True, per_session=True))
    """Sequences of one micro-batch; `auto` (`AUTO`) takes the fastest that fits the memory."""
    grad_accum: int = field(default=1, metadata=integer(1, unit="micro-lotes", per_session=True))
    """Micro-batches of one optimizer step; follows from tokens_per_step where that is set."""
    tokens_per_step: int | None = None
    """Tokens of one optimizer step, a multiple of batch_size * seq_len. None: batch_size * grad_accum *
    seq_len; with batch_size auto, by the tokens that there will be time for (`train.planning.length`)."""
    seq_len: int = field(default=256, metadata=integer(1, unit="tokens"))
    """Tokens of a training sequence. Activations grow linearly with it."""
    max_steps: int = field(default=AUTO, metadata=integer(1, unit="passos", auto=True))
    """Optimizer steps of the whole run. `auto`: 20 tokens a parameter, or 4 passes over the data where that
    is less."""
    max_time: str = field(
        default="",
        metadata=text(rf"|(?=.*[1-9]){DURATION}", "uma duração como 11h30m, 90m ou 45s", per_session=True),
    )
    """Stop, save and exit 75 before the session is this old, such as 11h30m; empty: no limit."""
    session_start: str = field(default="", metadata=per_session())
    """When the session of max_time began: an ISO date and time, seconds since 1970, or `kaggle` (when the
    notebook's container started). Empty: when this process did."""
    cooldown: str = field(
        default="auto", metadata=choice("auto", "schedule", "session", "average", per_session=True)
    )
    """What a session of max_time leaves in RUN/final besides what the schedule plans. `schedule`: nothing.
    `session` (wsd only): a model that was cooled down on a branch; the next session goes on from the stable
    phase before it. `average` (wsd only): the mean of the weights of the session's last part; no step is
    thrown away. `auto`: with wsd, session where max_time is given and max_steps is not, average where both
    are; else schedule."""
    precision: str = field(default="auto", metadata=choice("auto", "fp32", "fp16", "bf16"))
    """auto, fp32, fp16 or bf16; auto goes by the compute capability, on a CPU by its units for bf16."""
    checkpointing: str = field(
        default="auto",
        metadata=text(
            r"auto|none|full|every:[1-9]\d*",
            "auto, none, full ou every:K (K de 1 para cima)",
            per_session=True,
        ),
    )
    """Recomputed activations: auto, none, full, or every:K for each K-th layer."""
    loss: str = field(default="auto", metadata=choice("auto", "plain", "chunked", per_session=True))
    """How the cross-entropy is computed, to the same numbers: `chunked`, the logits of some rows at a time;
    `plain`, all at once; `auto`, as it fits best."""
    z_loss: float = field(default=0.0, metadata=number(0, 1))
    """Adds z_loss * logsumexp(logits)^2 a token in training, against logits that drift; 1e-4 where it is used
    (PaLM, arXiv:2204.02311). The training loss that is reported includes it."""
    compile: bool = False
    """torch.compile for each layer, compared with eager before it is trusted (`train.compile`)."""
    device: str = field(default="auto", metadata=choice("auto", "cpu", "cuda", per_session=True))
    """auto, cpu or cuda."""
    parallel: str = field(default="auto", metadata=choice("auto", "none", "ddp", "fsdp", per_session=True))
    """How several processes (ranks) share the model: `ddp` (auto): a whole copy each. `fsdp`: weights,
    gradients and moments in shards, for models that do not fit on one card. `none`: one process."""
    ranks: int = field(
        default=0,
        metadata=integer(0, 64, unit="processos", wanted="um inteiro de 0 (auto) a 64", per_session=True),
    )
    """Processes on this machine; 0: one per visible GPU, one on the CPU. Under torchrun, as it says."""
    logger: tuple[str, ...] = field(default=(), metadata=per_session())
    """tensorboard, trackio, wandb: where the curves go besides metrics.jsonl and report/."""
    seed: int = field(default=0, metadata=integer(0, 2**63 - 1, wanted="um inteiro de 0 a 2^63 - 1"))
    """Of the weights and of the order of the data."""
    resume: str = field(default="auto", metadata=per_session(stored=False))
    """auto continues the run that output holds, never refuses one, a path continues from that checkpoint."""
    allow_config_change: bool = field(default=False, metadata=per_session(stored=False))
    """Whether a resumed run may change settings that change what it computes."""
    data_options: DataConfig = field(default_factory=DataConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    model: ModelOverrides = field(default_factory=ModelOverrides)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    def __post_init__(self) -> None:
        Section.__post_init__(self)
        for rule in _RULES:
            rule(self)

    @property
    def step_sequences(self) -> int:
        """Sequences of one optimizer step, over all ranks."""
        if self.tokens_per_step is not None:
            return self.tokens_per_step // self.seq_len
        return self.batch_size * self.grad_accum

    @property
    def step_tokens(self) -> int:
        """Target tokens of one optimizer step, over all ranks."""
        return self.step_sequences * self.seq_len

    @property
    def max_time_s(self) -> float | None:
        """`max_time` in seconds, None without a limit."""
        return parse_duration(self.max_time) if self.max_time else None

    @property
    def checkpoint_every(self) -> int | None:
        """`Llama.checkpoint_every` of this setting: 0 none, 1 full, K; None for auto."""
        if self.checkpointing.startswith("every:"):
            return int(self.checkpointing.removeprefix("every:"))
        return {"auto": None, "none": 0, "full": 1}[self.checkpointing]

    def new_model(self, vocab_size: int, bos_id: int, eos_id: int, pad_id: int | None) -> ModelConfig:
        """The shape of a new model with this vocabulary."""
        context = self.model.max_seq_len or self.seq_len
        named = model_config(self.model_size or "mini", vocab_size=vocab_size, max_seq_len=context)
        return replace(
            named, bos_token_id=bos_id, eos_token_ids=(eos_id,), pad_token_id=pad_id, **self.model.given()
        )

    def with_cooldown(self) -> TrainConfig:
        """The same with `cooldown` decided, by what is given of steps and time."""
        if self.cooldown != "auto":
            return self
        cools = self.schedule.kind != "cosine" and self.schedule.cooldown_fraction > 0
        if self.COMMAND != "train" or not self.max_time or not cools or self.schedule.minutes:
            return replace(self, cooldown="schedule")
        return replace(self, cooldown="session" if self.max_steps == AUTO else "average")

    def with_defaults(self, num_parameters: int) -> TrainConfig:
        """The same with optimizer, schedule, learning rate and warm-ups filled in where they were open."""
        name, rate = self.optimizer.name, self.optimizer.learning_rate
        rises = self.optimizer.momentum_warmup_steps
        kind, warmup = self.schedule.kind, self.schedule.warmup_steps
        if name == "auto":
            name = "adamw" if self.parallel == "fsdp" else "muon"
        if rate is None:
            rate = default_learning_rate(num_parameters, name, self.step_tokens or None)
        if warmup is None:
            warmup = 50 if self.schedule.minutes else min(1000, max(10, self.max_steps // 50), self.max_steps)
        if rises is None:
            rises = min(MOMENTUM_WARMUP, self.max_steps // 2) if name == "muon" else 0
        optimizer = replace(self.optimizer, name=name, learning_rate=rate, momentum_warmup_steps=rises)
        return replace(
            self,
            optimizer=optimizer,
            schedule=replace(self.schedule, kind="wsd" if kind == "auto" else kind, warmup_steps=warmup),
        )


# Rules between settings: `_RULES` lists them in the order in which they are checked.


def _check_step_tokens(config: TrainConfig) -> None:
    """batch_size, grad_accum and tokens_per_step say the same, or leave something to derive."""
    batch_size, grad_accum, tokens = config.batch_size, config.grad_accum, config.tokens_per_step
    if tokens is None:
        if batch_size == AUTO and grad_accum != 1:
            raise SlmError(
                "E_CONFIG",
                "sem --batch-size, ou com auto, quem reparte o passo em micro-lotes é o plano.",
                where=f"--grad-accum {grad_accum}",
                hint="Diga também --batch-size N (o padrão já foi 8), ou troque por --tokens-per-step N.",
            )
        return
    piece = config.seq_len * (batch_size or 1)
    agrees = grad_accum in (1, tokens // config.seq_len // (batch_size or 1))
    if tokens < 1 or tokens % piece or not agrees:
        near = max(1, round(tokens / piece)) * piece
        raise SlmError(
            "E_CONFIG",
            f"tokens_per_step ({tokens}) não é batch_size x grad_accum x seq_len "
            f"({batch_size or 'auto'} x {grad_accum} x {config.seq_len}).",
            where="--tokens-per-step",
            hint=f"Deixe --grad-accum de fora, que é calculado, e use --tokens-per-step {near}.",
        )


def _check_session(config: TrainConfig) -> None:
    """Settings of a session need its end, max_time, and its cooldown needs a stable rate."""
    at_its_end = config.cooldown in ("session", "average")
    asked_for = f"cooldown {config.cooldown}"
    for name, asked in (("session-start", bool(config.session_start)), (asked_for, at_its_end)):
        if asked and not config.max_time:
            raise SlmError(
                "E_USAGE",
                f"--{name} só tem efeito junto com o tempo da sessão.",
                where=f"--{name}",
                hint="Diga também quanto dura a sessão, como em --max-time 11h30m.",
            )
    if at_its_end and config.schedule.kind == "cosine":
        what = "o resfriamento" if config.cooldown == "session" else "a média dos pesos"
        raise SlmError(
            "E_USAGE",
            f"{what} no fim da sessão parte de uma taxa estável, que só o schedule wsd tem.",
            where=f"--{asked_for}",
            hint="Troque por --set schedule.kind=wsd, ou deixe schedule.kind de fora.",
        )


def _check_cooldown_data(config: TrainConfig) -> None:
    """Data for a cooldown need one, and text: neither conversations nor a teacher's predictions."""
    if config.cooldown_data is None:
        return
    if config.COMMAND != "train":
        message = "os dados do resfriamento são texto de pré-treino, e aqui se ajusta um modelo"
        hint = "Tire cooldown_data do arquivo ou de --set."
    elif config.distill.logits is not None:
        message = "as previsões de um professor são de um texto só, e o resfriamento leria outro"
        hint = "Fique com --cooldown-data ou com --teacher-logits."
    elif config.schedule.kind == "cosine" or not config.schedule.cooldown_fraction:
        message = "este treino não tem resfriamento em que ler outros dados: só o schedule wsd tem um"
        hint = "Use --set schedule.kind=wsd, o padrão, com schedule.cooldown_fraction acima de 0."
    else:
        return
    raise SlmError("E_USAGE", f"{message}.", where="--cooldown-data", hint=hint)


def _check_sharding(config: TrainConfig) -> None:
    """fsdp shards matrices, of which only AdamW updates a part by itself."""
    name = config.optimizer.name
    if config.parallel == "fsdp" and name not in ("auto", "adamw"):
        raise SlmError(
            "E_USAGE",
            f"{name} precisa de matrizes inteiras, que o fsdp reparte entre os processos.",
            where=f"--parallel fsdp --optimizer {name}",
            hint="Use --optimizer adamw, ou --parallel ddp.",
        )


def _check_shape(config: TrainConfig) -> None:
    """The shape comes from init_from, or from model_size and model.*. Only the context may be another one:
    no weight has its size.
    """
    other = set(config.model.given()) - CONTEXT_KEYS
    if config.init_from is not None and (config.model_size is not None or other):
        raise SlmError(
            "E_USAGE",
            "--init-from já define o formato do modelo; não combine com --model-size nem com model.*, "
            "a não ser model.max_seq_len e model.rope_theta, que mudam o contexto.",
            where="--init-from",
            hint="Fique com um dos dois.",
        )
    if config.model_size is not None:
        model_config(config.model_size)  # E_MODEL_SIZE


CONTEXT_KEYS = frozenset({"max_seq_len", "rope_theta"})
"""Of `ModelOverrides`, what a model that is trained on may change."""


def _check_context(config: TrainConfig) -> None:
    """A training sequence is not longer than the context asked for."""
    context = config.model.max_seq_len
    if context is not None and config.seq_len > context:
        raise seq_len_too_long(config.seq_len, context, new_run=True)


EXTENDED_THETA = 100_000
"""RoPE base for a context of four times the length (docs/decisions/0124-longer-context.md)."""


def seq_len_too_long(seq_len: int, context: int, *, new_run: bool, extends: bool = False) -> SlmError:
    """E_SEQ_LEN that says what to change. extends: whether the model's context may be made longer."""
    hint = f"Use --seq-len {context}"
    if new_run:
        hint += f", ou --set model.max_seq_len={seq_len} num treino novo"
    elif extends:
        hint += (
            f", ou estenda o contexto com --set model.max_seq_len={seq_len} "
            f"--set model.rope_theta={EXTENDED_THETA} (docs/CONTEXTO.md)"
        )
    return SlmError(
        "E_SEQ_LEN",
        f"seq_len {seq_len} é maior que o contexto do modelo ({context}).",
        where="--seq-len",
        hint=hint + ".",
    )


_RULES = (
    _check_step_tokens,
    _check_session,
    _check_cooldown_data,
    _check_sharding,
    _check_shape,
    _check_context,
)
