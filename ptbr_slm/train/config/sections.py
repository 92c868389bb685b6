"""The sections of a run's settings, in the order of config.resolved.toml: each field documented below it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from ptbr_slm.train.config.setting import AUTO, Section, choice, integer, number, per_session

OPTIMIZERS = ("adamw", "adamw8bit", "muon")
DEFAULT_PROMPTS = ("O Brasil é", "Era uma vez", "A língua portuguesa")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOverrides(Section):
    """What to change in the shape that `model_size` names; None keeps it. `ModelConfig` checks the shape.

    With init_from only max_seq_len and rope_theta, to go on with longer texts (docs/CONTEXTO.md).
    """

    PREFIX: ClassVar[str] = "model."
    PER_SESSION: ClassVar[bool] = True

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
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(Section):
    """How the prepared data of `TrainConfig.data` become training sequences."""

    PREFIX: ClassVar[str] = "data."

    document_mask: bool = False
    """Whether the documents of a sequence do not see each other: attention ends where a document does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig(Section):
    """Learning from a teacher's predictions, stored by `data teacher-logits` (`ptbr_slm.distillation`)."""

    PREFIX: ClassVar[str] = "distill."

    logits: Path | None = field(default=None, metadata=per_session())
    """The folder of the predictions; None: there is no teacher."""
    weight: float = field(default=0.5, metadata=number(0, 1))
    """Of what the teacher says in the loss; the text itself has what is left."""
    temperature: float = field(default=1.0, metadata=number(0, 100, open_low=True))
    """Of both softmaxes: above 1, unlikely tokens count more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig(Section):
    """How gradients become updates (`train.optim`)."""

    PREFIX: ClassVar[str] = "optimizer."

    name: str = field(default="auto", metadata=choice("auto", *OPTIMIZERS))
    """`muon`: orthogonalised momentum for the matrices of the layers, AdamW for embedding, head and norms.
    `adamw`; `adamw8bit`: its moments in 8 bits (needs bitsandbytes or torchao). `auto`: muon; adamw with
    fsdp, which cannot do muon. A run that goes on keeps the one it began with."""
    learning_rate: float | None = field(default=None, metadata=number(0, 10, open_low=True))
    """Peak learning rate; Muon's is scaled to AdamW's (Moonlight). None: from the number of parameters and
    the optimizer (see `default_learning_rate`)."""
    embedding_rate_factor: float | None = field(default=None, metadata=number(0, 100, open_low=True))
    """With muon: learning rate of embedding, head and norms over that of the matrices. None: 10 up
    to a hidden_size of 192, then 1920 / hidden_size (`train.optim`)."""
    momentum: float = field(default=0.95, metadata=number(0, 1, open_high=True))
    """With muon: decay of the mean of gradients of the matrices (Nesterov's)."""
    momentum_start: float = field(default=0.85, metadata=number(0, 1, open_high=True))
    """With muon: momentum of the first step; from there it rises evenly to `momentum`."""
    momentum_warmup_steps: int | None = field(default=None, metadata=integer(0, unit="passos"))
    """With muon: steps in which it rises; 0: it does not. None: 300, at most half of max_steps."""
    beta1: float = field(default=0.9, metadata=number(0, 1, open_high=True))
    """Decay of the mean of gradients."""
    beta2: float = field(default=0.95, metadata=number(0, 1, open_high=True))
    """Decay of the mean of squares; shorter than torch's 0.999, as language models with few steps want."""
    eps: float = field(default=1e-8, metadata=number(0, open_low=True))
    """Added to the root of the mean of squares."""
    weight_decay: float = field(default=0.1, metadata=number(0, 10))
    """Of matrices only, multiplied by the learning rate."""
    gradient_clip: float = field(default=1.0, metadata=number(0))
    """Largest norm of the whole gradient; 0 never clips."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig(Section):
    """How the learning rate moves."""

    PREFIX: ClassVar[str] = "schedule."

    kind: str = field(default="auto", metadata=choice("auto", "cosine", "wsd"))
    """`wsd`: warm-up, stable, then a cooldown to zero. `cosine`: warm-up, then half a cosine. `auto`: wsd, or
    what the run began with."""
    warmup_steps: int | None = field(default=None, metadata=integer(0, unit="passos"))
    """Steps of linear warm-up. None: 2 % of max_steps, from 10 to 1000 (50 when `minutes` is set)."""
    min_lr_ratio: float = field(default=0.1, metadata=number(0, 1))
    """What is left of the learning rate at the end of the cosine; wsd goes to zero."""
    cooldown_fraction: float = field(default=0.2, metadata=number(0, 1))
    """Last share of the run in which wsd cools down."""
    cooldown_shape: str = field(default="linear", metadata=choice("linear", "1-sqrt"))
    """How wsd's cooldown falls, as planned and on demand: linear, or 1-sqrt (arXiv:2405.18392)."""
    minutes: float = field(default=0.0, metadata=number(0, math.inf, open_high=True, unit="minutos"))
    """When set, the run takes this many minutes of training and the schedule follows the clock instead of
    max_steps: the model is cooled down when the time is over. Such a run resumes, but not bit for bit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig(Section):
    """Looking at the model while it learns."""

    PREFIX: ClassVar[str] = "evaluation."
    PER_SESSION: ClassVar[bool] = True

    every: int | None = field(default=None, metadata=integer(0, unit="passos"))
    """Steps between evaluations on the held-out part; 0 only at the end. None: by `minutes`."""
    minutes: float = field(default=25.0, metadata=number(0, unit="minutos"))
    """Minutes of training between evaluations, where `every` is not given; 0 only at the end."""
    tokens: int = field(default=65_536, metadata=integer(1, unit="tokens"))
    """Held-out tokens to read, spread over the whole held-out part."""
    sample_tokens: int = field(default=64, metadata=integer(0, unit="tokens"))
    """Tokens to write after each prompt at every evaluation; 0 writes none."""
    prompts: tuple[str, ...] = DEFAULT_PROMPTS
    """Beginnings of the samples."""
    tasks: tuple[str, ...] = ()
    """Tasks of `ptbr-slm eval` to score at every evaluation."""
    tasks_seconds: float = field(default=30.0, metadata=number(0, 3600, open_low=True, unit="segundos"))
    """What all tasks together may take; the first evaluation finds how many items that is."""
    task_data: tuple[str, ...] = ()
    """Folders with the files of the tasks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig(Section):
    """Saving the run. One checkpoint holds 12 bytes a parameter."""

    PREFIX: ClassVar[str] = "checkpoint."
    PER_SESSION: ClassVar[bool] = True

    every: int | None = field(default=None, metadata=integer(0, unit="passos"))
    """Steps between checkpoints; 0 only when the run stops. None: by `minutes`, since 500 steps of one size
    are minutes and those of another hours."""
    minutes: float = field(default=25.0, metadata=number(0, unit="minutos"))
    """Minutes of training between checkpoints, where `every` is not given; 0 only when the run stops."""
    keep: int = field(default=AUTO, metadata=integer(1, unit="checkpoints", auto=True))
    """Checkpoints to keep; `auto` (`AUTO`) keeps as many as the disk allows (`retention`). An older one goes
    only when the new one is complete, or where the disk has no space for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig(Section):
    """When a run is taken to go wrong (`train.survival.guards`). None changes a run that goes well."""

    PREFIX: ClassVar[str] = "guard."
    PER_SESSION: ClassVar[bool] = True

    spike_sigmas: float = field(default=6.0, metadata=number(0, open_high=True, unit="desvios-padrão"))
    """A loss above its running mean plus this many standard deviations is high; 0 turns spikes off."""
    spike_steps: int = field(default=5, metadata=integer(1, unit="passos"))
    """High losses in a row that make a spike: back to the last good checkpoint, past those data."""
    spike_after: int = field(default=100, metadata=integer(1, unit="passos"))
    """Losses before any counts as high: the first ones fall too fast for a limit."""
    max_rollbacks: int = field(default=3, metadata=integer(0, unit="voltas"))
    """Spikes after which the run stops with a diagnosis instead of going back once more."""
    max_bad_steps: int = field(default=3, metadata=integer(1, unit="passos"))
    """Steps in a row without a finite loss or gradient (fp16 overflows aside) that stop the run."""
