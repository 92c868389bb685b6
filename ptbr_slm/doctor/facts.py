"""Facts of the machine, gathered without judging them: `ptbr_slm.doctor.findings` does that.

Nothing heavy is imported unless it is needed: torch only where an NVIDIA card is present (about 2 s).
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ptbr_slm.gpus import VISIBLE_VARIABLE, Gpu, TorchBuild, find_gpus, torch_build
from ptbr_slm.system import Kaggle, cpu_cores, import_or_note, installed_version, kaggle_session, memory_bytes

PACKAGES = (
    "numpy", "tokenizers", "safetensors", "torch", "pyarrow", "zstandard", "ftfy", "matplotlib", "psutil",
    "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "gradio",
)  # fmt: skip
"""Distributions whose version a report of a problem needs."""


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


def onnx_providers(failures: dict[str, str]) -> tuple[str, ...]:
    """Execution providers of the installed ONNX Runtime, none where it is absent or broken."""
    runtime = import_or_note("onnxruntime", failures)
    return () if runtime is None else tuple(runtime.get_available_providers())


def onnx_provider_faults(failures: dict[str, str]) -> dict[str, str]:
    """GPU providers that do not run a graph of one node, and why; {} where ONNX Runtime has none."""
    if not any(name.startswith(("CUDA", "Tensorrt")) for name in onnx_providers(failures)):
        return {}
    from ptbr_slm.runtime.engines.onnx.providers.gpu_libraries import provider_faults

    return provider_faults()


def required_versions() -> dict[str, tuple[str, str]]:
    """Distribution -> (extra, smallest version), from our metadata; empty where we are not installed."""
    try:
        lines = importlib.metadata.requires("ptbr-slm") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, tuple[str, str]] = {}
    for line in lines:
        match = re.match(
            r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9.]+)(?:.*extra\s*==\s*['\"](\w+)['\"])?", line
        )
        if match:
            # [train] includes [data]: the smaller extra is the one to install
            found.setdefault(match[1].lower(), (match[3] or "", match[2]))
    return found
