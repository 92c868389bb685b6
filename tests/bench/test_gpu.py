"""`bench gpu`: real processes shrunk to a CPU, faults that leave their line, checks that can fail."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from ptbr_slm.bench import t4_rules
from ptbr_slm.bench.gpu import check as gpu_check
from ptbr_slm.bench.gpu import gpu_tests, page
from ptbr_slm.bench.gpu.check import NAMES, SECTIONS, GpuCheck, limit
from ptbr_slm.bench.gpu.results import Answer, SectionRequest, SectionResult, explain
from ptbr_slm.bench.gpu.wheels import Wheels, open_wheels
from ptbr_slm.bench.process import run_module
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.train.planning.memory import T4_BYTES

torch = pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")

ROOT = Path(__file__).resolve().parents[2]


def asked(section: str = "amp", **facts: str) -> SectionRequest:
    """A section's question; its minute begins now."""
    return SectionRequest(section=section, device="cpu", cards=0, smoke=True, limit_s=60, **facts)


GIB = 1 << 30


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_a_section_that_dies_leaves_its_reason_and_the_others_their_figures(cli, tmp_path) -> None:
    faulty = {"PTBR_SLM_FAULT": "kill@bench.amp;error@bench.memory", "OMP_NUM_THREADS": "1"}
    done = cli("bench", "gpu", "--smoke", "--sections", "graphs,amp,gemm,memory", "-o", "saida", "--json",
               env=faulty)  # fmt: skip
    assert done.returncode == Exit.ERROR, done.stderr
    assert done.stderr.startswith(page.SMOKE)
    body = json.loads(done.stdout)
    assert body == json.loads((tmp_path / "saida" / "gpu.json").read_text(encoding="utf-8"))
    assert body["schema"] == 1 and body["smoke"] and body["finished"]
    found = {section["name"]: section for section in body["sections"]}
    assert list(found) == ["machine", "gemm", "amp", "memory", "graphs"]  # in their order, with the machine
    assert found["amp"]["status"] == "oom" and "encerrou" in found["amp"]["reason"]
    assert found["memory"]["status"] == "error" and "fault injected" in found["memory"]["reason"]
    assert found["gemm"]["status"] == "ok"
    figures = {line["name"]: line["figures"] for line in found["gemm"]["lines"]}
    assert figures["gemm fp32"]["flops"] > 1e8 and figures["read"]["bytes_per_second"] > 1e8
    assert {failure.partition(":")[0] for failure in body["failures"]} == {"amp", "memory"}
    if not torch.cuda.is_available():  # nothing measured, no figure: neither passed nor failed
        assert found["graphs"]["status"] == "absent"
        assert {check["passed"] for check in found["gemm"]["checks"]} == {None}
    text = (tmp_path / "saida" / "gpu.md").read_text(encoding="utf-8")
    assert text.splitlines()[0] == page.SMOKE and "| amp | sem memória |" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="nesta máquina há uma GPU")
def test_without_a_card_it_is_refused_with_the_way_to_try_it(run) -> None:
    done = run("bench", "gpu")
    assert done.returncode == Exit.ERROR and "E_PROVIDER" in done.stderr and "--smoke" in done.stderr


@pytest.mark.parametrize("arguments", [("--sections", "gem"), ("--sections", ","), ("--minutes", "0")])
def test_nonsense_is_a_usage_error(run, arguments) -> None:
    done = run("bench", "gpu", *arguments)
    assert done.returncode == Exit.USAGE and "E_USAGE" in done.stderr


def test_fp16_and_fp32_agree_and_a_run_that_trains_otherwise_fails(monkeypatch) -> None:
    from ptbr_slm import faults
    from ptbr_slm.bench.gpu.agreement import measure_amp

    for fault, expected in (("", True), ("rate@bench.amp.rate", False)):
        faults.reset()
        monkeypatch.setenv(faults.VARIABLE, fault)
        answer = Answer()
        measure_amp(asked(), answer)
        found = {check.name: check for check in answer.checks}
        assert found["difference"].passed is expected, found["difference"]
        assert found["learned"].passed and found["finite"].passed
        assert answer.facts["amp"]["final_scale"] == 65_536


def test_skipped_steps_are_left_out_of_the_fp32_run_and_too_many_of_them_fail() -> None:
    from ptbr_slm.bench.gpu.agreement import LossCurve, compare

    losses: list[float | None] = [6.0 - 0.1 * step for step in range(30)]
    exact = LossCurve(losses=losses, applied=[True] * 30, scales=[None] * 30)
    half = LossCurve(losses=[None] * 8 + losses[8:], applied=[False] * 8 + [True] * 22, scales=[256.0] * 30)
    answer = Answer()
    compare(exact, half, answer)
    found = {check.name: check for check in answer.checks}
    assert half.skipped == tuple(range(1, 9)) and found["skipped"].passed is False
    assert found["finite"].passed is True  # those steps were not applied


def test_a_check_passes_fails_or_was_not_measured() -> None:
    answer = Answer()
    for value in (0.05, 0.2, math.nan, None):
        answer.check("x", "x", value, low=-0.1, high=0.1)
    assert [check.passed for check in answer.checks] == [True, False, False, None]
    again = Answer.from_json(json.loads(json.dumps(answer.to_json(), allow_nan=False)))
    assert [check.passed for check in again.checks] == [True, False, False, None]


def test_a_memory_error_beyond_ten_percent_fails_whichever_way() -> None:
    from ptbr_slm.bench.gpu.training import MEMORY_TOLERANCE, SMOKE, _add_peak

    for predicted, passed in ((95, True), (85, False), (115, False)):
        answer, errors = Answer(), []
        _add_peak(answer, SMOKE[0], {"predicted_bytes": predicted * GIB, "peak_bytes": 100 * GIB}, errors)
        answer.check("worst", "", errors[0], low=-MEMORY_TOLERANCE, high=MEMORY_TOLERANCE)
        assert answer.checks[0].passed is passed


def test_losses_of_two_cards_that_differ_are_seen() -> None:
    from ptbr_slm.bench.gpu.agreement import RANKS_TOLERANCE, largest_difference

    assert largest_difference([2.0, 1.0], [2.0, 1.005]) < RANKS_TOLERANCE < largest_difference([2.0], [2.1])
    assert math.isnan(largest_difference([2.0, None], [2.0, 1.0]))
    assert largest_difference([2.0, None], [2.0, None]) == 0  # both skipped it


def test_what_goes_wrong_is_named_as_what_it_is() -> None:
    assert explain(ModuleNotFoundError("x", name="onnx_ir.passes"))[0] == "absent"
    assert explain(torch.OutOfMemoryError("CUDA out of memory. Tried"))[0] == "oom"
    assert explain(SlmError("E_MEMORY", "não cabe", where="", hint=""))[0] == "oom"
    assert explain(RuntimeError("CUDA error: misaligned")) == (
        "error",
        "RuntimeError: CUDA error: misaligned",
    )


HANGING = """
import json, subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
Path(sys.argv[2]).write_text(json.dumps({"pid": child.pid}))
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc só existe no Linux")
def test_a_section_that_hangs_is_ended_with_all_that_it_started_and_keeps_its_lines(tmp_path) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    began = time.monotonic()
    ended = run_module("hanging", {}, 2.0, {"PYTHONPATH": str(tmp_path)})
    assert ended.code is None and time.monotonic() - began < 20
    status = Path(f"/proc/{ended.answer['pid']}/status")
    for _ in range(50):
        if not status.exists() or "State:\tZ" in status.read_text():
            return
        time.sleep(0.1)
    pytest.fail("o processo que a seção iniciou continua vivo")


def test_the_time_of_a_section_that_hung_is_told(monkeypatch) -> None:
    answer = Answer()
    answer.line("gemm fp16", flops=1e13)
    ended = SimpleNamespace(answer=answer.to_json(), code=None, errors="")
    monkeypatch.setattr(gpu_check, "run_module", lambda *arguments: ended)
    result = gpu_check._run_section(SECTIONS[1], 60.0, {}, Wheels(), True, "")
    assert result.status == "time" and "60 s" in result.reason and result.answer.lines == answer.lines


@pytest.mark.parametrize("minutes", [2.0, 10.0, 20.0])
def test_the_limits_keep_to_the_minutes_and_leave_each_section_its_least(minutes) -> None:
    left = 60 * minutes
    for index, section in enumerate(SECTIONS):  # the worst case: every section takes all that it may
        seconds = limit(section, SECTIONS[index + 1 :], left, minutes)
        assert seconds >= 0.99 * section.least_s * minutes / 10
        left -= seconds
    assert left >= -1e-6


# T4 rules


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch):
    """`torch.cuda` with a card of this name; what was asked of it is in `asked`."""
    asked: dict[str, object] = {}
    cuda = torch.backends.cuda
    before = cuda.flash_sdp_enabled(), cuda.cudnn_sdp_enabled(), cuda.matmul.allow_tf32

    def has(name: str, gib: int) -> dict[str, object]:
        properties = SimpleNamespace(total_memory=gib * GIB)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: properties)
        monkeypatch.setattr(
            torch.cuda, "set_per_process_memory_fraction",
            lambda fraction, device=None: asked.update(fraction=fraction, device=device),
        )  # fmt: skip
        return asked

    yield has
    cuda.enable_flash_sdp(before[0])
    cuda.enable_cudnn_sdp(before[1])
    cuda.matmul.allow_tf32 = before[2]


def test_a_larger_card_is_kept_to_what_a_t4_can(card) -> None:
    asked = card("NVIDIA A100-SXM4-80GB", 80)
    torch.backends.cuda.matmul.allow_tf32 = True
    rules = t4_rules.apply(1)
    assert rules.in_force and rules.precision == "fp16" and rules.memory_limit == T4_BYTES
    assert not torch.backends.cuda.flash_sdp_enabled() and not torch.backends.cuda.cudnn_sdp_enabled()
    assert not torch.backends.cuda.matmul.allow_tf32 and rules.sdpa_kernel == "efficient"
    assert asked["device"] == 1
    assert asked["fraction"] == pytest.approx(14.0 / 80, rel=1e-3)
    assert "A100" in rules.sentence() and "não é uma T4" in rules.sentence()


def test_nothing_is_taken_from_a_t4_and_nothing_said_of_a_cpu(card, monkeypatch) -> None:
    asked = card("Tesla T4", 15)
    rules = t4_rules.apply()
    assert not rules.in_force and rules.memory_limit is None and not asked and rules.sdpa_kernel == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert t4_rules.apply().precision == "auto"


def test_the_planner_plans_a_large_card_as_a_t4(monkeypatch, tmp_path) -> None:
    from ptbr_slm.bench.synthetic import invented_tokenizer
    from ptbr_slm.bench.train import Case
    from ptbr_slm.bench.train_measure import config_of
    from ptbr_slm.train.planning import plan
    from ptbr_slm.train.planning.choice import Machine
    from ptbr_slm.train.planning.speed import T4, gpu_speed

    large = Machine(kind="cuda", memory_bytes=80 * GIB, device=gpu_speed(T4, "fp16"))
    monkeypatch.setattr(plan, "choose_device", lambda *arguments: (torch.device("cuda", 0), (8, 0), []))
    monkeypatch.setattr(plan, "_machine", lambda *arguments: (large, []))
    rules = t4_rules.Rules(card="A100", in_force=True, precision="fp16", memory_limit=T4_BYTES)
    case = Case(size="800m", label="", device="cuda", seq_len=1024, seconds=1)
    made = plan.make_plan(
        config_of(case, tmp_path, rules), invented_tokenizer(32_000), memory_limit=rules.memory_limit
    )
    assert made.precision.name == "fp16" and made.machine.memory_bytes == T4_BYTES
    assert made.memory.total < T4_BYTES


# Wheels


def wheel(folder: Path, name: str) -> Path:
    """A wheel with one module in it."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("carried/__init__.py", "VALUE = 7\n" + "# long\n" * 2000)
        archive.writestr("nvidia/cublas/lib/libcublas.so.12", "")
    return path


def test_a_wheel_in_pieces_is_joined_unpacked_and_importable(tmp_path) -> None:
    whole = wheel(tmp_path / "w", "onnxruntime_gpu-1.31.1-py3-none-any.whl")
    subprocess.run(["split", "-b", "300", "-d", "-a", "3", whole.name, f"{whole.name}.part-"],
                   cwd=whole.parent, check=True)  # fmt: skip
    whole.unlink()
    assert len(list(whole.parent.iterdir())) > 1
    with open_wheels(tmp_path / "w") as carried:
        assert carried.summary == whole.name
        code = "import carried; print(carried.VALUE)"
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **carried.environment},
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert done.stdout == "7\n"
        unpacked = Path(carried.environment["PYTHONPATH"].split(os.pathsep)[0])
        assert str(unpacked / "nvidia/cublas/lib") in carried.environment["LD_LIBRARY_PATH"]
    assert not unpacked.exists()


def test_a_wheel_that_lacks_a_piece_or_is_for_another_python_is_left_out_by_name(tmp_path) -> None:
    folder = tmp_path / "w"
    whole = wheel(folder, "onnxruntime_gpu-1.31.1-py3-none-any.whl")
    (folder / f"{whole.name}.part-000").write_bytes(whole.read_bytes()[:200])
    whole.unlink()
    wheel(folder, "onnx-1.23.2-cp39-cp39-manylinux_2_28_x86_64.whl")
    with open_wheels(folder) as carried:
        assert not carried.environment
        assert "não está inteiro" in carried.summary and "é para cp39" in carried.summary
    with pytest.raises(SlmError, match="E_NOT_FOUND"), open_wheels(tmp_path / "nada"):
        pass


# The page


def test_the_page_has_a_table_for_every_section_and_shows_no_figure_that_was_not_measured() -> None:
    assert set(page.TABLES) == set(NAMES)
    check = GpuCheck(machine=gpu_check.machine("cpu"), smoke=False, minutes=10.0)
    for section in SECTIONS:
        answer = Answer()
        for columns in page.TABLES[section.name]:
            answer.line(f"{section.name} medido", **{columns[0][0]: 0.25})
        answer.missing(f"{section.name} falta", "absent", "a|razão")
        answer.check("x", "vale", 0.5, high=0.1)
        check.sections.append(SectionResult(name=section.name, status="failed", reason="x", answer=answer))
    text = page.markdown(check)
    assert "Ainda não terminou" in text and "0,5 | até 0,1 | FALHOU" in text and "a\\|razão" in text
    for section in SECTIONS:
        assert f"{section.title} ({section.name})" in text and f"| {section.name} medido |" in text
        assert f"{section.name} falta | sem medida" in text
    assert len(check.failures) == len(SECTIONS)
    assert "vale | – | até 0,1 | sem medida" in page.markdown(_unmeasured())


def _unmeasured() -> GpuCheck:
    answer = Answer()
    answer.check("x", "vale", None, high=0.1)
    return GpuCheck(machine=gpu_check.machine("cpu"), smoke=False, minutes=1,
                    sections=[SectionResult(name="amp", status="absent", answer=answer)])  # fmt: skip


def test_a_line_that_failed_is_a_failure_of_the_check() -> None:
    check = _unmeasured()
    check.sections[0].answer.missing("800m", "oom", "a memória acabou")
    check.sections[0].answer.missing("400m", "skipped", "não coube")
    assert check.failures == ["amp, 800m: a memória acabou"]


# Tests and exports


PYTEST = """\
tests/train/test_gpu.py::test_a[fp16-x y] PASSED                 [ 25%]
tests/train/test_gpu.py::test_b FAILED                           [ 50%]
tests/train/test_gpu.py::test_c SKIPPED (precisa de duas GPUs)   [ 75%]
____________________ ERROR collecting tests/runtime/test_gpu.py ____________________
tests/runtime/test_gpu.py:9: in <module>
E   ModuleNotFoundError: No module named 'onnxruntime'
SKIPPED [1] tests/train/test_gpu.py:9: precisa de duas GPUs
FAILED tests/train/test_gpu.py::test_b - assert 0.3 < 0.15
ERROR tests/runtime/test_gpu.py
"""


def test_what_pytest_says_becomes_counts_and_first_lines() -> None:
    answer = Answer()
    gpu_tests.add_results(answer, PYTEST, finished=False, seconds=3.0)
    lines = {line.name: line for line in answer.lines}
    assert lines["pytest"].figures | {"seconds": 3.0} == {
        "passed": 1, "failed": 1, "skipped": 1, "seconds": 3.0, "finished": False,
    }  # fmt: skip
    assert lines["tests/train/test_gpu.py::test_b"].reason == "assert 0.3 < 0.15"
    assert lines["tests/runtime/test_gpu.py"].status == "absent"
    assert answer.checks[0].passed is False and any("tempo acabou" in note for note in answer.notes)


def test_the_checkouts_gpu_tests_are_found_by_their_mark() -> None:
    names = {path.relative_to(ROOT / "tests").as_posix() for path in gpu_tests.test_files(ROOT / "tests")}
    assert {"train/test_gpu.py", "runtime/test_gpu.py"} <= names


def test_without_the_export_packages_the_section_says_what_to_carry(monkeypatch) -> None:
    from ptbr_slm.bench.gpu import exports

    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: None)
    answer = Answer()
    exports.measure_exports(asked("onnx", exporter="x"), answer)
    (line,) = answer.lines
    assert line.status == "absent" and "onnx_ir" in line.reason and "--wheels" in line.reason


def test_exports_are_checked_and_a_wrong_answer_fails(monkeypatch) -> None:
    pytest.importorskip("onnxruntime", reason="falta o onnxruntime: pip install 'ptbr-slm[cpu]'")
    pytest.importorskip("onnx_ir", reason="falta o onnx-ir: pip install 'ptbr-slm[export]'")
    from ptbr_slm import faults
    from ptbr_slm.bench.gpu import exports

    faults.reset()
    monkeypatch.setenv(faults.VARIABLE, "wrong@bench.onnx.verify:2")
    answer = Answer()
    exports.measure_exports(asked("onnx", exporter="ptbr_slm.cli.bench"), answer)
    assert [check.passed for check in answer.checks] == [True, False]
    lines = {line.name: line for line in answer.lines}
    assert lines["verify nano fp16"].figures["cosine"] > 0.999
    assert lines["nano int8, no processador"].figures["decode_tokens_per_second"] > 0
    assert lines["85m fp16"].status == "absent"


# The script


def test_the_script_runs_from_any_folder_with_nothing_installed_and_passes_its_arguments_on(tmp_path) -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "gpu_check.sh"), "--smoke", "--sections", "machine", "-o", "a b"],
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
        env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(page.SMOKE) and (tmp_path / "a b" / "gpu.md").exists()


def test_the_script_names_what_its_python_lacks(tmp_path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/usr/bin/env bash\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "gpu_check.sh"), "--smoke"],
        capture_output=True, text=True, env={**os.environ, "PYTHON": str(bare)},
    )  # fmt: skip
    assert done.returncode == 1 and "faltam pacotes" in done.stderr and "torch" in done.stderr
