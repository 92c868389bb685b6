"""What the facts of a machine mean for a user: findings, each with what to type to put it right.

Pure: `diagnose(facts)` can be asked about a T4 on a machine that has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ptbr_slm.doctor.facts import SystemFacts
from ptbr_slm.errors import SlmError
from ptbr_slm.gpus import (
    NEEDED_DRIVER,
    Gpu,
    TorchBuild,
    has_kernels,
    missing_kernels,
    release,
    visible_names,
    why_unused,
)
from ptbr_slm.train.planning.precision import OLDEST, choose_precision

Status = Literal["ok", "warning", "problem"]

GIB = 1 << 30
LITTLE_MEMORY = 4 * GIB
"""Below it only nano, mini and 85m train on the CPU (`ptbr-slm info --model-size 85m`)."""
LITTLE_DISK = 10 * 10**9
"""Two checkpoints of the 400m, 4.7 GB each, are what a run keeps."""
NO_DISK = 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    """English key, the same on every machine: python, cpu, gpu, precision, ..."""
    status: Status
    message: str
    fix: str = ""
    """What to type or click, in Portuguese; empty where nothing is wrong."""
    blocking: bool = False
    """Whether even use on the CPU is impossible until it is put right."""


def diagnose(facts: SystemFacts) -> list[Finding]:
    """All findings, in the order in which a person reads them."""
    return [
        *_python(facts),
        *_computer(facts),
        *_gpus(facts),
        *_precision(facts),
        *_onnxruntime(facts),
        *_packages(facts),
        *_disk(facts),
        *_kaggle(facts),
    ]


def training_device(facts: SystemFacts) -> str:
    """Where `train` runs with device auto: `cuda` or `cpu`."""
    return "cuda" if facts.gpus and facts.torch is not None and facts.torch.sees_gpu else "cpu"


def runs_on(build: TorchBuild, capability: tuple[int, int]) -> bool:
    """Whether this PyTorch has kernels for the card (`has_kernels`)."""
    return has_kernels(build.archs, capability)


def _python(facts: SystemFacts) -> Iterator[Finding]:
    version = ".".join(map(str, facts.python))
    if facts.python < (3, 11, 0):
        yield Finding(
            topic="python",
            status="problem",
            message=f"Python {version} é antigo demais; o ptbr-slm precisa do 3.11 ou mais novo",
            fix="instale o Python 3.11+ (https://www.python.org/downloads) e crie um ambiente com ele",
            blocking=True,
        )
    else:
        yield Finding(topic="python", status="ok", message=f"Python {version} em {facts.platform}")


def _computer(facts: SystemFacts) -> Iterator[Finding]:
    cores = f"{facts.cpu_cores} núcleo{'s' if facts.cpu_cores > 1 else ''}"
    memory = "memória desconhecida"
    if facts.memory_bytes is not None:
        memory = f"{_decimal(facts.memory_bytes / GIB)} GiB de memória"
    if facts.memory_bytes is not None and facts.memory_bytes < LITTLE_MEMORY:
        yield Finding(
            topic="cpu",
            status="warning",
            message=f"{cores} de processador, só {memory}",
            fix="use um tamanho pequeno, como --model-size mini; a conta: ptbr-slm info --model-size 85m",
        )
    else:
        yield Finding(topic="cpu", status="ok", message=f"{cores} de processador, {memory}")


def _gpus(facts: SystemFacts) -> Iterator[Finding]:
    if not facts.gpus and facts.kaggle is not None:
        yield Finding(
            topic="gpu",
            status="warning",
            message="este notebook está sem GPU: o treino seria no processador",
            fix="no painel do Kaggle: Settings → Accelerator → GPU T4 x2",
        )
    elif not facts.gpus:
        yield Finding(
            topic="gpu", status="ok", message="nenhuma GPU NVIDIA: treino e geração usam o processador"
        )
    for index, gpu in enumerate(facts.gpus):
        sm = f", {_sm(gpu.capability)}" if gpu.capability else ""
        message = f"GPU {index}: {gpu.name}{sm}, {_decimal(gpu.memory_bytes / GIB)} GiB, driver {gpu.driver}"
        yield Finding(topic="gpu", status="ok", message=message)
    if len(facts.gpus) > 1:
        yield Finding(
            topic="gpu_count",
            status="ok",
            message=f"{len(facts.gpus)} GPUs: o treino usa todas juntas (uma só: --parallel none)",
        )


def _precision(facts: SystemFacts) -> Iterator[Finding]:
    """Device and precision of the training to come, and what keeps a card from being used."""
    if not facts.gpus:
        yield _chosen("cpu", None)
        return
    build = facts.torch
    known = [gpu.capability for gpu in facts.gpus if gpu.capability is not None]
    old = len(known) == len(facts.gpus) and max(known) < OLDEST  # whatever PyTorch is installed
    if old:
        yield _chosen("cuda", max(known))
    elif build is None or not known or not build.sees_gpu:
        if facts.packages.get("torch") is None:  # which is a finding of its own
            yield _chosen("cpu", None)
            return
        unused = _unused_gpu(facts, facts.gpus[0], build)
        yield unused
        if unused.status == "problem":
            message = "o treino não começa assim; no processador, só com --set device=cpu, em fp32"
            yield Finding(topic="precision", status="ok", message=message)
        else:
            yield _chosen("cpu", None)
    else:
        yield from _each_card(facts, build)


def _each_card(facts: SystemFacts, build: TorchBuild) -> Iterator[Finding]:
    """Of cards that PyTorch sees, those it has no kernels for; the precision where it has them for all."""
    good: list[tuple[int, int]] = []
    looked_at = 0
    for index, gpu in enumerate(facts.gpus):
        if gpu.capability is None or not _is_visible(facts, index, gpu):
            continue
        looked_at += 1
        obstacle = missing_kernels(gpu.name, gpu.capability, build)
        if obstacle is None and gpu.capability >= OLDEST:
            good.append(gpu.capability)
            continue
        message = f"a {gpu.name} ({_sm(gpu.capability)}) não funciona com o PyTorch atual"
        kept = ",".join(str(other) for other in range(len(facts.gpus)) if other != index)
        fix = obstacle.fix if obstacle is not None and gpu.capability >= OLDEST else _T4
        if kept:
            fix = f"deixe-a de fora: export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={kept}"
        yield Finding(
            topic="torch_gpu",
            status="problem",
            message=obstacle.message if obstacle is not None else message,
            fix=f"{fix}; ou treine no processador com --set device=cpu",
        )
    if len(good) == looked_at and good:
        yield _chosen("cuda", min(good))


def _is_visible(facts: SystemFacts, index: int, gpu: Gpu) -> bool:
    """Whether CUDA_VISIBLE_DEVICES leaves the card to CUDA programs."""
    names = visible_names(facts.visible, len(facts.gpus))
    return any(
        name == str(index) or (bool(gpu.uuid) and name.removeprefix("GPU-") == gpu.uuid) for name in names
    )


_T4 = "no Kaggle escolha o acelerador GPU T4 x2 (a P100 já não é atendida pelo PyTorch atual)"


def _chosen(device: str, capability: tuple[int, int] | None) -> Finding:
    try:
        precision = choose_precision(device, capability, "auto")
    except SlmError as error:
        return Finding(topic="torch_gpu", status="problem", message=error.message.rstrip("."), fix=error.hint)
    where = "na GPU" if device == "cuda" else "no processador"
    return Finding(
        topic="precision",
        status="ok",
        message=f"o treino será {where}, em {precision.name}: {precision.reason}",
    )


def _unused_gpu(facts: SystemFacts, gpu: Gpu, build: TorchBuild | None) -> Finding:
    """A card that training cannot use, and why."""
    if "torch" in facts.failures:
        return Finding(
            topic="torch_gpu",
            status="problem",
            message=f"o PyTorch está instalado mas não abre ({facts.failures['torch']})",
            fix="pip install --force-reinstall torch",
        )
    obstacle = why_unused((gpu,) if facts.visible is None else facts.gpus, build, facts.visible)
    if obstacle is not None:
        return Finding(
            topic="torch_gpu",
            status="warning" if obstacle.wished else "problem",
            message=obstacle.message,
            fix=obstacle.fix,
        )
    return Finding(  # a driver that does not tell the capability, or a PyTorch that was not asked
        topic="torch_gpu",
        status="problem",
        message=f"o PyTorch não consegue usar a {gpu.name} com o driver {gpu.driver}",
        fix="atualize o driver da NVIDIA, ou instale um PyTorch de CUDA mais antiga; confira com: nvidia-smi",
    )


def _onnxruntime(facts: SystemFacts) -> Iterator[Finding]:
    cpu, gpu = facts.packages.get("onnxruntime"), facts.packages.get("onnxruntime-gpu")
    only_engine = facts.packages.get("torch") is None
    if cpu and gpu:
        yield _both_onnxruntimes(facts)
    elif "onnxruntime" in facts.failures:
        yield Finding(
            topic="onnxruntime",
            status="problem",
            message=f"o ONNX Runtime está instalado mas não abre ({facts.failures['onnxruntime']})",
            fix='pip install --force-reinstall "ptbr-slm[cpu]"',
            blocking=only_engine,
        )
    elif not (cpu or gpu):
        yield Finding(
            topic="onnxruntime",
            status="problem" if only_engine else "warning",
            message="falta o ONNX Runtime, que executa os modelos exportados",
            fix='pip install "ptbr-slm[cpu]"',
            blocking=only_engine,
        )
    else:
        local = [
            name for name in facts.providers if not name.startswith("Azure")
        ]  # Azure calls a remote server
        shown = ", ".join(name.removesuffix("ExecutionProvider") for name in local)
        yield Finding(topic="onnxruntime", status="ok", message=f"ONNX Runtime {cpu or gpu}: {shown}")
        yield from _providers(facts)


def _both_onnxruntimes(facts: SystemFacts) -> Finding:
    from ptbr_slm.runtime.engines.onnx.providers.gpu_libraries import BOTH

    overwritten = not any(name.startswith("CUDA") for name in facts.providers)
    which = (
        "o de processador ficou por cima: a GPU não será usada" if overwritten else "o de GPU ficou por cima"
    )
    extra, other = ("gpu", "cpu") if facts.gpus else ("cpu", "gpu")
    return Finding(
        topic="onnxruntime",
        status="problem",
        message=f"{BOTH} ({which})",
        fix="pip uninstall -y onnxruntime onnxruntime-gpu && "
        f'pip install "ptbr-slm[{extra}]"   (ou [{other}])',
    )


def _providers(facts: SystemFacts) -> Iterator[Finding]:
    """GPU providers that are installed and do not run: exports for them would be refused."""
    from ptbr_slm.runtime.engines.onnx.providers.gpu_libraries import DRIVER, OLD_DRIVER, install_line

    cuda, tensorrt = (
        facts.provider_faults.get(f"{name}ExecutionProvider", "") for name in ("CUDA", "Tensorrt")
    )
    if cuda:
        fix = install_line("cuda")
        if DRIVER in cuda and not facts.gpus:
            fix = 'sem GPU NVIDIA: pip uninstall -y onnxruntime-gpu && pip install "ptbr-slm[cpu]"'
        elif OLD_DRIVER in cuda:
            fix = "atualize o driver da NVIDIA (580 ou mais novo): https://www.nvidia.com/drivers"
            if facts.gpus and release(facts.gpus[0].driver) >= NEEDED_DRIVER[12]:
                fix = f"{install_line('cuda', cuda=12)}   (o de CUDA 12 serve a este driver); ou {fix}"
        elif "CUDA_VISIBLE_DEVICES" in cuda:
            fix = "unset CUDA_VISIBLE_DEVICES"
        yield Finding(
            topic="onnxruntime_cuda",
            status="problem" if facts.gpus else "warning",
            message=f"o ONNX Runtime foi feito para CUDA, e ela não abre: {cuda}",
            fix=fix,
        )
    elif facts.gpus and "CUDAExecutionProvider" not in facts.providers:
        yield Finding(
            topic="onnxruntime_cuda",
            status="warning",
            message="há uma GPU, e o ONNX Runtime instalado é só de processador: não abre exports de GPU",
            fix=install_line("cuda"),
        )
    if tensorrt and not cuda:
        message = f"TensorRT (opcional, para exports --target tensorrt) não abre: {tensorrt}"
        yield Finding(topic="onnxruntime_tensorrt", status="ok", message=message)


_PURPOSE = {
    "data": "preparar textos",
    "train": "treinar",
    "export": "exportar para ONNX",
    "app": "abrir a página",
}


def _packages(facts: SystemFacts) -> Iterator[Finding]:
    for extra in ("", *_PURPOSE):
        names = [n for n in facts.packages if n in facts.floors and facts.floors[n][0] == extra]
        yield from _extra(extra, [n for n in names if facts.packages[n] is None])
    for name, version in facts.packages.items():
        if version is not None and name in facts.floors and _number(version) < _number(facts.floors[name][1]):
            kept = " (no Kaggle, mantenha o que veio e siga)" if facts.kaggle and name == "torch" else ""
            yield Finding(
                topic="version",
                status="warning",
                message=f"{name} {version} é mais antigo que o {facts.floors[name][1]} que testamos",
                fix=f'pip install -U "{name}>={facts.floors[name][1]}"{kept}',
            )
    shown = ", ".join(f"{name} {version}" for name, version in facts.packages.items() if version)
    yield Finding(topic="packages", status="ok", message=f"pacotes: {shown}")


def _extra(extra: str, missing: list[str]) -> Iterator[Finding]:
    if not missing:
        return
    wanted = f"ptbr-slm[{extra}]" if extra else "ptbr-slm"
    purpose = f"para {_PURPOSE[extra]} " if extra else ""
    yield Finding(
        topic=f"extra_{extra or 'core'}",
        status="warning" if extra else "problem",
        message=f"{purpose}falta{'m' if len(missing) > 1 else ''}: {', '.join(missing)}",
        fix=f'pip install "{wanted}"',
        blocking=not extra,
    )


def _disk(facts: SystemFacts) -> Iterator[Finding]:
    free = f"{_decimal(facts.disk_free_bytes / 1e9)} GB livres em {facts.folder}"
    if facts.disk_free_bytes < LITTLE_DISK:
        yield Finding(
            topic="disk",
            status="problem" if facts.disk_free_bytes < NO_DISK else "warning",
            message=f"só {free}; um checkpoint do 400m ocupa 4,7 GB",
            fix="libere espaço, ou use outra pasta em --output",
        )
    else:
        yield Finding(topic="disk", status="ok", message=free)
    if not facts.folder_writable:
        yield Finding(
            topic="folder",
            status="warning",
            message=f"{facts.folder} é só de leitura: nada poderá ser gravado aqui",
            fix="cd ~" if facts.kaggle is None else "cd /kaggle/working",
        )


def _kaggle(facts: SystemFacts) -> Iterator[Finding]:
    session = facts.kaggle
    if session is None:
        return
    kind = "uma versão (Save & Run All)" if session.run_type == "Batch" else "uma sessão interativa"
    yield Finding(
        topic="kaggle",
        status="ok",
        message=f"Kaggle, {kind}: treine com --max-time 11h30m --session-start kaggle, "
        "pois a sessão acaba em 12 horas",
    )
    free = session.working_free_bytes
    if free is None:
        yield Finding(
            topic="kaggle_working",
            status="problem",
            message="não achei /kaggle/working, o único lugar que o Kaggle guarda",
            fix="recomece o notebook; confira com: ls /kaggle",
        )
    else:
        little = free < LITTLE_DISK
        yield Finding(
            topic="kaggle_working",
            status="warning" if little else "ok",
            message=f"/kaggle/working tem {_decimal(free / 1e9)} GB livres",
            fix="apague o que não usa; o treino guarda tantos checkpoints quantos couberem" if little else "",
        )


def _sm(capability: tuple[int, int]) -> str:
    return f"sm_{capability[0]}{capability[1]}"


def _number(version: str) -> tuple[int, ...]:
    """'2.13.0+cpu' -> (2, 13, 0): enough to compare with our floors."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()


def _decimal(value: float) -> str:
    return f"{value:.1f}".replace(".", ",")
