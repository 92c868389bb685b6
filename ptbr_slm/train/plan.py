"""Everything that is decided before the first step, with its reasons; `--dry-run` prints it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ptbr_slm.brazilian import number
from ptbr_slm.config import ModelConfig
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import check_model_folder, read_config
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.config import TrainConfig, seq_len_too_long
from ptbr_slm.train.memory import MemoryEstimate, estimate
from ptbr_slm.train.precision import Precision, choose_precision

HEADROOM = 0.95
"""Share of the device's memory to plan with; the rest is fragmentation."""


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
    device_bytes: int | None
    """Memory of the device; None on the CPU, where the system decides."""
    notes: tuple[str, ...]
    """What the user should know, in Portuguese."""


def make_plan(config: TrainConfig, tokenizer: Tokenizer) -> Plan:
    """Decide shape, device, precision, recomputation and derived settings. Nothing is written.

    Raises E_CONFIG, E_SEQ_LEN, E_MODEL_SIZE, E_TOKENIZER_MISMATCH, E_PROVIDER, E_GPU or E_MEMORY.
    """
    model = _shape(config, tokenizer)
    device, capability, device_bytes, notes = _device(config.device)
    precision = choose_precision(device.type, capability, config.precision)
    every, reason, memory = _checkpointing(config, model, device, precision, device_bytes)
    if device_bytes is not None and memory.total > device_bytes:
        notes.append(
            f"o cálculo pede {_gib(memory.total)} GiB e a GPU tem {_gib(device_bytes)}: "
            "se a memória acabar, use --checkpointing full ou um --batch-size menor."
        )
    return Plan(
        config=replace(config.with_defaults(model.num_parameters), precision=precision.name),
        model=model,
        device=device,
        precision=precision,
        checkpoint_every=every,
        checkpointing_reason=reason,
        memory=memory,
        device_bytes=device_bytes,
        notes=tuple(notes),
    )


def check_device(config: TrainConfig) -> None:
    """Refuse a device or a precision that is not to be had. Raises E_PROVIDER, E_GPU or E_CONFIG."""
    device, capability, _, _ = _device(config.device)
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


def _shape(config: TrainConfig, tokenizer: Tokenizer) -> ModelConfig:
    if config.init_from is not None:
        return _shape_of_folder(config, tokenizer, config.init_from)
    if tokenizer.bos_id is None or tokenizer.eos_id is None:
        raise SlmError(
            "E_TOKENIZER_INVALID",
            "o tokenizador não tem os tokens <|bos|> e <|eos|>, que separam os textos.",
            where="--tokenizer",
            hint="Treine um com:  ptbr-slm tokenizer train TEXTOS -o tokenizer.json",
        )
    return config.new_model(tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id)


def _shape_of_folder(config: TrainConfig, tokenizer: Tokenizer, folder: Path) -> ModelConfig:
    check_model_folder(folder)
    model = read_config(folder)
    if config.seq_len > model.max_seq_len:
        raise seq_len_too_long(config.seq_len, model.max_seq_len, new_run=False)
    own = folder / "tokenizer.json"
    same = Tokenizer.load(own).sha256 == tokenizer.sha256 if own.exists() else True
    if not same or tokenizer.vocab_size > model.vocab_size:
        raise SlmError(
            "E_TOKENIZER_MISMATCH",
            f"os dados usam outro tokenizador ({tokenizer.vocab_size} tokens) que não o do modelo "
            f"({model.vocab_size} tokens).",
            where=folder,
            hint=f"Prepare os dados de novo com:  --tokenizer {own}",
        )
    return model


def _device(asked: str) -> tuple[torch.device, tuple[int, int] | None, int | None, list[str]]:
    """(device, compute capability, bytes of memory, notes)."""
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu"), None, None, []
    if not torch.cuda.is_available():
        raise SlmError(
            "E_PROVIDER",
            "pediu uma GPU, mas o PyTorch não encontra nenhuma.",
            where="device=cuda",
            hint="Confira com:  ptbr-slm doctor   (ou treine no processador: --set device=cpu)",
        )
    notes = []
    if (count := torch.cuda.device_count()) > 1:
        notes.append(f"há {count} GPUs visíveis; este treino usa só a primeira (um processo).")
    capability = torch.cuda.get_device_capability(0)
    return torch.device("cuda", 0), capability, torch.cuda.get_device_properties(0).total_memory, notes


def _checkpointing(
    config: TrainConfig,
    model: ModelConfig,
    device: torch.device,
    precision: Precision,
    device_bytes: int | None,
) -> tuple[int, str, MemoryEstimate]:
    """(Llama.checkpoint_every, why, memory). `auto` recomputes as few layers as fit; none on the CPU."""

    def memory_with(every: int) -> MemoryEstimate:
        return estimate(model, batch_size=config.batch_size, seq_len=config.seq_len, checkpoint_every=every,
                        precision=precision.name, device=device.type)  # fmt: skip

    asked = config.checkpoint_every
    if asked is not None:
        return asked, f"pedida com --checkpointing {config.checkpointing}", memory_with(asked)
    if device_bytes is None:
        return 0, "no processador, guardar as ativações é mais rápido", memory_with(0)
    room = HEADROOM * device_bytes
    for every in (0, 4, 3, 2, 1):
        memory = memory_with(every)
        if memory.total <= room:
            what = {0: "cabe sem recalcular nada", 1: "só cabe recalculando todas as camadas"}
            share = f"{_gib(memory.total)} de {_gib(device_bytes)} GiB"
            return (
                every,
                f"{what.get(every, f'cabe recalculando uma camada a cada {every}')} ({share})",
                memory,
            )
    raise _does_not_fit(config, memory_with(1), device_bytes)


def _does_not_fit(config: TrainConfig, memory: MemoryEstimate, device_bytes: int) -> SlmError:
    return SlmError(
        "E_MEMORY",
        f"este treino precisa de {_gib(memory.total)} GiB mesmo recalculando todas as ativações; "
        f"a GPU tem {_gib(device_bytes)} GiB.",
        where=f"--batch-size {config.batch_size} --seq-len {config.seq_len}",
        hint=f"Use {smaller_batch(config)}, um --seq-len menor ou um --model-size menor.",
    )


def smaller_batch(config: TrainConfig) -> str:
    """Options that halve the micro-batch and keep the tokens of a step."""
    if config.batch_size == 1:
        return "--checkpointing full"
    half = config.batch_size // 2
    return f"--batch-size {half} --grad-accum {-(-config.batch_size * config.grad_accum // half)}"


def _gib(size: int) -> str:
    return number(size / 2**30, 1)
