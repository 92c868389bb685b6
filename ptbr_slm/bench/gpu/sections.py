"""The sections of the check, in the order of what is worth knowing first, and their time. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ptbr_slm.errors import SlmError

MINUTES = 10.0
"""That the times of the sections are for; another `--minutes` scales them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One part of the check."""

    name: str
    title: str
    """In Portuguese."""
    least_s: float
    """Seconds that are kept free for it while sections before it run."""
    most_s: float
    """Seconds after which it is ended."""


SECTIONS = (
    Section(name="machine", title="Máquina", least_s=20, most_s=60),
    Section(name="gemm", title="Produto de matrizes e banda da memória", least_s=15, most_s=60),
    Section(name="amp", title="fp16 com GradScaler contra fp32", least_s=20, most_s=90),
    Section(name="memory", title="Memória contra o planejador", least_s=40, most_s=150),
    Section(name="speed", title="Velocidade do treino", least_s=70, most_s=240),
    Section(name="ranks", title="Duas placas", least_s=30, most_s=120),
    Section(name="onnx", title="Exports para CUDA", least_s=60, most_s=210),
    Section(name="graphs", title="CUDA graphs no PyTorch", least_s=10, most_s=45),
    Section(name="tests", title="Testes marcados gpu", least_s=40, most_s=240),
)
"""`machine` always runs: the others ask it whether there is a card."""

NAMES = tuple(section.name for section in SECTIONS)


def chosen(names: Sequence[str] | None) -> tuple[Section, ...]:
    """The sections to run, in their order; None: all. Raises E_USAGE for a name that there is not."""
    if names is None:
        return SECTIONS
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise SlmError(
            "E_USAGE",
            f"não existe a seção {', '.join(unknown)!r}." if unknown else "--sections não diz seção nenhuma.",
            where="--sections",
            hint=f"Escolha entre: {', '.join(NAMES)}.",
        )
    return tuple(section for section in SECTIONS if section.name in names or section.name == "machine")


def limit(section: Section, later: Sequence[Section], left_s: float, minutes: float) -> float:
    """Seconds that a section may take, with `left_s` for it and those after it; below 1: there is no time."""
    scale = minutes / MINUTES
    kept = scale * sum(other.least_s for other in later)
    return min(scale * section.most_s, max(left_s - kept, min(left_s, scale * section.least_s)))
