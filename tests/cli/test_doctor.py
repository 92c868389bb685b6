"""What doctor concludes from the facts of many machines, and that it runs on this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptbr_slm.doctor.facts import PACKAGES, SystemFacts, required_versions
from ptbr_slm.doctor.findings import Finding, diagnose, runs_on, training_device
from ptbr_slm.gpus import Gpu, TorchBuild, parse_gpu, torch_build
from ptbr_slm.system import Kaggle, kaggle_session

CU128 = ("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
"""Architectures of the PyTorch that Kaggle's image carried in 2026."""
BUILD = TorchBuild(cuda="12.8", sees_gpu=True, archs=CU128)
T4 = Gpu(name="Tesla T4", capability=(7, 5), memory_bytes=15360 << 20, driver="580.82.07")
P100 = Gpu(name="Tesla P100-PCIE-16GB", capability=(6, 0), memory_bytes=16384 << 20, driver="580.82.07")
A100 = Gpu(name="NVIDIA A100", capability=(8, 0), memory_bytes=40960 << 20, driver="580.82.07")


HEALTHY = SystemFacts(
    python=(3, 11, 7),
    platform="Linux x86_64",
    cpu_cores=4,
    memory_bytes=30 << 30,
    folder=Path("/trabalho"),
    folder_writable=True,
    disk_free_bytes=60 * 10**9,
    packages={name: None if name == "onnxruntime-gpu" else "99.0" for name in PACKAGES},
    floors=required_versions(),
    providers=("CPUExecutionProvider",),
)


@pytest.fixture
def machine() -> Callable[..., SystemFacts]:
    """A healthy CPU machine with some facts changed; `packages` is merged, None takes one away."""

    def build(*, packages: dict[str, str | None] | None = None, **changes: Any) -> SystemFacts:
        return replace(HEALTHY, packages={**HEALTHY.packages, **(packages or {})}, **changes)

    return build


def found(findings: list[Finding], topic: str) -> Finding:
    return next(finding for finding in findings if finding.topic == topic)


def test_a_healthy_cpu_machine_has_nothing_to_fix(machine):
    findings = diagnose(machine())
    assert {finding.status for finding in findings} == {"ok"}
    assert "fp32" in found(findings, "precision").message


def test_two_t4s_train_together_in_fp16(machine):
    facts = machine(gpus=(T4, T4), torch=BUILD)
    findings = diagnose(facts)
    assert training_device(facts) == "cuda"
    precision = found(findings, "precision")
    assert precision.status == "ok" and "em fp16" in precision.message and "GradScaler" in precision.message
    assert "todas juntas" in found(findings, "gpu_count").message


def test_a_p100_is_a_problem_that_names_the_t4(machine):
    findings = diagnose(machine(gpus=(P100,), torch=BUILD))
    problem = found(findings, "torch_gpu")
    assert problem.status == "problem" and "sm_60" in problem.message and "T4" in problem.fix
    assert not problem.blocking  # the CPU still works


def test_a_p100_stays_a_problem_with_an_old_torch_that_has_its_kernels(machine):
    old = TorchBuild(cuda="11.8", sees_gpu=True, archs=("sm_50", "sm_60", "sm_70"))
    problem = found(diagnose(machine(gpus=(P100,), torch=old)), "torch_gpu")
    assert problem.status == "problem" and "T4" in problem.fix


def test_an_a100_trains_in_bf16(machine):
    precision = found(diagnose(machine(gpus=(A100,), torch=BUILD)), "precision")
    assert "em bf16" in precision.message


@pytest.mark.parametrize(
    ("archs", "capability", "expected"),
    [
        (CU128, (7, 5), True),
        (CU128, (6, 0), False),
        (CU128, (8, 9), True),  # kernels of 8.0 run on 8.9
        (("sm_80",), (9, 0), False),  # but not across a major version
        (("sm_80", "compute_80"), (9, 0), True),  # where PTX does
        (("sm_90a",), (9, 0), True),
        ((), (7, 5), False),
    ],
)
def test_kernels_run_within_a_major_version_and_ptx_on_later_cards(archs, capability, expected):
    assert runs_on(TorchBuild(cuda="12.8", sees_gpu=True, archs=archs), capability) is expected


def test_a_cpu_build_of_torch_beside_a_gpu_is_told(machine):
    facts = machine(gpus=(T4,), torch=TorchBuild(cuda=None, sees_gpu=False, archs=()))
    findings = diagnose(facts)
    assert found(findings, "torch_gpu").status == "warning"
    assert "no processador" in found(findings, "precision").message and training_device(facts) == "cpu"


def test_a_driver_too_old_for_torch_is_a_problem(machine):
    facts = machine(gpus=(T4,), torch=TorchBuild(cuda="13.0", sees_gpu=False, archs=()))
    assert "driver" in found(diagnose(facts), "torch_gpu").fix


@pytest.mark.parametrize(
    ("driver", "reason", "cuda", "cure"),
    [
        ("470.57.02", "The NVIDIA driver on your system is too old (found version 11040)", "12.8", "525"),
        ("550.54.14", "The NVIDIA driver on your system is too old (found version 12040)", "13.0", "cu126"),
        ("550.54.14", "", "13.0", "cu126"),
    ],
)
def test_a_driver_too_old_is_named_with_its_cuda_and_what_runs_on_it(machine, driver, reason, cuda, cure):
    build = TorchBuild(cuda=cuda, sees_gpu=False, archs=(), reason=reason, version=f"2.13.0+cu{cuda}")
    findings = diagnose(machine(gpus=(replace(T4, driver=driver),), torch=build))
    problem = found(findings, "torch_gpu")
    assert problem.status == "problem" and driver in problem.message and "antigo demais" in problem.message
    assert cure in problem.fix and "não começa" in found(findings, "precision").message


def test_a_driver_that_is_new_enough_gets_pytorchs_own_words(machine):
    build = TorchBuild(cuda="12.8", sees_gpu=False, archs=(), reason="CUDA unknown error")
    problem = found(diagnose(machine(gpus=(T4,), torch=build)), "torch_gpu")
    assert "CUDA unknown error" in problem.message and "antigo" not in problem.message


@pytest.mark.parametrize(("visible", "status"), [("", "warning"), ("-1", "warning"), ("1", "problem")])
def test_cards_that_a_variable_hides_are_not_the_drivers_fault(machine, visible, status):
    build = TorchBuild(cuda="12.8", sees_gpu=False, archs=())
    told = found(diagnose(machine(gpus=(T4,), torch=build, visible=visible)), "torch_gpu")
    assert told.status == status and "CUDA_VISIBLE_DEVICES" in told.message and "unset" in told.fix


def test_of_two_cards_the_one_without_kernels_is_left_out_by_name(machine):
    findings = diagnose(machine(gpus=(T4, P100), torch=BUILD))
    problem = found(findings, "torch_gpu")
    assert "sm_60" in problem.message and "CUDA_VISIBLE_DEVICES=0;" in problem.fix
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in problem.fix  # nvidia-smi's order is not CUDA's own
    assert "precision" not in {finding.topic for finding in findings}  # with both, train would refuse
    hidden = diagnose(machine(gpus=(T4, P100), torch=BUILD, visible="0"))
    assert "torch_gpu" not in {finding.topic for finding in hidden}
    assert "em fp16" in found(hidden, "precision").message


def test_both_onnxruntimes_at_once_are_a_problem_with_its_cure(machine):
    both = {"onnxruntime-gpu": "1.31.1"}
    problem = found(diagnose(machine(packages=both)), "onnxruntime")
    assert problem.status == "problem" and "o de processador ficou por cima" in problem.message
    assert problem.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && ")
    assert '"ptbr-slm[cpu]"' in problem.fix
    providers = ("CUDAExecutionProvider", "CPUExecutionProvider")
    facts = machine(packages=both, gpus=(T4,), torch=BUILD, providers=providers)
    problem = found(diagnose(facts), "onnxruntime")
    assert "o de GPU ficou por cima" in problem.message and '"ptbr-slm[gpu]"' in problem.fix


def test_a_driver_too_old_for_onnxruntime_gets_the_one_that_it_runs(machine):
    from ptbr_slm.runtime.engines.onnx.providers.gpu_libraries import explain_cuda_error

    fault = explain_cuda_error(
        "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "13.0"
    )
    facts = machine(
        gpus=(replace(T4, driver="550.54.14"),),
        torch=BUILD,
        packages={"onnxruntime": None, "onnxruntime-gpu": "1.31.1"},
        providers=("CUDAExecutionProvider", "CPUExecutionProvider"),
        provider_faults={"CUDAExecutionProvider": fault},
    )
    problem = found(diagnose(facts), "onnxruntime_cuda")
    assert "antigo demais" in problem.message and "onnxruntime-gpu[cuda,cudnn]==1.26.0" in problem.fix
    older = found(diagnose(replace(facts, gpus=(replace(T4, driver="470.57"),))), "onnxruntime_cuda")
    assert "1.26.0" not in older.fix and "580" in older.fix


def test_only_the_gpu_onnxruntime_is_fine(machine):
    facts = machine(packages={"onnxruntime": None, "onnxruntime-gpu": "1.31.1"})
    assert found(diagnose(facts), "onnxruntime").status == "ok"


def test_a_missing_extra_says_which_to_install(machine):
    findings = diagnose(machine(packages={"torch": None, "gradio": None}))
    assert found(findings, "extra_train").fix == 'pip install "ptbr-slm[train]"'
    assert found(findings, "extra_app").fix == 'pip install "ptbr-slm[app]"'
    assert not any(finding.blocking for finding in findings)


@pytest.mark.parametrize(
    "changes",
    [
        {"python": (3, 9, 1)},
        {"packages": {"torch": None, "onnxruntime": None}},
        {"packages": {"tokenizers": None}},
        {"packages": {"torch": None}, "failures": {"onnxruntime": "ImportError: libgomp.so.1"}},
    ],
)
def test_what_blocks_even_the_cpu_is_blocking(machine, changes):
    blocking = [finding for finding in diagnose(machine(**changes)) if finding.blocking]
    assert blocking and all(finding.status == "problem" and finding.fix for finding in blocking)


def test_an_old_package_is_a_warning_with_its_floor(machine):
    warning = found(diagnose(machine(packages={"torch": "2.4.1+cu121"})), "version")
    assert warning.status == "warning" and "torch>=2.10" in warning.fix


def test_little_disk_little_memory_and_a_read_only_folder_are_told(machine):
    findings = diagnose(machine(disk_free_bytes=10**8, memory_bytes=2 << 30, folder_writable=False))
    assert found(findings, "disk").status == "problem"
    assert found(findings, "cpu").status == "warning"
    assert found(findings, "folder").fix == "cd ~"


def test_kaggle_without_gpu_and_in_the_input_folder_gets_its_own_advice(machine):
    session = Kaggle(run_type="Interactive", working_free_bytes=20 * 10**9)
    findings = diagnose(machine(kaggle=session, folder_writable=False))
    assert "T4 x2" in found(findings, "gpu").fix
    assert found(findings, "folder").fix == "cd /kaggle/working"
    assert "--max-time 11h30m" in found(findings, "kaggle").message


def test_a_cuda_provider_that_does_not_open_names_what_is_missing_and_what_to_install(machine):
    gpu = {"onnxruntime": None, "onnxruntime-gpu": "1.31.1"}
    providers = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    faults = {"CUDAExecutionProvider": "faltam libcublas.so.13, libcudart.so.13"}
    facts = machine(gpus=(T4,), torch=BUILD, packages=gpu, providers=providers, provider_faults=faults)
    problem = found(diagnose(facts), "onnxruntime_cuda")
    assert problem.status == "problem" and "libcublas.so.13" in problem.message
    assert "onnxruntime-gpu[cuda,cudnn]==1.31.1" in problem.fix
    faults = {"CUDAExecutionProvider": "faltam libcuda.so.1"}
    without = found(diagnose(replace(facts, gpus=(), provider_faults=faults)), "onnxruntime_cuda")
    assert without.status == "warning" and "ptbr-slm[cpu]" in without.fix
    faults = {"TensorrtExecutionProvider": "este export precisa do TensorRT 10, e falta libnvinfer.so.10"}
    optional = found(diagnose(replace(facts, provider_faults=faults)), "onnxruntime_tensorrt")
    assert optional.status == "ok" and "libnvinfer.so.10" in optional.message
    topics = {finding.topic for finding in diagnose(replace(facts, provider_faults={}))}
    assert not topics & {"onnxruntime_cuda", "onnxruntime_tensorrt"}


def test_a_card_beside_the_processors_onnxruntime_is_told(machine):
    told = found(diagnose(machine(gpus=(T4,), torch=BUILD)), "onnxruntime_cuda")
    assert told.status == "warning" and "onnxruntime-gpu" in told.fix


def test_every_warning_and_problem_says_what_to_do(machine):
    sick = machine(
        python=(3, 8, 0),
        memory_bytes=1 << 30,
        disk_free_bytes=0,
        folder_writable=False,
        gpus=(P100,),
        torch=BUILD,
        kaggle=Kaggle(run_type="Batch", working_free_bytes=None),
        packages={"onnxruntime": None, "onnx": None, "gradio": "4.0"},
    )
    for finding in diagnose(sick):
        assert bool(finding.fix) == (finding.status != "ok"), finding


def test_the_drivers_line_becomes_a_card():
    assert parse_gpu("Tesla T4, 7.5, 15360, 580.82.07") == T4
    old = parse_gpu("Tesla K80, [N/A], 11441, 470.1")
    assert old is not None and old.capability is None
    assert parse_gpu("No devices were found") is None
    more = parse_gpu("Tesla T4, 7.5, 15360, 580.82.07, 14913, GPU-c8a4f2d1")
    assert more is not None and (more.free_bytes, more.uuid) == (14913 << 20, "c8a4f2d1")


def test_the_words_with_which_pytorch_refuses_are_kept(monkeypatch):
    torch = pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")

    def refuse():
        raise RuntimeError(
            "The NVIDIA driver on your system is too old (found version 11040). Please update."
        )

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    build = torch_build({})
    assert build is not None and build.reason.endswith("(found version 11040)") and not build.sees_gpu


def test_kaggle_is_told_from_its_variable_and_folder(tmp_path):
    assert kaggle_session({}, tmp_path) is None
    (tmp_path / "working").mkdir()
    session = kaggle_session({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, tmp_path)
    assert session is not None and session.run_type == "Batch" and session.working_free_bytes


def test_doctor_runs_here_and_json_agrees_with_the_text(cli):
    done = cli("doctor")
    assert done.returncode == 0, done.stderr
    assert "Python 3." in done.stdout and "precis" not in done.stderr
    data = json.loads(cli("doctor", "--json").stdout)
    assert data["usable"] and {"python", "cpu", "precision", "disk"} <= {f["topic"] for f in data["findings"]}


def test_doctor_costs_less_than_three_seconds_without_a_gpu(cli):
    """Of processor time: the machine that runs the tests is shared."""
    before = os.times()
    cli("doctor", env={"PATH": "/nonexistent"}, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 3


def test_a_card_that_torch_cannot_see_is_reported_by_the_real_command(cli, tmp_path):
    """A driver's tool that lists a T4, on a machine whose torch has no CUDA."""
    torch = pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")
    if torch.version.cuda is not None:
        pytest.skip("este PyTorch tem CUDA; o teste precisa do de processador")
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'Tesla T4, 7.5, 15360, 580.82.07'\n")
    tool.chmod(0o755)
    done = cli("doctor", env={"PATH": f"{tool.parent}:{os.environ['PATH']}"})
    assert done.returncode == 0 and "Tesla T4, sm_75" in done.stdout
    assert "só para processador" in done.stdout


def test_doctor_needs_no_torch(tmp_path: Path):
    """With torch and onnxruntime hidden: the advice, and no traceback."""
    code = (
        "import sys, importlib.util, importlib.metadata as m\n"
        "hidden = {'torch', 'onnxruntime'}\n"
        "find, version = importlib.util.find_spec, m.version\n"
        "def no(name):\n"
        "    if name in hidden: raise m.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "importlib.util.find_spec = lambda n, p=None: None if n in hidden else find(n, p)\n"
        "m.version = no\n"
        "sys.argv = ['ptbr-slm', 'doctor']\n"
        "from ptbr_slm.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as e: assert e.code == 1, e.code\n"
        "assert 'torch' not in sys.modules and 'onnxruntime' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert 'pip install "ptbr-slm[cpu]"' in done.stdout and "Traceback" not in done.stderr
