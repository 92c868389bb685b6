"""Sections `machine`, `gemm` and `graphs`: what the card is, what it multiplies and reads, what it launches.

`machine`: the cards, the driver, the versions, and whether a T4's rules are in force. `gemm`: matrix products
and memory bandwidth, of which other figures are shares. `graphs`: whether a step that generates one token can
be captured as a CUDA graph in PyTorch: the launches of a small model's step take longer than its reads, and a
graph launches them all at once (`torch.cuda.CUDAGraph`; pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

from ptbr_slm.bench import t4_rules
from ptbr_slm.bench.gpu.results import Answer, SectionRequest
from ptbr_slm.config import model_config
from ptbr_slm.faults import maybe_fail
from ptbr_slm.gpus import find_gpus
from ptbr_slm.model import KVCache, Llama
from ptbr_slm.system import cpu_cores, installed_version, memory_bytes
from ptbr_slm.train.planning.precision import OLDEST
from ptbr_slm.train.planning.speed import LAUNCH_S, DataSheet, data_sheet, gemm_flops, torch_threads
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


def measure_machine(request: SectionRequest, answer: Answer) -> None:
    """Ask torch and the driver. `facts`: device, cards, card, torch."""
    there = torch.cuda.is_available()
    cards = torch.cuda.device_count() if there else 0
    answer.facts |= {"device": "cuda" if there else "cpu", "cards": cards, "torch": torch.__version__}
    answer.facts["card"] = torch.cuda.get_device_name(0) if there else None
    drivers = {gpu.name: gpu.driver for gpu in find_gpus()}
    for index in range(cards):
        answer.line(f"cuda:{index}", **_card(index, drivers))
    if there:
        _check_kernels(cards, answer)
    else:
        answer.missing("cuda", "absent", "o PyTorch não encontra GPU nenhuma nesta máquina")
    answer.line(
        "software",
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version() if there else None,  # type: ignore[no-untyped-call]
        nccl=_nccl() if there else None,
        ptbr_slm=__version__,
        packages={name: installed_version(name) for name in PACKAGES},
        cpu_cores=cpu_cores(),
        memory_bytes=memory_bytes(),
    )
    answer.note(t4_rules.apply().sentence())


def _card(index: int, drivers: dict[str, str]) -> dict[str, Any]:
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


def _check_kernels(cards: int, answer: Answer) -> None:
    """A P100 is seen by PyTorch, which has no kernels for it any more."""
    oldest = min(torch.cuda.get_device_capability(index) for index in range(cards))
    answer.check(
        "capability",
        "compute capability que este PyTorch ainda atende",
        oldest[0] + oldest[1] / 10,
        low=OLDEST[0] + OLDEST[1] / 10,
    )


def _nccl() -> str | None:
    try:
        version: tuple[int, ...] = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
        return ".".join(map(str, version))
    except (AttributeError, RuntimeError):
        return None


def _power_limit(index: int) -> float | None:
    """Watts, from the driver's own tool; None where it is unknown."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, f"--id={index}", "--query-gpu=power.limit", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        return float(done.stdout.strip())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


READ_BYTES = {"cuda": 1 << 30, "cpu": 64 << 20}
"""Of one read: on a card far beyond its cache (50 MiB on an H100)."""
READ_REPEATS = {"cuda": 20, "cpu": 3}
KERNELS = 2000
MOST = 1.1
"""Of the data sheet: boost clocks pass it by a little; more than that is a fault of the measurement."""


def measure_gemm(request: SectionRequest, answer: Answer) -> None:
    """`facts`: gemm_flops and bandwidth (bytes/s)."""
    rules = t4_rules.apply()
    device = torch.device(request.device, 0) if request.device == "cuda" else torch.device("cpu")
    card = data_sheet(rules.card) if rules.card else None
    for precision in ("fp16", "fp32") if request.device == "cuda" else ("fp32",):
        with answer.attempt(f"gemm {precision}"):
            flops = gemm_flops(device, precision, torch_threads())
            if flops is None:
                answer.missing(f"gemm {precision}", "oom", "não há memória para as matrizes")
                continue
            flops *= 100 if maybe_fail("bench.gemm.flops") else 1
            answer.facts.setdefault("gemm_flops", flops)
            sheet = card.nameplate(precision) if card else None
            answer.line(f"gemm {precision}", flops=flops, nameplate=sheet, share=_share(flops, sheet))
            _sane(answer, f"gemm_{precision}", f"produto {precision} sobre a ficha técnica", flops, sheet)
    with answer.attempt("read"):
        _bandwidth(device, card, answer)
    with answer.attempt("launch"):
        _launches(device, answer)


def _bandwidth(device: torch.device, card: DataSheet | None, answer: Answer) -> None:
    """Bytes/s of a sum, which reads, and of a copy, which reads and writes."""
    size, repeats = READ_BYTES[device.type], READ_REPEATS[device.type]
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    sheet = card.bandwidth if card else None
    total = torch.empty((), device=device)
    read = size / _best(device, repeats, lambda: torch.sum(source, 0, out=total))
    answer.facts["bandwidth"] = read
    answer.line("read", bytes_per_second=read, bytes=size, nameplate=sheet, share=_share(read, sheet))
    _sane(answer, "read", "leitura da memória sobre a ficha técnica", read, sheet)
    target = torch.empty_like(source)
    copy = 2 * size / _best(device, repeats, lambda: target.copy_(source))
    answer.line("copy", bytes_per_second=copy, bytes=2 * size, nameplate=sheet, share=_share(copy, sheet))


def _launches(device: torch.device, answer: Answer) -> None:
    """Seconds of one small kernel in a row of many: what a step of a small model is made of."""
    one = torch.zeros(1, device=device)

    def many() -> None:
        for _ in range(KERNELS):
            one.add_(1)

    seconds = _best(device, 3, many) / KERNELS
    answer.line("launch", seconds=seconds, planned_seconds=LAUNCH_S)


def _best(device: torch.device, repeats: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _share(value: float, sheet: float | None) -> float | None:
    return value / sheet if sheet else None


def _sane(answer: Answer, name: str, label: str, value: float, sheet: float | None) -> None:
    """More than the card can do is a fault of the measurement, and so is next to nothing."""
    answer.check(name, label, _share(value, sheet), low=0.05, high=MOST)


CAPACITY, POSITION = 512, 256
STEP_REPEATS = 50
LOGIT_TOLERANCE = 0.01
"""Largest difference of a logit, replayed over plain, in standard deviations of the logits."""


def measure_graphs(request: SectionRequest, answer: Answer) -> None:
    """Plain, captured, and whether both give the same logits."""
    if request.device != "cuda":
        answer.missing("cuda graph", "absent", "CUDA graphs só existem numa GPU")
        return
    t4_rules.apply()
    size = "nano" if request.smoke else "85m"
    # Drawn on the CPU, then moved: the same weights on every card.
    model = Llama(model_config(size)).initialize(0).half().to("cuda").eval()
    cache = KVCache(model.config, 1, CAPACITY, model.embed.weight)
    token = torch.full((1, 1), 7, dtype=torch.int64, device="cuda")

    def step() -> torch.Tensor:
        cache.length = POSITION
        logits: torch.Tensor = model(token, cache)
        return logits

    with torch.no_grad():
        plain = step().float()
        seconds = _median(step)
        answer.line(f"{size}, sem captura", seconds=seconds, tokens_per_second=1 / seconds)
        graph, output = _capture(step)
        token.fill_(11 if maybe_fail("bench.graphs.token") else 7)
        captured = _median(graph.replay)
        answer.line(f"{size}, capturado", seconds=captured, tokens_per_second=1 / captured)
        difference = float((output.float() - plain).abs().max() / plain.std())
    answer.check("logits", "logits repetidos sobre os simples, em desvios", difference, high=LOGIT_TOLERANCE)
    answer.facts["torch_graph_gain"] = seconds / captured


def _capture(step: Callable[[], torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """(graph, its output), warmed up on a stream beside as PyTorch's notes ask for."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step()
    graph.replay()
    return graph, output


def _median(work: Callable[[], object]) -> float:
    """Seconds, the device waited for each time, as a loop that reads each token does."""
    times = []
    for _ in range(STEP_REPEATS + 5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return float(sorted(times[5:])[STEP_REPEATS // 2])
