"""The settings of a training run: frozen dataclasses, each field documented below it. No torch here.

Read from TOML and the command line by `train.config_file`; written to RUN/config.resolved.toml with every
derived value filled in.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ptbr_slm.config import ModelConfig, model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.train.survival.session import check_session

AUTO = 0
"""`batch_size` of a configuration that says `auto`; the plan of a run has a number in its place."""

OPTIMIZERS = ("adamw", "adamw8bit", "muon")
DEFAULT_PROMPTS = ("O Brasil é", "Era uma vez", "A língua portuguesa")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOverrides:
    """What to change in the shape that `model_size` names; None keeps it."""

    hidden_size: int | None = None
    """Width of the residual stream."""
    num_layers: int | None = None
    """Decoder layers."""
    num_heads: int | None = None
    """Query heads."""
    num_kv_heads: int | None = None
    """Key/value heads; divides num_heads."""
    intermediate_size: int | None = None
    """Width of the SwiGLU feed-forward."""
    head_dim: int | None = None
    """Width of one head."""
    max_seq_len: int | None = None
    """Context in tokens; by default the seq_len of the training."""
    rope_theta: float | None = None
    """RoPE base."""
    tie_embeddings: bool | None = None
    """Whether the output head shares the embedding matrix."""
    qk_norm: bool | None = None
    """RMSNorm of queries and keys, as in Qwen3; the model is then saved as a Qwen3ForCausalLM."""

    def given(self) -> dict[str, Any]:
        """The fields that are not None."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """How gradients become updates (`train.optim`)."""

    name: str = "adamw"
    """`adamw`; `adamw8bit`: its moments in 8 bits (needs bitsandbytes or torchao); `muon`: orthogonalised
    momentum for the matrices of the layers, AdamW for embedding, head and norms."""
    learning_rate: float | None = None
    """Peak learning rate; Muon's is scaled to AdamW's (Moonlight). None: from the number of parameters and
    the optimizer (see `default_learning_rate`)."""
    embedding_rate_factor: float | None = None
    """With muon: learning rate of embedding, head and norms over that of the matrices. None: 10 up
    to a hidden_size of 192, then 1920 / hidden_size (`train.optim.build`)."""
    momentum: float = 0.95
    """With muon: decay of the mean of gradients of the matrices (Nesterov's)."""
    beta1: float = 0.9
    """Decay of the mean of gradients."""
    beta2: float = 0.95
    """Decay of the mean of squares; shorter than torch's 0.999, as language models with few steps want."""
    eps: float = 1e-8
    """Added to the root of the mean of squares."""
    weight_decay: float = 0.1
    """Of matrices only, multiplied by the learning rate."""
    gradient_clip: float = 1.0
    """Largest norm of the whole gradient; 0 never clips."""

    def __post_init__(self) -> None:
        _require(self.name in OPTIMIZERS, "optimizer.name", self.name, ", ".join(OPTIMIZERS))
        factor = self.embedding_rate_factor
        _require(factor is None or 0 < factor <= 100, "optimizer.embedding_rate_factor", factor,
                 "um número de 0 a 100")  # fmt: skip
        _require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "um número de 0 a 1 (sem o 1)")
        if self.learning_rate is not None:
            _require(
                0 < self.learning_rate <= 10,
                "optimizer.learning_rate",
                self.learning_rate,
                "um número de 0 a 10",
            )
        _require(0 <= self.beta1 < 1, "optimizer.beta1", self.beta1, "um número de 0 a 1 (sem o 1)")
        _require(0 <= self.beta2 < 1, "optimizer.beta2", self.beta2, "um número de 0 a 1 (sem o 1)")
        _require(self.eps > 0, "optimizer.eps", self.eps, "um número positivo")
        _require(
            0 <= self.weight_decay <= 10, "optimizer.weight_decay", self.weight_decay, "um número de 0 a 10"
        )
        _require(
            self.gradient_clip >= 0,
            "optimizer.gradient_clip",
            self.gradient_clip,
            "zero ou um número positivo",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """How the learning rate moves."""

    kind: str = "cosine"
    """`cosine`: warm-up, then half a cosine. `wsd`: warm-up, stable, then a cooldown to zero."""
    warmup_steps: int | None = None
    """Steps of linear warm-up. None: 2 % of max_steps, from 10 to 1000 (50 when `minutes` is set)."""
    min_lr_ratio: float = 0.1
    """What is left of the learning rate at the end of the cosine; wsd goes to zero."""
    cooldown_fraction: float = 0.2
    """Last share of the run in which wsd cools down."""
    cooldown_shape: str = "linear"
    """How wsd's cooldown falls, as planned and on demand: linear, or 1-sqrt (arXiv:2405.18392)."""
    minutes: float = 0.0
    """When set, the run takes this many minutes of training and the schedule follows the clock instead of
    max_steps: the model is cooled down when the time is over. Such a run resumes, but not bit for bit."""

    def __post_init__(self) -> None:
        _require(self.kind in ("cosine", "wsd"), "schedule.kind", self.kind, "cosine ou wsd")
        if self.warmup_steps is not None:
            _require(
                self.warmup_steps >= 0,
                "schedule.warmup_steps",
                self.warmup_steps,
                "zero ou um inteiro positivo",
            )
        _require(
            0 <= self.min_lr_ratio <= 1, "schedule.min_lr_ratio", self.min_lr_ratio, "um número de 0 a 1"
        )
        _require(self.cooldown_shape in ("linear", "1-sqrt"), "schedule.cooldown_shape", self.cooldown_shape,
                 "linear ou 1-sqrt")  # fmt: skip
        _require(0 <= self.cooldown_fraction <= 1, "schedule.cooldown_fraction", self.cooldown_fraction,
                 "um número de 0 a 1")  # fmt: skip
        _require(0 <= self.minutes < math.inf, "schedule.minutes", self.minutes, "zero ou um número positivo")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """Looking at the model while it learns."""

    every: int = 500
    """Steps between evaluations on the held-out part; 0 only at the end."""
    tokens: int = 65_536
    """Held-out tokens to read, spread over the whole held-out part."""
    sample_tokens: int = 64
    """Tokens to write after each prompt at every evaluation; 0 writes none."""
    prompts: tuple[str, ...] = DEFAULT_PROMPTS
    """Beginnings of the samples."""

    def __post_init__(self) -> None:
        _require(self.every >= 0, "evaluation.every", self.every, "zero ou um inteiro positivo")
        _require(self.tokens >= 1, "evaluation.tokens", self.tokens, "um inteiro positivo")
        _require(
            self.sample_tokens >= 0,
            "evaluation.sample_tokens",
            self.sample_tokens,
            "zero ou um inteiro positivo",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """Saving the run. One checkpoint holds 12 bytes a parameter."""

    every: int = 500
    """Steps between checkpoints; 0 only when the run stops."""
    keep: int = AUTO
    """Checkpoints to keep; `auto` (`AUTO`) keeps as many as the disk allows (`train.saving.retention`). An
    older one goes only when the new one is complete, or to make room for it."""

    def __post_init__(self) -> None:
        _require(self.every >= 0, "checkpoint.every", self.every, "zero ou um inteiro positivo")
        _require(self.keep >= AUTO, "checkpoint.keep", self.keep, "um inteiro positivo ou auto")


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """When a run is taken to go wrong (`train.survival.guards`). None changes a run that goes well."""

    spike_sigmas: float = 6.0
    """A loss above its running mean plus this many standard deviations is high; 0 turns spikes off."""
    spike_steps: int = 5
    """High losses in a row that make a spike: back to the last good checkpoint, past those data."""
    spike_after: int = 100
    """Losses to have seen before any counts as high: the first ones fall too fast to judge."""
    max_rollbacks: int = 3
    """Spikes after which the run stops with a diagnosis instead of going back once more."""
    max_bad_steps: int = 3
    """Steps in a row without a finite loss or gradient (fp16 overflows aside) that stop the run."""

    def __post_init__(self) -> None:
        _require(0 <= self.spike_sigmas < math.inf, "guard.spike_sigmas", self.spike_sigmas,
                 "zero ou um número positivo")  # fmt: skip
        for name in ("spike_steps", "spike_after", "max_bad_steps"):
            _require(getattr(self, name) >= 1, f"guard.{name}", getattr(self, name), "um inteiro positivo")
        _require(self.max_rollbacks >= 0, "guard.max_rollbacks", self.max_rollbacks,
                 "zero ou um inteiro positivo")  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """All of a run. Tokens of an optimizer step = batch_size * grad_accum * seq_len, over all devices."""

    data: Path
    """Prepared data, or text, JSONL or Parquet to prepare on the way."""
    output: Path
    """The run's folder."""
    tokenizer: Path | None = None
    """tokenizer.json or its folder; None takes the one that the prepared data names."""
    model_size: str | None = None
    """A named size (`ptbr-slm info`). None: mini, or the shape of init_from."""
    init_from: Path | None = None
    """A model folder whose weights the run starts from."""
    batch_size: int = 8
    """Sequences of one micro-batch; `auto` (`AUTO`) takes the fastest that fits the memory."""
    grad_accum: int = 1
    """Micro-batches of one optimizer step; follows from tokens_per_step where that is set."""
    tokens_per_step: int | None = None
    """Tokens of one optimizer step, a multiple of batch_size * seq_len. None: batch_size * grad_accum *
    seq_len; with batch_size auto, by the size of the model (`default_tokens_per_step`)."""
    seq_len: int = 256
    """Tokens of a training sequence. Activations grow linearly with it."""
    max_steps: int = 1000
    """Optimizer steps of the whole run."""
    max_time: str = ""
    """Stop, save and exit 75 before the session is this old, such as 11h30m; empty: no limit."""
    session_start: str = ""
    """When the session of max_time began: an ISO date and time, seconds since 1970, or `kaggle` (when the
    notebook's container started). Empty: when this process did."""
    cooldown: str = "schedule"
    """`schedule`: only as the schedule plans it. `session` (wsd only): also at the end of each session of
    max_time, on a branch that ends in RUN/final; the next session goes on from the stable phase before it."""
    precision: str = "auto"
    """auto, fp32, fp16 or bf16; auto goes by the compute capability."""
    checkpointing: str = "auto"
    """Recomputed activations: auto, none, full, or every:K for each K-th layer."""
    loss: str = "auto"
    """How the cross-entropy is computed, to the same numbers: `chunked`, the logits of some rows at a time;
    `plain`, all at once; `auto`, as it fits best."""
    z_loss: float = 0.0
    """Adds z_loss * logsumexp(logits)^2 a token in training, against logits that drift; 1e-4 where it is used
    (PaLM, arXiv:2204.02311). The training loss that is reported includes it."""
    compile: bool = False
    """torch.compile for each layer, compared with eager before it is trusted (`train.compile`)."""
    device: str = "auto"
    """auto, cpu or cuda."""
    parallel: str = "auto"
    """How several processes (ranks) share the model: `ddp` (auto): a whole copy each. `fsdp`: weights,
    gradients and moments in shards, for models that do not fit on one card. `none`: one process."""
    ranks: int = 0
    """Processes on this machine; 0: one per visible GPU, one on the CPU. Under torchrun, as it says."""
    logger: tuple[str, ...] = ()
    """tensorboard, trackio, wandb: where the curves go besides metrics.jsonl and report/."""
    seed: int = 0
    """Of the weights and of the order of the data."""
    resume: str = "auto"
    """auto continues the run that output holds, never refuses one, a path continues from that checkpoint."""
    allow_config_change: bool = False
    """Whether a resumed run may change settings that alter its course."""
    model: ModelOverrides = field(default_factory=ModelOverrides)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)

    def __post_init__(self) -> None:
        for name in ("grad_accum", "seq_len", "max_steps"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "um inteiro positivo")
        self._check_step()
        _require(self.precision in ("auto", "fp32", "fp16", "bf16"), "precision", self.precision,
                 "auto, fp32, fp16 ou bf16")  # fmt: skip
        _require(self.loss in ("auto", "plain", "chunked"), "loss", self.loss, "auto, plain ou chunked")
        _require(0 <= self.z_loss <= 1, "z_loss", self.z_loss, "um número de 0 a 1")
        _require(self.device in ("auto", "cpu", "cuda"), "device", self.device, "auto, cpu ou cuda")
        _require(self.parallel in ("auto", "none", "ddp", "fsdp"), "parallel", self.parallel,
                 "auto, none, ddp ou fsdp")  # fmt: skip
        _require(0 <= self.ranks <= 64, "ranks", self.ranks, "um inteiro de 0 (auto) a 64")
        _require(0 <= self.seed < 2**63, "seed", self.seed, "um inteiro de 0 a 2^63 - 1")
        _require(bool(_CHECKPOINTING.fullmatch(self.checkpointing)), "checkpointing", self.checkpointing,
                 "auto, none, full ou every:K (K de 1 para cima)")  # fmt: skip
        if self.max_time:
            seconds_of(self.max_time)
        _require(self.cooldown in ("schedule", "session"), "cooldown", self.cooldown, "schedule ou session")
        check_session(self.max_time, self.session_start, self.cooldown, self.schedule.kind)
        if self.parallel == "fsdp" and self.optimizer.name != "adamw":
            raise SlmError(
                "E_USAGE",
                f"{self.optimizer.name} precisa de matrizes inteiras, que o fsdp reparte entre os processos.",
                where=f"--parallel fsdp --optimizer {self.optimizer.name}",
                hint="Use --optimizer adamw, ou --parallel ddp.",
            )
        self._check_model()

    def _check_step(self) -> None:
        """batch_size, grad_accum and tokens_per_step say the same, or leave something to derive."""
        _require(self.batch_size >= AUTO, "batch_size", self.batch_size, "um inteiro positivo ou auto")
        if self.tokens_per_step is None:
            if self.batch_size == AUTO and self.grad_accum != 1:
                raise SlmError(
                    "E_CONFIG",
                    "com batch_size auto, grad_accum é calculado; o que se escolhe são os tokens por passo.",
                    where="--batch-size auto",
                    hint=f"Troque --grad-accum {self.grad_accum} por --tokens-per-step N.",
                )
            return
        piece = self.seq_len * (self.batch_size or 1)
        sequences = self.tokens_per_step // self.seq_len
        agrees = self.grad_accum in (1, sequences // (self.batch_size or 1))
        if self.tokens_per_step < 1 or self.tokens_per_step % piece or not agrees:
            near = max(1, round(self.tokens_per_step / piece)) * piece
            raise SlmError(
                "E_CONFIG",
                f"tokens_per_step ({self.tokens_per_step}) não é batch_size x grad_accum x seq_len "
                f"({self.batch_size or 'auto'} x {self.grad_accum} x {self.seq_len}).",
                where="--tokens-per-step",
                hint=f"Deixe --grad-accum de fora, que é calculado, e use --tokens-per-step {near}.",
            )

    def _check_model(self) -> None:
        if self.init_from is not None and (self.model_size is not None or self.model.given()):
            raise SlmError(
                "E_USAGE",
                "--init-from já define o formato do modelo; não combine com --model-size nem com model.*.",
                where="--init-from",
                hint="Fique com um dos dois.",
            )
        if self.model_size is not None:
            model_config(self.model_size)
        context = self.model.max_seq_len
        if context is not None and self.seq_len > context:
            raise seq_len_too_long(self.seq_len, context, new_run=True)

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
        return seconds_of(self.max_time) if self.max_time else None

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

    def with_defaults(self, num_parameters: int) -> TrainConfig:
        """The same with learning rate and warm-up filled in."""
        rate, warmup = self.optimizer.learning_rate, self.schedule.warmup_steps
        if rate is None:
            rate = default_learning_rate(num_parameters, self.optimizer.name)
        if warmup is None:
            warmup = 50 if self.schedule.minutes else min(1000, max(10, self.max_steps // 50), self.max_steps)
        return replace(
            self,
            optimizer=replace(self.optimizer, learning_rate=rate),
            schedule=replace(self.schedule, warmup_steps=warmup),
        )


def default_tokens_per_step(num_parameters: int, seq_len: int) -> int:
    """For batch_size auto: the power of two at or below 15 * sqrt(N), in whole sequences.

    131,072 at 85m and 160m, 262,144 at 400m and 800m: within a factor of two of DeepSeek LLM's fit for a
    fully trained 85m (2024, arXiv:2401.02954), and less above, where a Kaggle quota ends long before that.
    """
    tokens = 1 << int(math.log2(15 * math.sqrt(num_parameters)))
    return max(1, tokens // seq_len) * seq_len


_CHECKPOINTING = re.compile(r"auto|none|full|every:[1-9]\d*")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def seconds_of(duration: str) -> int:
    """'11h30m' -> 41400. Raises E_CONFIG for anything but hours, minutes and seconds in that order."""
    match = _DURATION.fullmatch(duration.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    _require(total > 0, "max_time", duration, "uma duração como 11h30m, 90m ou 45s")
    return total


MUON_RATE = 2.5
"""Best rate of Muon over AdamW's at the same size (docs/decisions/0019-muon.md)."""


def default_learning_rate(num_parameters: int, optimizer: str = "adamw") -> float:
    """Peak rate by size: 0.003239 - 0.0001395 ln N (Kaplan et al., 2020, arXiv:2001.08361, D.6).

    Muon's is scaled to AdamW's and takes MUON_RATE times as much.
    """
    rate = max(0.0001, 0.003239 - 0.0001395 * math.log(num_parameters))
    return float(f"{rate * (MUON_RATE if optimizer == 'muon' else 1):.1e}")


def seq_len_too_long(seq_len: int, context: int, *, new_run: bool) -> SlmError:
    """E_SEQ_LEN that says what to change."""
    hint = f"Use --seq-len {context}"
    if new_run:
        hint += f", ou --set model.max_seq_len={seq_len} num treino novo"
    return SlmError(
        "E_SEQ_LEN",
        f"seq_len {seq_len} é maior que o contexto do modelo ({context}).",
        where="--seq-len",
        hint=hint + ".",
    )


def _require(good: bool, key: str, value: object, wanted: str) -> None:
    if not good:
        raise SlmError(
            "E_CONFIG",
            f"{key} deve ser {wanted}, e não {value!r}.",
            where=key,
            hint=f"Corrija no arquivo de configuração, na linha de comando ou com --set {key}=VALOR.",
        )
