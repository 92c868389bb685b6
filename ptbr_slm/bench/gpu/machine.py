"""Section `machine`: the cards, the driver, the versions, and whether a T4's rules are in force."""

from __future__ import annotations

import platform
import shutil
import subprocess
from typing import Any

from ptbr_slm.bench import t4_rules
from ptbr_slm.bench.gpu.asked import Asked
from ptbr_slm.bench.gpu.results import Answer
from ptbr_slm.system import cpu_cores, find_gpus, installed_version, memory_bytes
from ptbr_slm.train.planning.precision import OLDEST
from ptbr_slm.version import __version__

PACKAGES = (
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxruntime-gpu",
    "bitsandbytes",
    "numpy",
    "tokenizers",
    "pytest",
)


def measure(asked: Asked, answer: Answer) -> None:
    """Ask torch and the driver. `facts`: device, cards, card, torch."""
    import torch

    backends: Any = torch.backends
    there = torch.cuda.is_available()
    cards = torch.cuda.device_count() if there else 0
    answer.facts |= {"device": "cuda" if there else "cpu", "cards": cards, "torch": torch.__version__}
    answer.facts["card"] = torch.cuda.get_device_name(0) if there else None
    drivers = {gpu.name: gpu.driver for gpu in find_gpus()}
    for index in range(cards):
        answer.line(f"cuda:{index}", **_card(torch, index, drivers))
    if there:
        _check_kernels(torch, cards, answer)
    else:
        answer.missing("cuda", "absent", "o PyTorch não encontra GPU nenhuma nesta máquina")
    answer.line(
        "software",
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=backends.cudnn.version() if there else None,
        nccl=_nccl(torch) if there else None,
        ptbr_slm=__version__,
        packages={name: installed_version(name) for name in PACKAGES},
        cpu_cores=cpu_cores(),
        memory_bytes=memory_bytes(),
    )
    answer.note(t4_rules.apply().told())


def _card(torch: Any, index: int, drivers: dict[str, str]) -> dict[str, Any]:
    """The facts of one card. `free_bytes` at the start: another program may be on it."""
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "card": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "total_bytes": total,
        "free_bytes": free,
        "driver": drivers.get(properties.name),
        "power_limit_w": _power_limit(index),
    }


def _check_kernels(torch: Any, cards: int, answer: Answer) -> None:
    """A P100 is seen by PyTorch, which has no kernels for it any more."""
    oldest = min(torch.cuda.get_device_capability(index) for index in range(cards))
    answer.check(
        "capability",
        "compute capability que este PyTorch ainda atende",
        oldest[0] + oldest[1] / 10,
        low=OLDEST[0] + OLDEST[1] / 10,
    )


def _nccl(torch: Any) -> str | None:
    try:
        return ".".join(map(str, torch.cuda.nccl.version()))
    except (AttributeError, RuntimeError):
        return None


def _power_limit(index: int) -> float | None:
    """Watts, from the driver's own tool; None where it does not tell."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, f"--id={index}", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return float(done.stdout.strip())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
