"""The README's own commands, run as they stand (litgpt's habit), and the paths that it names."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Fenced blocks that follow a `<!-- testado -->` mark."""
    return re.findall(rf"<!-- testado -->\s*```{language}\n(.*?)```", README, re.DOTALL)


def bin_folder() -> str:
    return str(Path(sys.executable).parent)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("leia-me")


def test_the_readme_has_commands_to_test():
    assert len(blocks("bash")) >= 1 and len(blocks("python")) >= 1


@pytest.mark.slow
def test_the_steps_by_hand_work_as_written(workplace):
    environment = {
        **os.environ,
        "PATH": bin_folder() + os.pathsep + os.environ["PATH"],
        "OMP_NUM_THREADS": "2",
    }
    for line in "".join(blocks("bash")).replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        done = subprocess.run(
            shlex.split(line, comments=True),
            capture_output=True,
            text=True,
            cwd=workplace,
            env=environment,
            timeout=280,
        )
        if "E_FETCH" in done.stderr:
            pytest.skip("sem acesso ao índice de pacotes: os textos de exemplo vêm de lá (pip download)")
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def test_the_python_example_works_as_written(workplace):
    if not (workplace / "runs/meu/export").exists():
        pytest.skip("precisa do modelo que o passo a passo do README cria (rode o arquivo inteiro)")
    for block in blocks("python"):
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, cwd=workplace)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_the_example_script_works(workplace):
    if not (workplace / "runs/meu/export").exists():
        pytest.skip("precisa do modelo que o passo a passo do README cria (rode o arquivo inteiro)")
    script = [sys.executable, str(ROOT / "examples/gerar_texto.py"), "runs/meu/export", "O Brasil é"]
    done = subprocess.run(script, capture_output=True, text=True, cwd=workplace)
    assert done.returncode == 0, done.stderr
    written = done.stdout.split("\n")[:-3]  # before the two results of the end, a line each
    whole, streamed = written[: len(written) // 2], written[len(written) // 2 :]
    assert whole == streamed and whole[0].startswith("O Brasil é")  # a text may have lines of its own


def test_make_knows_the_two_commands():
    for target in ("demo", "test"):
        assert f"make {target}" in README
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_every_link_of_the_readme_leads_somewhere():
    for document in ("README.md", "README.en.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
            assert target.startswith("http") or (ROOT / target).exists(), f"{document}: {target}"
