"""The devices of a training: which are refused before anything is written, what memory each card has free,
and which attention kernels it runs.

Attention needs no flash kernel: where that does not run (below sm_80), the memory-efficient one does, in fp16
and fp32. Where neither does, `scaled_dot_product_attention` takes its plain formula without a warning.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.backends.cuda import SDPAParams, can_use_efficient_attention, can_use_flash_attention

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.gpus import (
    KAGGLE_GPU,
    VISIBLE_VARIABLE,
    Gpu,
    Obstacle,
    TorchBuild,
    find_gpus,
    missing_kernels,
    torch_build,
    visible_names,
    why_unused,
)
from ptbr_slm.system import kaggle_session
from ptbr_slm.text import number
from ptbr_slm.train.parallel.environment import visible_cards
from ptbr_slm.train.planning.memory import CUDA_CONTEXT_BYTES, GIB, gib
from ptbr_slm.train.planning.precision import OLDEST
from ptbr_slm.train.planning.speed import data_sheet

NOTICED = GIB // 4
"""Memory of other programs that is too little to count: it is the driver's own."""
_ON_CPU = "ou treine no processador:  --set device=cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One card that takes part, as PyTorch sees it."""

    index: int
    """PyTorch's, which CUDA_VISIBLE_DEVICES may have shifted."""
    name: str
    total: int
    """Bytes."""
    taken: int
    """Bytes that other programs hold."""

    @property
    def left(self) -> int:
        """Bytes to plan with; what other programs hold counts above `NOTICED`."""
        return self.total - (self.taken if self.taken > NOTICED else 0)

    @property
    def label(self) -> str:
        """`GPU 1 (Tesla T4)`."""
        return f"GPU {self.index} ({self.name})"


def choose_device(asked: str, ranks: int = 1) -> tuple[torch.device, tuple[int, int] | None, list[str]]:
    """(device, least compute capability of the cards that take part, what the user should know).

    asked: `auto`, `cpu` or `cuda`. ranks: cards that take part, from the first on; those of other machines
    are not looked at. Raises E_PROVIDER where there is no card to use, E_GPU where PyTorch cannot use one
    that is there.
    `auto` takes the processor only where no card was to be expected, and says so where there is one.
    """
    if asked == "cpu":
        return torch.device("cpu"), None, []
    count = visible_cards()
    if not count:
        return torch.device("cpu"), None, _notes_without_gpu(asked)
    local = _local_indices(ranks)
    capabilities = [torch.cuda.get_device_capability(index) for index in local]
    for index, capability in zip(local, capabilities, strict=True):
        _require_kernels(index, capability, alone=len(local) == 1)
    return torch.device("cuda", 0), min(capabilities), _missing_cards_note(count)


def cards_in_use(ranks: int) -> list[Card]:
    """The first `ranks` cards of this machine and the memory that other programs hold on each.

    The memory of the first is asked through CUDA; that of the others through the driver's tool where it is
    installed, since asking CUDA would make a context of this process on every card.
    """
    listed = {gpu.uuid: gpu for gpu in find_gpus() if gpu.uuid} if ranks > 1 else {}
    return [_card(index, listed) for index in _local_indices(ranks)]


def _local_indices(ranks: int) -> range:
    """Of so many cards, the indices of those on this machine."""
    return range(min(ranks, torch.cuda.device_count()))


def memory_notes(cards: Sequence[Card]) -> list[str]:
    """About a card that others use, and about cards that are not alike, in Portuguese."""
    notes, least = [], min(cards, key=lambda card: card.left)
    if len({(card.name, card.total >> 28) for card in cards}) > 1:
        names = ", ".join(card.label for card in cards)
        notes.append(
            f"as GPUs não são iguais ({names}): planejamos com os {gib(least.left)} GiB da "
            f"GPU {least.index}, e cada passo espera pela mais lenta."
        )
    busy = max(cards, key=lambda card: card.taken)
    if busy.taken > NOTICED:
        notes.append(
            f"outro programa já ocupa {gib(busy.taken)} GiB da {busy.label}; planejamos com o resto"
            f"{_how_to_avoid(busy, cards)}"
        )
    return notes


def _how_to_avoid(busy: Card, cards: Sequence[Card]) -> str:
    """How to train without the busy card, where another one is visible."""
    count = torch.cuda.device_count()
    others = [card.index for card in sorted(cards, key=lambda card: -card.left) if card.index != busy.index]
    others += [index for index in range(count) if index >= len(cards)]
    names = visible_names(os.environ.get(VISIBLE_VARIABLE), count)
    if not others or others[0] >= len(names):
        return ". Veja qual com:  nvidia-smi"
    return (
        f". Para treinar só na GPU {others[0]}:  {VISIBLE_VARIABLE}={names[others[0]]} ptbr-slm train ... "
        "--parallel none"
    )


def slowest(cards: Sequence[Card]) -> str:
    """Name of the card that the others wait for, by the data sheets; the first where none is listed."""
    known = {card.name: sheet.sustained for card in cards if (sheet := data_sheet(card.name)) is not None}
    return min(known, key=lambda name: known[name]) if known else cards[0].name


def _card(index: int, listed: dict[str, Gpu]) -> Card:
    properties = torch.cuda.get_device_properties(index)
    total = int(properties.total_memory)
    gpu = listed.get(str(properties.uuid)) if index > 0 else None
    if gpu is not None and gpu.free_bytes is not None:
        free, ours = gpu.free_bytes, 0
    else:
        free, ours = torch.cuda.mem_get_info(index)[0], torch.cuda.memory_reserved(index)
    taken = max(0, total - free - ours - CUDA_CONTEXT_BYTES)
    return Card(index=index, name=torch.cuda.get_device_name(index), total=total, taken=taken)


def _require_kernels(index: int, capability: tuple[int, int], alone: bool) -> None:
    """Raise E_GPU for a card without kernels in PyTorch; a lone Pascal is `choose_precision`'s to refuse."""
    obstacle = _obstacle(torch.cuda.get_device_name(index), capability)
    if obstacle is None or (alone and capability < OLDEST):
        return
    if alone:
        raise _refusal(obstacle, "auto")
    names = visible_names(os.environ.get(VISIBLE_VARIABLE), torch.cuda.device_count())
    kept = ",".join(name for position, name in enumerate(names) if position != index)
    raise SlmError(
        "E_GPU",
        f"GPU {index}: {obstacle.message}.",
        where=obstacle.where,
        hint=f"Deixe essa GPU de fora:  {VISIBLE_VARIABLE}={kept} ptbr-slm train ...;  {_ON_CPU}",
    )


def _obstacle(name: str, capability: tuple[int, int]) -> Obstacle | None:
    if capability < OLDEST:
        label = f"sm_{capability[0]}{capability[1]}"
        return Obstacle(message=f"a {name} ({label}) não funciona com o PyTorch atual", fix="", where=label)
    archs = tuple(torch.cuda.get_arch_list()) if torch.version.cuda else ()  # of a CUDA build; ROCm's differ
    build = TorchBuild(cuda=torch.version.cuda, sees_gpu=True, archs=archs, version=str(torch.__version__))
    return missing_kernels(name, capability, build) if archs else None


def _notes_without_gpu(asked: str) -> list[str]:
    """Notes for a training on the processor. Raises where that is not what was to be expected."""
    gpus = find_gpus()
    obstacle = why_unused(gpus, torch_build({}), os.environ.get(VISIBLE_VARIABLE)) if gpus else None
    on_kaggle = kaggle_session(os.environ) is not None
    if obstacle is not None and (asked == "cuda" or not obstacle.wished):
        raise _refusal(obstacle, asked)
    if asked == "cuda":
        raise SlmError(
            "E_PROVIDER",
            "pediu uma GPU, mas o PyTorch não encontra nenhuma.",
            where="device=cuda",
            hint=(f"{KAGGLE_GPU}. " if on_kaggle else "")
            + "Confira com:  ptbr-slm doctor   (ou treine no processador: --set device=cpu)",
        )
    if obstacle is not None:
        return [f"{obstacle.message}; o treino será no processador. Para usar a GPU:  {obstacle.fix}"]
    if on_kaggle:
        return [f"este notebook está sem GPU: o treino será no processador. {KAGGLE_GPU}."]
    return []


def _refusal(obstacle: Obstacle, asked: str) -> SlmError:
    code = "E_PROVIDER" if obstacle.wished or obstacle.where == VISIBLE_VARIABLE else "E_GPU"
    prefix = "pediu uma GPU, mas " if asked == "cuda" else ""
    fix = obstacle.fix[0].upper() + obstacle.fix[1:] if not _typed(obstacle.fix) else obstacle.fix
    return SlmError(code, f"{prefix}{obstacle.message}.", where=obstacle.where, hint=f"{fix};  {_ON_CPU}")


def _typed(fix: str) -> bool:
    """Whether it begins with a command, which keeps its case."""
    return fix.startswith(("pip ", "unset "))


def _missing_cards_note(count: int) -> list[str]:
    """A note where CUDA_VISIBLE_DEVICES names more cards than there are."""
    visible = os.environ.get(VISIBLE_VARIABLE)
    asked = [] if visible is None else [name for name in visible.split(",") if name.strip()]
    if len(asked) <= count:
        return []
    return [
        f"{VISIBLE_VARIABLE}={visible} pede {len(asked)} GPUs, e o PyTorch vê {count}: as demais não existem."
    ]


_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_PROBE = 64
"""Tokens of the tensors that are shown to PyTorch: the choice depends on type, head_dim and card."""


def only_math(model: ModelConfig, device: torch.device, precision: str) -> bool:
    """Whether neither flash nor memory-efficient attention runs this model's heads on this card.

    False on the CPU, which has kernels of its own, and where PyTorch cannot be asked.
    """
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    try:
        heads = _heads(model, device, precision)
        # As in `model.Attention`: no mask, no dropout, causal, keys written out once a query head.
        parameters = SDPAParams(heads, heads, heads, None, 0.0, True, False)
        return not (can_use_flash_attention(parameters) or can_use_efficient_attention(parameters))
    except RuntimeError:  # the card's memory is full: the plan reports that
        return False


def _heads(model: ModelConfig, device: torch.device, precision: str) -> torch.Tensor:
    """Queries, and as well keys and values, of one short sequence: (1, H, 64, D)."""
    shape = (1, model.num_heads, _PROBE, model.head_dim)
    return torch.empty(shape, dtype=_DTYPES[precision], device=device, requires_grad=True)


def math_note(model: ModelConfig, *, batch_size: int, seq_len: int, checkpoint_every: int) -> str:
    """What the plain formula adds to a step: an fp32 matrix of T x T for each head, kept of each layer.

    PyTorch's `_scaled_dot_product_attention_math` computes half precision in fp32
    (aten/src/ATen/native/transformers/attention.cpp). Of recomputed layers one is alive at a time.
    """
    recomputed = len(range(0, model.num_layers, checkpoint_every)) if checkpoint_every else 0
    layers = max(1, model.num_layers - recomputed)
    size = 4 * layers * batch_size * model.num_heads * seq_len**2
    return (
        "nesta GPU só serve o kernel «math» de atenção, lento e que guarda a matriz inteira: pelo menos "
        f"{number(size / GIB, 2)} GiB a mais do que o calculado. Se a memória acabar, o micro-lote será "
        "dividido; --checkpointing full guarda a matriz de uma camada só."
    )
