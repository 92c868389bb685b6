"""Facts of the machine, gathered without judging them: `ptbr_slm.diagnosis` does that.

Nothing heavy is imported unless it is needed: torch only where an NVIDIA card is present (about 2 s).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KAGGLE_ROOT_VARIABLE = "PTBR_SLM_KAGGLE_ROOT"
"""Environment variable that puts another folder in the place of /kaggle, for tests and rehearsals."""

VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable with the cards that CUDA programs may use: numbers or UUIDs with commas between."""

PACKAGES = (
    "numpy", "tokenizers", "safetensors", "torch", "pyarrow", "zstandard", "ftfy", "matplotlib", "psutil",
    "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "gradio",
)  # fmt: skip
"""Distributions whose version a report of a problem needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One NVIDIA card, as its driver tells."""

    name: str
    capability: tuple[int, int] | None
    """Compute capability, such as (7, 5); None where the driver is too old to say."""
    memory_bytes: int
    driver: str
    free_bytes: int | None = None
    """Memory that no program holds; None where it was not told."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Kaggle:
    """The notebook that we run in."""

    run_type: str
    """`Interactive`, or `Batch` for Save & Run All."""
    working_free_bytes: int | None
    """Free space of /kaggle/working, all that a version keeps; None where the folder is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemFacts:
    """The machine, at one moment."""

    python: tuple[int, int, int]
    platform: str
    cpu_cores: int
    """Cores this process may use."""
    memory_bytes: int | None
    """RAM, or the container's limit where that is less; None where unknown."""
    folder: Path
    """Working directory."""
    folder_writable: bool
    disk_free_bytes: int
    packages: Mapping[str, str | None]
    """Distribution -> installed version, None where absent."""
    floors: Mapping[str, tuple[str, str]]
    """Distribution -> (pip extra, smallest version), from our own metadata; extra "" is the core."""
    gpus: tuple[Gpu, ...] = ()
    """All that the driver lists, hidden ones too."""
    visible: str | None = None
    """CUDA_VISIBLE_DEVICES: the cards that CUDA programs may use; None where it is not set."""
    torch: TorchBuild | None = None
    """None where torch is absent, broken, or no card makes it worth importing."""
    providers: tuple[str, ...] = ()
    """ONNX Runtime's execution providers."""
    provider_faults: Mapping[str, str] = field(default_factory=dict)
    """GPU provider among them -> why it does not run here all the same."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Module that is installed but does not import -> the first line of why."""
    kaggle: Kaggle | None = None


def kaggle_root(environment: Mapping[str, str] | None = None) -> Path:
    """The folder that holds `input` (read-only) and `working` (kept) in a Kaggle notebook."""
    environment = os.environ if environment is None else environment
    return Path(environment.get(KAGGLE_ROOT_VARIABLE) or "/kaggle")


def gather(environment: Mapping[str, str] | None = None, root: Path | None = None) -> SystemFacts:
    """Look at this machine. Never raises for what is missing; takes below a second without a GPU."""
    environment = os.environ if environment is None else environment
    failures: dict[str, str] = {}
    gpus = find_gpus()
    folder = Path.cwd()
    return SystemFacts(
        python=sys.version_info[:3],
        platform=f"{platform.system()} {platform.machine()}",
        cpu_cores=cpu_cores(),
        memory_bytes=memory_bytes(),
        folder=folder,
        folder_writable=os.access(folder, os.W_OK),
        disk_free_bytes=shutil.disk_usage(folder).free,
        packages={name: installed_version(name) for name in PACKAGES},
        floors=required_versions(),
        gpus=gpus,
        visible=environment.get(VISIBLE_VARIABLE),
        torch=torch_build(failures) if gpus else None,
        providers=onnx_providers(failures),
        provider_faults=onnx_provider_faults(failures),
        failures=failures,
        kaggle=kaggle_session(environment, root),
    )


_ASKED = ("name", "compute_cap", "memory.total", "driver_version", "memory.free", "uuid")
"""What nvidia-smi is asked about each card. Drivers before 510 do not know compute_cap, and refuse the whole
question: they are asked again without it."""


def find_gpus() -> tuple[Gpu, ...]:
    """Cards that nvidia-smi lists: needs no torch, and costs nothing where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    lines = _ask(program, _ASKED)
    if lines is None:
        without = _ask(program, tuple(field for field in _ASKED if field != "compute_cap")) or []
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
    torch = _try_import("torch", failures)
    if torch is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what it has to say of a driver is asked for below
        sees = bool(torch.cuda.is_available())
    return TorchBuild(
        cuda=torch.version.cuda,
        sees_gpu=sees,
        archs=tuple(torch.cuda.get_arch_list()) if sees else (),
        reason="" if sees or torch.version.cuda is None else _why_no_card(torch),
        version=str(torch.__version__),
    )


def _why_no_card(torch: Any) -> str:
    """The first sentence with which PyTorch's CUDA refuses to start (c10/cuda/CUDAFunctions.cpp)."""
    try:
        torch.cuda.init()
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


def onnx_providers(failures: dict[str, str]) -> tuple[str, ...]:
    """Execution providers of the installed ONNX Runtime, none where it is absent or broken."""
    runtime = _try_import("onnxruntime", failures)
    return () if runtime is None else tuple(runtime.get_available_providers())


def onnx_provider_faults(failures: dict[str, str]) -> dict[str, str]:
    """GPU providers that do not run a graph of one node, and why; {} where ONNX Runtime has none."""
    if not any(name.startswith(("CUDA", "Tensorrt")) for name in onnx_providers(failures)):
        return {}
    from ptbr_slm.runtime.onnx.gpu.trial import provider_faults

    return provider_faults()


def _try_import(module: str, failures: dict[str, str]) -> Any:
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.import_module(module)
    except Exception as error:  # a missing shared library raises OSError, ImportError, AttributeError, ...
        failures[module] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        return None


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, read from its metadata without importing it."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def required_versions() -> dict[str, tuple[str, str]]:
    """Distribution -> (extra, smallest version), from our metadata; empty where we are not installed."""
    try:
        lines = importlib.metadata.requires("ptbr-slm") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {}
    for line in lines:
        match = re.match(
            r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9.]+)(?:.*extra\s*==\s*['\"](\w+)['\"])?", line
        )
        if match:
            found[match[1].lower()] = (match[3] or "", match[2])
    return found


def cpu_cores() -> int:
    """Cores that this process may use: a container often has fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int | None:
    """RAM, or the container's limit where that is less."""
    total = _physical_memory()
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return total
    return limit if total is None else min(total, limit)


def peak_rss() -> int | None:
    """Largest resident memory of this process so far; None where the system does not tell.

    VmHWM and not ru_maxrss, which a child process inherits from its parent (Linux, fs/exec.c).
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _physical_memory() -> int | None:
    if hasattr(os, "sysconf"):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):
            return None
    if importlib.util.find_spec("psutil") is None:  # Windows
        return None
    import psutil

    return int(psutil.virtual_memory().total)


def kaggle_session(environment: Mapping[str, str], root: Path | None = None) -> Kaggle | None:
    """The Kaggle notebook around us, None elsewhere."""
    run_type = environment.get("KAGGLE_KERNEL_RUN_TYPE")
    if not run_type:
        return None
    working = (root or kaggle_root(environment)) / "working"
    free = shutil.disk_usage(working).free if working.is_dir() else None
    return Kaggle(run_type=run_type, working_free_bytes=free)
