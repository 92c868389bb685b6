"""Everything that is decided before the first step, with its reasons: what `train --dry-run` prints.

`make_plan` decides for a tokenizer; `dry_run` opens the data first and counts how often they would be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ptbr_slm.config import ModelConfig
from ptbr_slm.data.prepared import PreparedData, is_prepared
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder, check_vocabulary
from ptbr_slm.system import cpu_cores, memory_bytes
from ptbr_slm.text import quoted
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.batches import WindowOrder
from ptbr_slm.train.config import TrainConfig, seq_len_too_long
from ptbr_slm.train.parallel.environment import local_world, ranks_to_start, require_cards
from ptbr_slm.train.planning import advice
from ptbr_slm.train.planning.choice import (
    Machine,
    Request,
    Setting,
    batch_size_reason,
    checkpointing_reason,
    choose,
    does_not_fit,
    loss_reason,
    options,
    settings,
)
from ptbr_slm.train.planning.devices import (
    cards_in_use,
    choose_device,
    math_note,
    memory_notes,
    only_math,
    slowest,
)
from ptbr_slm.train.planning.length import Extent, length_reason, with_step, with_steps
from ptbr_slm.train.planning.memory import MemoryEstimate, gib
from ptbr_slm.train.planning.parameters import Adapters
from ptbr_slm.train.planning.precision import Precision, choose_precision
from ptbr_slm.train.planning.speed import cpu_speed, data_sheet, gpu_speed

REFUSED_FROM = 1.1
"""A setting of which every part was asked for is refused from this multiple of the memory on: the calculation
is tested to 10 %. Below it there is a note and the run begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run, decided."""

    config: TrainConfig
    """With every derived value filled in."""
    model: ModelConfig
    device: torch.device
    precision: Precision
    checkpoint_every: int
    """`Llama.checkpoint_every`."""
    checkpointing_reason: str
    """In Portuguese."""
    memory: MemoryEstimate
    """Of one training step."""
    loss: str
    """How the loss is computed: a key of `choice.LOSSES`."""
    request: Request
    """What was fixed and what was left to choose."""
    machine: Machine
    """What it had to fit."""
    options: tuple[Setting, ...]
    """What each recomputation and loss would take, for the reader to compare."""
    reasons: tuple[str, ...]
    """Why length, micro-batch and loss are what they are, in Portuguese."""
    notes: tuple[str, ...]
    """What the user should know, in Portuguese."""


def make_plan(
    config: TrainConfig,
    tokenizer: Tokenizer,
    ranks: int = 1,
    *,
    source: ModelFolder | None = None,
    memory_limit: int | None = None,
    adapters: Adapters | None = None,
    train_tokens: int | None = None,
) -> Plan:
    """Decide shape, device, precision, micro-batch, recomputation and derived settings. Nothing is written.

    ranks: devices that will share a step. source: config.init_from, where it is open already. memory_limit:
    bytes of a GPU to plan with, where it has more: a measurement plans a large card as a small one.
    adapters: what is trained where the weights are frozen. train_tokens: of the data, where they are
    prepared. Raises E_CONFIG, E_SEQ_LEN, E_MODEL_SIZE, E_TOKENIZER_MISMATCH, E_PROVIDER, E_GPU, or E_MEMORY
    with up to three choices that would fit.
    """
    model = _shape(config, tokenizer, source)
    device, capability, found = choose_device(config.device, ranks)
    precision = choose_precision(device.type, capability, config.precision)
    machine, others = _machine(device, precision, ranks)
    notes = [*found, *_only_first(device, ranks), *others]
    if memory_limit is not None and machine.kind == "cuda" and machine.memory_bytes is not None:
        machine = replace(machine, memory_bytes=min(machine.memory_bytes, memory_limit))
    asked, extent = config, Extent(parameters=model.num_parameters, train_tokens=train_tokens, ranks=ranks)
    config = _with_length(asked.with_cooldown(), model, precision, machine, extent)
    request = replace(_request(config, model, precision), adapters=adapters)
    size = config.model_size or ("mini" if config.init_from is None else None)
    setting = _setting(request, machine, size, others)
    if setting.memory.total > machine.budget:
        notes.append(
            f"o cálculo pede {gib(setting.memory.total)} GiB e há {gib(machine.memory_bytes or 0)}: "
            "se a memória acabar, o micro-lote será dividido; --batch-size auto escolhe um que cabe."
        )
    if only_math(model, device, precision.name):
        batch_size, every = setting.batch_size, setting.checkpoint_every
        notes.append(math_note(model, batch_size=batch_size, seq_len=config.seq_len, checkpoint_every=every))
    notes += advice.notes(config, request, setting, machine)
    reasons = (
        length_reason(asked, config, extent),
        batch_size_reason(request, machine, setting),
        loss_reason(request, machine, setting),
    )
    return Plan(
        config=_resolved(config, precision, request, setting),
        model=model,
        device=device,
        precision=precision,
        checkpoint_every=setting.checkpoint_every,
        checkpointing_reason=checkpointing_reason(request, machine, setting),
        memory=setting.memory,
        loss=setting.loss,
        request=request,
        machine=machine,
        options=tuple(options(request, machine)),
        reasons=tuple(filter(None, reasons)),
        notes=tuple(notes),
    )


def _with_length(
    config: TrainConfig, model: ModelConfig, precision: Precision, machine: Machine, extent: Extent
) -> TrainConfig:
    """The same with all that was open of its steps, their size, the optimizer and the schedule."""
    sized = with_step(config, extent)
    if sized != config and (config.max_time or config.schedule.minutes):
        rough = choose(_request(sized.with_defaults(extent.parameters), model, precision), machine)
        sized = with_step(config, extent, None if rough is None else rough.tokens_per_second)
    return with_steps(sized, extent).with_defaults(extent.parameters)


def _request(config: TrainConfig, model: ModelConfig, precision: Precision) -> Request:
    return Request(
        model=model,
        sequences=config.step_sequences,
        seq_len=config.seq_len,
        precision=precision.name,
        optimizer=config.optimizer.name,
        parallel="fsdp" if config.parallel == "fsdp" else "ddp",
        batch_size=config.batch_size or None,
        checkpoint_every=config.checkpoint_every,
        loss=None if config.loss == "auto" else config.loss,
        document_mask=config.data_options.document_mask,
    )


def _setting(request: Request, machine: Machine, size: str | None, notes: Sequence[str]) -> Setting:
    """The fastest that fits, or what was asked for. Raises E_MEMORY, which repeats the notes on memory."""
    chosen = choose(request, machine)
    if chosen is not None:
        return chosen
    least = min(settings(request, machine), key=lambda setting: setting.memory.total)
    limit = machine.memory_bytes or 0
    if least.memory.total <= (
        limit * REFUSED_FROM if not request.open else limit if machine.kind == "cpu" else 0
    ):
        return least
    error = does_not_fit(request, machine, size, least)
    error.hint = "\n  ".join([error.hint, *(note[0].upper() + note[1:] for note in notes)])
    raise error


def _resolved(config: TrainConfig, precision: Precision, request: Request, setting: Setting) -> TrainConfig:
    """The configuration with every derived value in it."""
    tokens = config.tokens_per_step
    accum = config.grad_accum if tokens is None else request.sequences // setting.batch_size
    return replace(
        config,
        precision=precision.name,
        batch_size=setting.batch_size,
        grad_accum=accum,
        tokens_per_step=tokens,
    )


def check_device(config: TrainConfig) -> None:
    """Refuse a device or a precision that is not to be had. Raises E_PROVIDER, E_GPU or E_CONFIG."""
    ranks = local_world()
    device, capability, _ = choose_device(config.device, ranks)
    if device.type == "cuda":
        require_cards(ranks)
    choose_precision(device.type, capability, config.precision)


def check_enough_text(config: TrainConfig, data: PreparedData) -> None:
    """Refuse data shorter than one training sequence. Raises E_DATA_TOO_SMALL."""
    tokens = data.split("train").tokens
    if tokens <= config.seq_len:
        raise SlmError(
            "E_DATA_TOO_SMALL",
            f"os dados de treino têm {tokens} tokens: menos que uma sequência de {config.seq_len}.",
            where=data.folder,
            hint=f"Use --seq-len {max(1, tokens // 2)} ou menor, ou junte mais textos.",
        )


def _shape(config: TrainConfig, tokenizer: Tokenizer, source: ModelFolder | None) -> ModelConfig:
    if config.init_from is not None:
        return _shape_of_folder(config, tokenizer, source or ModelFolder(config.init_from))
    if tokenizer.bos_id is None or tokenizer.eos_id is None:
        raise SlmError(
            "E_TOKENIZER_INVALID",
            "o tokenizador não tem os tokens <|bos|> e <|eos|>, que separam os textos.",
            where="--tokenizer",
            hint="Treine um com:  ptbr-slm tokenizer train TEXTOS -o tokenizer.json",
        )
    return config.new_model(tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)


def _shape_of_folder(config: TrainConfig, tokenizer: Tokenizer, folder: ModelFolder) -> ModelConfig:
    folder.check()
    model = replace(folder.config, **config.model.given())
    if config.seq_len > model.max_seq_len:
        raise seq_len_too_long(config.seq_len, model.max_seq_len, new_run=False, extends=True)
    own = folder.path / "tokenizer.json"
    same = folder.tokenizer.sha256 == tokenizer.sha256 if own.exists() else True
    if same:
        check_vocabulary(model, tokenizer, folder.path)
    else:
        raise SlmError(
            "E_TOKENIZER_MISMATCH",
            f"os dados usam outro tokenizador ({tokenizer.vocab_size} tokens) que não o do modelo "
            f"({model.vocab_size} tokens).",
            where=folder.path,
            hint=f"Prepare os dados de novo com:  --tokenizer {quoted(own)}",
        )
    return model


def _machine(device: torch.device, precision: Precision, ranks: int) -> tuple[Machine, list[str]]:
    """What the step has to fit, and what the user should know about it: the fullest card decides.

    A CPU's memory is what the machine has, not what is free now: the same command plans the same every time.
    """
    if device.type == "cpu":
        share = memory_bytes()
        memory = None if share is None else share // ranks
        speed = cpu_speed(cpu_cores(), precision.name)
        return Machine(kind="cpu", memory_bytes=memory, device=speed, ranks=ranks), []
    cards = cards_in_use(ranks)
    limits = gpu_speed(data_sheet(slowest(cards)), precision.name)
    memory = min(card.left for card in cards)
    return Machine(kind="cuda", memory_bytes=memory, device=limits, ranks=ranks), memory_notes(cards)


def _only_first(device: torch.device, ranks: int) -> list[str]:
    """A note where cards stand idle."""
    count = torch.cuda.device_count() if device.type == "cuda" and ranks == 1 else 1
    return [f"há {count} GPUs visíveis; este treino usa só a primeira (um processo)."] if count > 1 else []


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would be."""

    plan: Plan
    train_tokens: int | None
    """None where the data are not prepared yet."""
    epochs: float | None
    """Times that every window is read; None likewise."""
    sequences: int | None = None
    """Windows of one epoch; None likewise."""


def dry_run(config: TrainConfig) -> DryRun:
    """Decide all that `train` would decide. Raises what it would raise before its first step."""
    if not is_prepared(config.data):
        return _not_prepared(config)
    data = PreparedData.open(config.data, verify=False)
    tokenizer = data.load_tokenizer()
    if config.tokenizer is not None:
        data.check_tokenizer(Tokenizer.load(config.tokenizer), config.tokenizer)
    tokens = data.split("train").tokens
    plan = make_plan(config, tokenizer, ranks_to_start(config), train_tokens=tokens)
    check_enough_text(plan.config, data)
    windows = WindowOrder(tokens, config.seq_len, config.seed).windows
    return DryRun(plan, tokens, plan.config.step_sequences * config.max_steps / windows, windows)


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
