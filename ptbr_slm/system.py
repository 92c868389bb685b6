"""This computer: cores, memory, installed packages, the Kaggle notebook around us. Imports nothing heavy."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KAGGLE_ROOT_VARIABLE = "PTBR_SLM_KAGGLE_ROOT"
"""Environment variable that puts another folder in the place of /kaggle, for tests and trial runs."""

_CPUS = Path("/sys/devices/system/cpu")
_CPU_INFO = Path("/proc/cpuinfo")
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kaggle:
    """The notebook that we run in."""

    run_type: str
    """`Interactive`, or `Batch` for Save & Run All."""
    working_free_bytes: int | None
    """Free space of /kaggle/working, all that a version keeps; None where the folder is missing."""


def kaggle_root(environment: Mapping[str, str] | None = None) -> Path:
    """The folder that holds `input` (read-only) and `working` (kept) in a Kaggle notebook."""
    environment = os.environ if environment is None else environment
    return Path(environment.get(KAGGLE_ROOT_VARIABLE) or "/kaggle")


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where this package keeps what can be had again: PTBR_SLM_CACHE, or ptbr-slm under XDG_CACHE_HOME or
    ~/.cache.
    """
    environment = os.environ if environment is None else environment
    asked, shared = environment.get("PTBR_SLM_CACHE"), environment.get("XDG_CACHE_HOME")
    root = Path(asked) if asked else (Path(shared) if shared else Path.home() / ".cache") / "ptbr-slm"
    return root.expanduser()


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, read from its metadata without importing it."""
    import importlib.metadata  # loads email, csv and zipfile: 15 ms that most commands do without

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor_name(info: Path = _CPU_INFO) -> str:
    """The processor's name, as far as the system gives it."""
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


_BF16_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}
_ONEDNN_LIMITS = {"AMX": ("AVX512_CORE_AMX", "AVX10_1_512_AMX"), "AVX-512 BF16": ("AVX512_CORE_BF16",
    "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10_1_512")}  # fmt: skip


def bf16_units(info: Path = _CPU_INFO, environment: Mapping[str, str] | None = None) -> str | None:
    """What this processor multiplies bf16 with, `AMX` or `AVX-512 BF16`; None where it would be emulated.

    PyTorch's products are oneDNN's: a limit in ONEDNN_MAX_CPU_ISA holds here too
    (uxlfoundation.github.io/oneDNN, "CPU Dispatcher Control").
    """
    environment = os.environ if environment is None else environment
    limit = environment.get("ONEDNN_MAX_CPU_ISA", "").upper()
    text = info.read_text(errors="replace") if info.exists() else ""
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    present = set() if flags is None else set(flags[1].split())
    for flag, name in _BF16_UNITS.items():
        if flag in present and (limit in ("", "DEFAULT") or limit.startswith(_ONEDNN_LIMITS[name])):
            return name
    return None


def cpu_cores() -> int:
    """Cores that this process may use: a container often has fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def physical_cores(cpus: Path = _CPUS, quota: Path = _CGROUP_QUOTA) -> int:
    """Cores, not hyper-threads (two threads of a core share the unit that multiplies), within affinity and
    container quota. Where the system does not tell: its logical processors.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        cores = {_siblings(cpus, cpu) for cpu in allowed}
        return max(1, min(len(cores), _quota_cores(quota)))
    if sys.platform == "darwin":
        for name in ("hw.perflevel0.physicalcpu", "hw.physicalcpu"):  # the fast cores of Apple silicon
            done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
            if done.stdout.strip().isdecimal():
                return max(1, int(done.stdout))
    return os.cpu_count() or 1


def _siblings(cpus: Path, cpu: int) -> str:
    """The logical processors that share this one's core, as the kernel writes them: `0,8`."""
    try:
        return (cpus / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota_cores(path: Path) -> int:
    """Whole processors of a cgroup v2 quota (`200000 100000` is 2); no limit is very many."""
    try:
        limit, period = path.read_text().split()
        return max(1, round(int(limit) / int(period)))
    except (OSError, ValueError):
        return 1 << 20


def memory_bytes() -> int | None:
    """RAM, or the container's limit where that is less."""
    total = _physical_memory()
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return total
    return limit if total is None else min(total, limit)


def peak_rss() -> int | None:
    """Largest resident memory of this process so far; None where unknown.

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


def import_or_note(module: str, failures: dict[str, str]) -> Any:
    """The module; None where it is not installed, or does not import: `failures` then says why."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.import_module(module)
    except Exception as error:  # a missing shared library raises OSError, ImportError, AttributeError, ...
        failures[module] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        return None
