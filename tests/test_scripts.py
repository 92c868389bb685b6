"""The scripts of the seed documents explain themselves, refuse nonsense, and call the commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SHELL = sorted(SCRIPTS.glob("*.sh"))

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Run a script with bash in an empty folder, with this Python."""

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(SCRIPTS / name), *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=240,
            env={**os.environ, "PYTHON": sys.executable, "COLUMNS": "100", **environment},
        )

    return run


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_a_script_stops_at_the_first_error_and_explains_itself_in_portuguese(path, script, tmp_path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text
    assert os.access(path, os.X_OK)
    done = script(path.name, "--help")
    assert done.returncode == 0 and done.stdout.startswith(f"Uso: bash scripts/{path.name}")
    assert not list(tmp_path.iterdir())  # help writes nothing


@pytest.mark.parametrize("path", SHELL, ids=lambda path: path.name)
def test_an_unknown_option_is_a_usage_error(path, script):
    done = script(path.name, "--nao-existe")
    assert done.returncode == 2 and "Erro: não conheço a opção --nao-existe" in done.stderr


def test_vram_of_a_machine_without_a_card_is_that_of_a_t4(script):
    empty = script("check_vram_requirements.sh", "400m", PATH="/usr/bin:/bin")
    assert empty.returncode == 0, empty.stderr
    assert "contra uma T4" in empty.stdout and "Modelo 400m" in empty.stdout and "14,56 GiB" in empty.stdout


def test_vram_of_the_card_that_the_driver_lists(script, tmp_path):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 3050, 8192'\n")
    tool.chmod(0o755)
    done = script("check_vram_requirements.sh", "800m", PATH=f"{tool.parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert "RTX 3050, 7,76 GiB" in done.stdout and "7,76 GiB visíveis" in done.stdout
    assert " não\n" in done.stdout and " sim\n" not in done.stdout


@pytest.fixture
def bare_system(tmp_path: Path) -> Path:
    """A folder of programs with neither a browser nor a package manager; one is not root there."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "cat"):
        (programs / name).symlink_to(shutil.which(name))
    write_program(programs / "id", "echo 1000")
    return programs


def write_program(path: Path, command: str) -> None:
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)


def test_chromium_that_cannot_be_installed_is_told_and_stops_nothing(script, bare_system):
    done = script("install_chromium.sh", PATH=str(bare_system))
    assert done.returncode == 0 and "serão pulados" in done.stderr and "sudo apt-get" in done.stderr


def test_chromium_is_installed_where_no_password_is_asked(script, bare_system, tmp_path):
    write_program(bare_system / "apt-get", f'echo "$*" >>"{tmp_path}/apt.log"')
    write_program(bare_system / "sudo", "exit 1")
    asked = script("install_chromium.sh", PATH=str(bare_system))
    assert "serão pulados" in asked.stderr and not (tmp_path / "apt.log").exists()
    write_program(bare_system / "sudo", 'shift; exec "$@"')
    write_program(bare_system / "true", "exit 0")
    done = script("install_chromium.sh", PATH=str(bare_system))
    assert done.returncode == 0 and not done.stderr
    assert (tmp_path / "apt.log").read_text().splitlines()[-1].endswith("--no-install-recommends chromium")


def test_a_browser_that_is_there_is_left_alone(script, bare_system):
    write_program(bare_system / "google-chrome", "exit 1")
    done = script("install_chromium.sh", PATH=str(bare_system))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def recording_python(tmp_path: Path) -> Path:
    """A Python that notes calls of pip and passes everything else on."""
    fake = tmp_path / "python"
    fake.write_text(
        "#!/usr/bin/env bash\n"
        'if [[ "$1 $2" == "-m pip" ]]; then\n'
        f'  echo "$*" >>"{tmp_path}/pip.log"\n'
        '  while (($#)); do if [[ "$1" == -c ]]; then cat "$2" >>"'
        + str(tmp_path)
        + '/pip.log"; fi; shift; done\n'
        "  exit 0\n"
        "fi\n"
        f'exec "{sys.executable}" "$@"\n'
    )
    fake.chmod(0o755)
    return fake


def test_kaggle_setup_keeps_the_torch_that_is_there_and_ends_with_doctor(script, recording_python, tmp_path):
    torch = pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")
    done = script("kaggle_setup.sh", PYTHON=str(recording_python))
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "pip.log").read_text()
    assert (
        "[cpu,train,export,app]" in log and f"torch=={torch.__version__}" in log and "--no-index" not in log
    )
    assert "Python 3." in done.stdout  # doctor's report


def test_kaggle_setup_offline_installs_from_the_wheels_alone(script, recording_python, tmp_path):
    wheels = tmp_path / "minhas rodas"
    wheels.mkdir()
    done = script("kaggle_setup.sh", "--wheels", str(wheels), PYTHON=str(recording_python))
    assert done.returncode == 0, done.stderr
    assert f"--no-index --find-links {wheels}" in (tmp_path / "pip.log").read_text()


def test_kaggle_setup_names_a_wheels_folder_that_is_not_there(script):
    done = script("kaggle_setup.sh", "--wheels", "/kaggle/input/nada")
    assert done.returncode == 1 and "a pasta de wheels não existe" in done.stderr


@pytest.mark.slow
def test_the_cpu_exercise_goes_the_whole_way_with_a_small_model(script, tmp_path):
    pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")
    pytest.importorskip("onnxruntime", reason="falta o ONNX Runtime: pip install 'ptbr-slm[cpu]'")
    pytest.importorskip("onnx_ir", reason="falta o onnx-ir: pip install 'ptbr-slm[export]'")
    done = script("build_test_cpu.sh", "--no-venv", "--work", "aqui dentro", "nano")
    assert done.returncode == 0, done.stdout + done.stderr
    for verb in ("train", "export", "verify", "generate"):
        assert f"[{verb}: " in done.stdout
    assert done.stdout.rstrip().endswith("funcionam no processador desta máquina.")
    assert not (tmp_path / "aqui dentro" / "nano").exists()  # what is large goes away


def test_the_windows_twin_takes_the_same_steps():
    """PowerShell is not here to run it: the two must at least call the same verbs with the same flags."""
    windows = (SCRIPTS / "build_test_cpu.ps1").read_text(encoding="utf-8")
    assert windows.startswith("\ufeff")  # Windows PowerShell 5 reads UTF-8 only with a mark
    unix = (SCRIPTS / "build_test_cpu.sh").read_text(encoding="utf-8")
    for step in (
        "--batch-size 1 --grad-accum 1 --seq-len",
        "--max-steps 1 --quiet",
        "--precision int8 --quiet",
        "-n 8 --seed 1 --quiet",
        "--paragraph-documents --valid-fraction 0.2 --quiet",
        "O relojoeiro",
    ):
        assert step in windows and step in unix.replace(" \\\n  ", " ").replace(" \\\n    ", " ")
