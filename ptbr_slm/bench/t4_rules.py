"""What a measurement keeps to on a card that is not a T4, so that its figures say something about one.

A larger card trains in bf16, with flash attention, in memory that a T4 does not have, and multiplies fp32 in
TF32: none of these code paths is the T4's. Speeds stay the card's own.
"""

from __future__ import annotations

from dataclasses import dataclass

from ptbr_slm.train.planning.memory import CUDA_CONTEXT_BYTES, T4_BYTES
from ptbr_slm.train.planning.speed import data_sheet

PRECISION = "fp16"
ALLOCATOR_BYTES = T4_BYTES - CUDA_CONTEXT_BYTES
"""14.0 GiB: what PyTorch's allocator may take of a T4, whose driver keeps the rest."""
SDPA_KERNEL = "efficient"
"""PTBR_SLM_SDPA_KERNEL in place of `auto`, which is flash attention on a newer card."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What is in force in this process."""

    card: str | None
    """The card's name; None on a CPU."""
    in_force: bool
    """Whether anything was taken away: not on a T4, which has no more, and not on a CPU."""
    precision: str
    """TrainConfig's."""
    memory_limit: int | None
    """Bytes that the planner plans with; None for what the device has."""

    @property
    def sdpa_kernel(self) -> str:
        """PTBR_SLM_SDPA_KERNEL that stands for a T4's default."""
        return SDPA_KERNEL if self.in_force else "auto"

    def sentence(self) -> str:
        """A sentence for the reader."""
        if self.card is None:
            return "Regras da T4: não se aplicam (processador, em fp32)."
        if not self.in_force:
            return "Regras da T4: esta placa é uma T4; nada foi tirado dela."
        return (
            f"Regras da T4 em vigor, porque esta placa ({self.card}) não é uma T4: fp16 e nunca bf16, sem "
            "flash attention nem cuDNN na atenção, TF32 desligado, 14,0 GiB para o PyTorch e 14,56 GiB para "
            "o planejador. Memória e contas são as de uma T4; as velocidades são desta placa."
        )


def is_t4(name: str) -> bool:
    """Whether the driver's name is that of a T4."""
    card = data_sheet(name)
    return card is not None and card.name == "T4"


def apply(device: int | None = None) -> Rules:
    """Put the rules into force for this process's torch, and for `device` (an index; None: the current one).

    Call it in every process and every rank that measures, before the first tensor. On a CPU and on a T4
    nothing is changed.
    """
    import torch

    if not torch.cuda.is_available():
        return Rules(card=None, in_force=False, precision="auto", memory_limit=None)
    name = torch.cuda.get_device_name(device)
    if is_t4(name):
        return Rules(card=name, in_force=False, precision=PRECISION, memory_limit=None)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    total = torch.cuda.get_device_properties(device).total_memory
    if total > ALLOCATOR_BYTES:
        torch.cuda.set_per_process_memory_fraction(ALLOCATOR_BYTES / total, device)
    return Rules(card=name, in_force=True, precision=PRECISION, memory_limit=T4_BYTES)
