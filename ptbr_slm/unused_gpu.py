"""Why a card that the driver lists goes unused by PyTorch, and what to type. Pure: no torch here.

Shared by `doctor`, which tells, and by what runs on PyTorch, which refuses: a training that someone expects
on the card must not spend its hours on the processor without a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ptbr_slm.system import VISIBLE_VARIABLE, Gpu, TorchBuild, has_kernels

NEEDED_DRIVER = {13: 580, 12: 525, 11: 450}
"""CUDA major version -> first driver that runs its programs (NVIDIA, CUDA Compatibility, minor versions)."""
WHEELS = "https://download.pytorch.org/whl/"
"""cu126 is PyTorch's legacy build up to 2.14, the only one with sm_50 to sm_70 since 2.11; cu128, with sm_100
and sm_120, ended with 2.11 (pytorch/pytorch, RELEASE.md, CUDA Support Matrix; issues 178665, 190385)."""
KAGGLE_GPU = "No Kaggle: Settings → Accelerator → GPU T4 x2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """What keeps PyTorch from a card. Portuguese, without a final point."""

    message: str
    fix: str
    """What to type, besides taking the processor."""
    where: str
    wished: bool = False
    """Whether the machine was set up that way: `auto` may then take the processor, if it says so."""


def why_unused(gpus: Sequence[Gpu], build: TorchBuild | None, visible: str | None) -> Obstacle | None:
    """Why PyTorch sees none of the cards; None where it sees one, or where there is none to see.

    build: None where PyTorch was not asked. visible: CUDA_VISIBLE_DEVICES.
    """
    if not gpus or build is None or build.sees_gpu:
        return None
    if build.cuda is None:
        return Obstacle(
            message=f"há uma {gpus[0].name}, mas o PyTorch instalado é só para processador",
            fix="pip install --force-reinstall torch   (no Windows, veja https://pytorch.org/get-started/locally)",
            where="torch",
            wished=True,
        )
    if visible is not None and (hidden := _hidden(gpus, visible)) is not None:
        return hidden
    return _driver(gpus[0], build)


def visible_names(visible: str | None, count: int) -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each of `count` cards, in PyTorch's order."""
    if visible is None:
        return [str(index) for index in range(count)]
    return [name.strip() for name in visible.split(",") if name.strip()][:count]


def missing_kernels(name: str, capability: tuple[int, int], build: TorchBuild) -> Obstacle | None:
    """The obstacle where this PyTorch has no code for the card; None where it has."""
    if has_kernels(build.archs, capability):
        return None
    label = f"sm_{capability[0]}{capability[1]}"
    version = f" ({build.version})" if build.version else ""
    majors = [int(found[1]) for arch in build.archs if (found := re.fullmatch(r"sm_(\d+)\d[af]?", arch))]
    newer = bool(majors) and capability[0] > max(majors)
    return Obstacle(
        message=f"este PyTorch{version} não tem kernels para a {name} ({label}); "
        f"tem para {', '.join(build.archs) or 'nenhuma'}",
        fix="pip install -U torch   (esta placa é mais nova que ele)"
        if newer
        else f"pip install --force-reinstall torch --index-url {WHEELS}cu126   (o de CUDA 12.6 atende mais "
        "placas antigas; no Kaggle, escolha GPU T4 x2)",
        where=label,
    )


def _hidden(gpus: Sequence[Gpu], visible: str) -> Obstacle | None:
    """CUDA takes the cards up to the first name that does not exist, and none after it."""
    first = visible.split(",")[0].strip()
    if first in ("", "-1", "NoDevFiles"):
        return Obstacle(
            message=f'{VISIBLE_VARIABLE}="{visible}" esconde a {gpus[0].name}',
            fix=f"unset {VISIBLE_VARIABLE}",
            where=VISIBLE_VARIABLE,
            wished=True,
        )
    known = [gpu.uuid for gpu in gpus if gpu.uuid]
    absent = int(first) >= len(gpus) if first.isdecimal() else bool(known) and not _named(first, known)
    if not absent:
        return None
    there = "só a GPU 0" if len(gpus) == 1 else f"GPUs de 0 a {len(gpus) - 1}"
    return Obstacle(
        message=f"{VISIBLE_VARIABLE}={visible} pede uma GPU que não existe: há {there}",
        fix=f"unset {VISIBLE_VARIABLE}   (ou export {VISIBLE_VARIABLE}=0)",
        where=VISIBLE_VARIABLE,
    )


def _named(name: str, known: Sequence[str]) -> bool:
    """Whether a UUID, or the beginning of one, is of these; MIG parts are not told here, so they pass."""
    return name.startswith("MIG") or any(uuid.startswith(name.removeprefix("GPU-")) for uuid in known)


def _driver(gpu: Gpu, build: TorchBuild) -> Obstacle:
    major, driver = release(build.cuda or ""), release(gpu.driver)
    found = re.search(r"too old \(found version (\d+)\)", build.reason)
    version = f" ({build.version})" if build.version else f" (CUDA {build.cuda})"
    needed = NEEDED_DRIVER.get(major, 0)
    if found is None and (driver == 0 or driver >= needed):
        why = f": {build.reason}" if build.reason else ""
        return Obstacle(
            message=f"o PyTorch{version} não consegue usar a {gpu.name} com o driver {gpu.driver}{why}",
            fix="reinicie o computador ou a sessão, e confira o driver com:  nvidia-smi",
            where=f"driver {gpu.driver}",
        )
    cuda = f", CUDA {int(found[1]) // 1000}.{int(found[1]) % 1000 // 10}" if found else ""
    update = f"atualize o driver da NVIDIA ({needed or 580} ou mais novo): https://www.nvidia.com/drivers"
    blackwell = gpu.capability is not None and gpu.capability >= (10, 0)
    older = f"pip install --force-reinstall torch --index-url {WHEELS}{'cu128' if blackwell else 'cu126'}"
    return Obstacle(
        message=f"o driver da {gpu.name} ({gpu.driver}{cuda}) é antigo demais para este PyTorch{version}",
        fix=f"{older}   (o de CUDA 12 serve a este driver); ou {update}"
        if major > 12 and driver >= NEEDED_DRIVER[12]
        else update,
        where=f"driver {gpu.driver}",
    )


def release(version: str) -> int:
    """The first number of a version, '580.82.07' -> 580; 0 for what is not one."""
    number = re.match(r"\d+", version)
    return int(number[0]) if number else 0
