"""The machine that a plan is made for, by name: nothing of it has to be at hand. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ptbr_slm.errors import SlmError
from ptbr_slm.system import cpu_cores, memory_bytes
from ptbr_slm.train.planning.choice import Machine
from ptbr_slm.train.planning.memory import GIB, T4_BYTES
from ptbr_slm.train.planning.precision import choose_precision
from ptbr_slm.train.planning.speed import cpu_speed, data_sheet, gpu_speed

CARDS: dict[str, tuple[int, str]] = {
    "t4": (T4_BYTES, "fp16"),
    "l4": (22 * GIB, "bf16"),
    "a100": (39 * GIB, "bf16"),
}
"""Card -> bytes that PyTorch sees of it (of an L4 and an A100: assumed), and the precision of its products
(`precision.choose_precision`): what Kaggle and Colab lend."""
KAGGLE = "t4x2"
"""What a Kaggle notebook has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """A CPU, or so many alike cards of one machine."""

    name: str
    """As it was asked for: `cpu`, `t4`, `t4x2`."""
    machine: Machine
    precision: str

    @property
    def gpu(self) -> bool:
        """Whether it is cards."""
        return self.machine.kind == "cuda"

    @property
    def on_kaggle(self) -> bool:
        """Whether a session is a Kaggle notebook's, whose clock runs from the container's start."""
        return self.name == KAGGLE


def hardware(name: str) -> Hardware:
    """`cpu` (this computer's), or a card of `CARDS` and how many: `t4`, `t4x2`. Raises E_USAGE."""
    if name == "cpu":
        chosen = choose_precision("cpu", None).name
        speed = cpu_speed(cpu_cores(), chosen)
        cpu = Machine(kind="cpu", memory_bytes=memory_bytes(), device=speed)
        return Hardware(name=name, machine=cpu, precision=chosen)
    found = re.fullmatch(r"([a-z0-9]+?)(?:x([1-8]))?", name)
    if found is None or found[1] not in CARDS:
        raise SlmError(
            "E_USAGE",
            f"não conheço a máquina {name!r}.",
            where="--gpu",
            hint=f"Use cpu, {', '.join(CARDS)}, ou várias placas iguais, como {KAGGLE}.",
        )
    memory, precision = CARDS[found[1]]
    sheet = data_sheet(found[1])
    device = gpu_speed(sheet, precision)
    machine = Machine(kind="cuda", memory_bytes=memory, device=device, ranks=int(found[2] or 1))
    return Hardware(name=name, machine=machine, precision=precision)
