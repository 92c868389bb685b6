"""Cards that are not there: a `nvidia-smi` on PATH for real processes, and `torch.cuda` for this one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

GIB = 1 << 30
CU128 = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
"""Architectures of the PyTorch that Kaggle's image carried in 2026."""


@dataclass(frozen=True)
class Card:
    """A card, as driver and PyTorch report it."""

    name: str = "Tesla T4"
    capability: tuple[int, int] = (7, 5)
    gib: float = 14.56
    taken: float = 0.0
    """GiB that another program holds."""
    driver: str = "580.82.07"
    uuid: str = "c8a4f2d1-0000-0000-0000-000000000000"

    @property
    def total(self) -> int:
        return int(self.gib * GIB)

    @property
    def free(self) -> int:
        return int((self.gib - 0.1 - self.taken) * GIB)


P100 = Card("Tesla P100-PCIE-16GB", (6, 0), 15.9)
V100 = Card("Tesla V100-SXM2-16GB", (7, 0), 15.77)
A100 = Card("NVIDIA A100-SXM4-40GB", (8, 0), 39.4)
GTX_1650 = Card("NVIDIA GeForce GTX 1650", (7, 5), 3.81)
FUTURE = Card("NVIDIA X300", (13, 0), 96.0)

_TOOL = """#!{python}
import json, sys
asked = next(a for a in sys.argv if a.startswith("--query-gpu=")).partition("=")[2].split(",")
cards, unknown = json.loads({cards!r})
for field in asked:
    if field in unknown:
        print(f'Field "{{field}}" is not a valid field to query.')
        sys.exit(2)
for card in cards:
    print(", ".join(card.get(field, "[N/A]") for field in asked))
"""


def nvidia_smi(folder: Path, *cards: Card, unknown: Sequence[str] = ()) -> dict[str, str]:
    """An environment whose nvidia-smi lists these cards; it refuses to be asked for the fields `unknown`."""
    lines = [
        {
            "name": card.name,
            "compute_cap": "{}.{}".format(*card.capability),
            "memory.total": str(card.total >> 20),
            "memory.free": str(card.free >> 20),
            "driver_version": card.driver,
            "uuid": f"GPU-{card.uuid}",
        }
        for card in cards
    ]
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(_TOOL.format(python=sys.executable, cards=json.dumps([lines, list(unknown)])))
    tool.chmod(0o755)
    return {"PATH": f"{tool.parent}:{os.environ['PATH']}"}


def torch_sees(
    monkeypatch: Any, *cards: Card, archs: Sequence[str] = CU128, cuda: str | None = "12.8", why: str = ""
) -> None:
    """Make torch.cuda of this process answer as on a machine with these cards; none: it says `why` not."""
    import torch

    from ptbr_slm.train.planning import devices

    def card(device: Any = 0) -> Card:
        return cards[device if isinstance(device, int) else device.index or 0]

    def init() -> None:
        raise RuntimeError(why)

    def properties(device: Any = 0) -> Any:
        return SimpleNamespace(total_memory=card(device).total, uuid=card(device).uuid)

    answers: dict[str, Any] = {
        "is_available": lambda: bool(cards),
        "init": init,
        "device_count": lambda: len(cards),
        "get_arch_list": lambda: list(archs),
        "get_device_capability": lambda device=0: card(device).capability,
        "get_device_name": lambda device=0: card(device).name,
        "get_device_properties": properties,
        "mem_get_info": lambda device=0: (card(device).free, card(device).total),
        "memory_reserved": lambda device=0: 0,
        # True on a T4, as in PyTorch, where emulation counts: no decision may depend on it.
        "is_bf16_supported": lambda including_emulation=True: including_emulation,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    kernels = lambda parameters, debug=False: True  # noqa: E731
    monkeypatch.setattr(devices, "can_use_efficient_attention", kernels)
    heads = lambda model, *_: torch.empty(1, model.num_heads, 8, model.head_dim)  # noqa: E731
    monkeypatch.setattr(devices, "_heads", heads)
