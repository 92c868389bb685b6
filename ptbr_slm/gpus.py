"""The NVIDIA cards of this machine, what PyTorch can run on, and why a card that is there goes unused.

Nothing heavy is imported unless it is needed: torch only by `torch_build` (about 2 s). `doctor` tells what
keeps PyTorch from a card, and what runs on PyTorch refuses: a training that someone expects on the card must
not spend its hours on the processor without a word.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ptbr_slm.system import import_or_note

VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable with the cards that CUDA programs may use: numbers or UUIDs with commas between."""

NEEDED_DRIVER = {13: 580, 12: 525, 11: 450}
"""CUDA major version -> first driver that runs its programs (NVIDIA, CUDA Compatibility, minor versions)."""
WHEELS = "https://download.pytorch.org/whl/"
"""cu126 is PyTorch's legacy build up to 2.14, the only one with sm_50 to sm_70 since 2.11; cu128, with sm_100
and sm_120, ended with 2.11 (pytorch/pytorch, RELEASE.md, CUDA Support Matrix; issues 178665, 190385)."""
KAGGLE_GPU = "No Kaggle: Settings → Accelerator → GPU T4 x2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One NVIDIA card, as its driver reports it."""

    name: str
    capability: tuple[int, int] | None
    """Compute capability, such as (7, 5); None where the driver is too old to say."""
    memory_bytes: int
    driver: str
    free_bytes: int | None = None
    """Memory that no program holds; None where unknown."""
    uuid: str = ""
    """The driver's name for this very card, without its prefix `GPU-`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchBuild:
    """What the installed PyTorch can run on."""

    cuda: str | None
    """CUDA version it was built for; None in a CPU build."""
    sees_gpu: bool
    """`torch.cuda.is_available()`: True on a P100, whose kernels it may lack all the same."""
    archs: tuple[str, ...]
    """`torch.cuda.get_arch_list()`: sm_XY are kernels, compute_XY is PTX for later cards."""
    reason: str = ""
    """Why it sees no card, in PyTorch's own words; empty where it sees one or says nothing."""
    version: str = ""
    """Such as `2.10.0+cu128`."""


_FIELDS = ("name", "compute_cap", "memory.total", "driver_version", "memory.free", "uuid")
"""What nvidia-smi is asked about each card. Drivers before 510 do not know compute_cap, and refuse the whole
question: they are asked again without it."""


def find_gpus() -> tuple[Gpu, ...]:
    """Cards that nvidia-smi lists: needs no torch, and costs nothing where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    lines = _ask(program, _FIELDS)
    if lines is None:
        without = _ask(program, tuple(field for field in _FIELDS if field != "compute_cap")) or []
        lines = [line.replace(",", ", [N/A],", 1) for line in without]
    return tuple(gpu for line in lines if (gpu := parse_gpu(line)) is not None)


def _ask(program: str, fields: tuple[str, ...]) -> list[str] | None:
    """A line for each card; None where the program fails."""
    query = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()


def parse_gpu(line: str) -> Gpu | None:
    """`Tesla T4, 7.5, 15360, 580.82` and perhaps `, 14900, GPU-UUID` -> Gpu; None for what is not a card."""
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) < 4 or not cells[2].isdigit():
        return None
    version = re.fullmatch(r"(\d+)\.(\d+)", cells[1])
    free, uuid = (*cells[4:], "", "")[:2]
    return Gpu(
        name=cells[0],
        capability=(int(version[1]), int(version[2])) if version else None,
        memory_bytes=int(cells[2]) << 20,
        driver=cells[3],
        free_bytes=int(free) << 20 if free.isdigit() else None,
        uuid=uuid.removeprefix("GPU-"),
    )


def torch_build(failures: dict[str, str]) -> TorchBuild | None:
    """Import torch and ask it; None where it is not installed, its failure noted where it does not import."""
    torch = import_or_note("torch", failures)
    if torch is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it has to say of a driver is asked for below
        sees = bool(torch.cuda.is_available())
    return TorchBuild(
        cuda=torch.version.cuda,
        sees_gpu=sees,
        archs=tuple(torch.cuda.get_arch_list()) if sees else (),
        reason="" if sees or torch.version.cuda is None else _why_no_card(),
        version=str(torch.__version__),
    )


def _why_no_card() -> str:
    """The first sentence with which PyTorch's CUDA refuses to start (c10/cuda/CUDAFunctions.cpp)."""
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split(". ")[0].splitlines()[0][:200] if str(error).strip() else ""
    return ""


def has_kernels(archs: Iterable[str], capability: tuple[int, int]) -> bool:
    """Whether code compiled for these architectures runs on a card.

    Kernels sm_XY run on every later minor version of the same major; PTX compute_XY on anything later.
    """
    for name in archs:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", name)
        if match is None:
            continue
        arch = (int(match[2]), int(match[3]))
        if arch <= capability and (match[1] == "compute" or arch[0] == capability[0]):
            return True
    return False


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
    """Whether a UUID, or the beginning of one, is of these; MIG parts are not known here, so they pass."""
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
