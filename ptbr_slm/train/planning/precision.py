"""Which number format to train in, from the compute capability or the processor's units alone. No torch here.

Never from `torch.cuda.is_bf16_supported()`: it says True on a T4, where bf16 is emulated and its matrix
products run about 9 times slower than in fp16 (2.20 against 20.39 TFLOP/s: MakazhanAlpamys/Soup#967 and #385
on GitHub; pytorch#148322).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptbr_slm.errors import SlmError
from ptbr_slm.system import bf16_units

PrecisionName = Literal["fp32", "fp16", "bf16"]

OLDEST = (7, 0)
"""Compute capability below which PyTorch's CUDA builds have no kernels: a P100 is (6, 0)."""


@dataclass(frozen=True, slots=True)
class Precision:
    """A choice and why it was made. Weights and gradients are fp32 in all of them."""

    name: PrecisionName
    """Format of the matrix products (autocast); fp32 means no autocast."""
    reason: str
    """Why, in Portuguese."""

    @property
    def needs_scaler(self) -> bool:
        """Whether gradients would underflow without loss scaling: only in fp16."""
        return self.name == "fp16"


def choose_precision(device_type: str, capability: tuple[int, int] | None, asked: str = "auto") -> Precision:
    """The precision for a device of this type ("cpu" or "cuda") and compute capability, such as (7, 5).

    What was asked is given or refused, never changed. Raises E_GPU for a card that PyTorch no longer runs on,
    E_CONFIG for a precision that the device lacks.
    """
    if device_type != "cuda" or capability is None:
        return _on_cpu(asked)
    label = f"sm_{capability[0]}{capability[1]}"
    if capability < OLDEST:
        raise SlmError(
            "E_GPU",
            f"esta GPU ({label}, geração Pascal ou anterior, como a P100) não funciona com o PyTorch atual.",
            where=label,
            hint="No Kaggle escolha o acelerador «GPU T4 x2»; ou treine no processador com --set device=cpu.",
        )
    if asked == "fp32":
        return Precision("fp32", "pedida com --precision fp32")
    if asked == "fp16":
        return Precision("fp16", "pedida com --precision fp16; com GradScaler")
    if asked == "bf16":
        if capability < (8, 0):
            raise SlmError(
                "E_CONFIG",
                f"esta GPU ({label}) só emula bf16, cerca de 9 vezes mais devagar que fp16.",
                where="--precision bf16",
                hint="Use --precision fp16, ou --precision auto.",
            )
        return Precision("bf16", "pedida com --precision bf16")
    if capability >= (8, 0):
        return Precision("bf16", f"a GPU ({label}) multiplica em bf16, que dispensa GradScaler")
    return Precision("fp16", f"a GPU ({label}) tem núcleos de tensor só em fp16; com GradScaler")


def _on_cpu(asked: str) -> Precision:
    """bf16 where the processor has units for it, AMX or AVX-512 BF16, with which it was measured 1.5 times as
    fast or more (docs/decisions/0126-bf16-on-a-cpu.md); else fp32.
    """
    units = bf16_units()
    if asked == "fp16" or (asked == "bf16" and units is None):
        raise SlmError(
            "E_CONFIG",
            f"este processador não tem unidades de {asked}; emulado, treina mais devagar que em fp32."
            if asked == "bf16"
            else "no processador não treinamos em fp16.",
            where=f"--precision {asked}",
            hint="Use --precision fp32, ou --precision auto.",
        )
    if asked == "fp32":
        return Precision("fp32", "pedida com --precision fp32")
    if units is None:
        return Precision("fp32", "no processador, fp32 é o mais rápido")
    reason = "pedida com --precision bf16" if asked == "bf16" else "o processador multiplica em bf16"
    return Precision("bf16", f"{reason} ({units})")
