"""How many physical cores this process may use, without psutil (the runtime's dependencies stay few)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


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
