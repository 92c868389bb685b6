"""The Kaggle notebook, run whole and offline against a folder that looks like Kaggle's, two sessions long."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import runpy
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "kaggle" / "treinar_no_kaggle.ipynb"

TINY = {
    "MODEL_SIZE": "nano",
    "VOCAB_SIZE": 300,
    "SEQ_LEN": 192,
    "BATCH_SIZE": 2,
    "GRAD_ACCUM": 1,
    "MAX_STEPS": 12,
    "PROMPT": "O rio",
    "OPTIONS": "--set evaluation.sample_tokens=4 --set model.num_layers=2",
    "TUNE_EPOCHS": 1,
    "TUNE_OPTIONS": "--max-steps 4 --set evaluation.sample_tokens=4",
    "QUESTIONS": ["Oi!"],
}


@pytest.fixture(scope="module")
def notebook_maker() -> dict[str, Any]:
    """The names of scripts/generate_kaggle_notebook.py."""
    return runpy.run_path(str(ROOT / "scripts" / "generate_kaggle_notebook.py"))


def test_the_notebook_is_made_from_its_source(notebook_maker):
    assert NOTEBOOK.read_text(encoding="utf-8") == notebook_maker["render"](), (
        "python scripts/generate_kaggle_notebook.py"
    )
    jupytext = [sys.executable, "-m", "jupytext", "--to", "py:percent", "--test", str(NOTEBOOK)]
    assert subprocess.run(jupytext, capture_output=True).returncode == 0


def test_the_notebook_has_no_outputs_and_never_installs_torch():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    installs = [line for cell in code for line in cell.source.splitlines() if "pip install" in line]
    assert len(installs) == 1 and "--constraint" in installs[0] and " torch" not in installs[0]


def test_the_options_of_the_parameters_cell_are_those_of_train():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    names = {target.id for node in ast.parse(cell.source).body for target in node.targets}  # type: ignore[attr-defined]
    others = {
        "MAX_TIME",
        "SESSION_START",
        "TEXTS",
        "PREPARED",
        "COPY_UP_TO_GB",
        "SOURCE",
        "TUNE",
        "CONVERSATIONS",
    }
    assert set(TINY) | others == names


class FakeKaggle:
    """/kaggle for one session: what Kaggle mounts there, and a notebook that runs in it."""

    def __init__(self, root: Path, wheel: Path, nltk: Path) -> None:
        self.root, self.nltk = root, nltk
        self.input, self.working = root / "input", root / "working"
        self.working.mkdir(parents=True)
        wheels = self.input / "datasets" / "ana" / "ptbr-slm-wheels"
        wheels.mkdir(parents=True)
        (wheels / wheel.name).write_bytes(wheel.read_bytes())

    def mount(self, output: Path) -> None:
        """An earlier version's output, where Kaggle puts it."""
        target = self.input / "notebooks" / "ana" / "treinar-ptbr-slm"
        target.parent.mkdir(parents=True)
        output.rename(target)

    def run(self, *, until: str = "", path: str = "", **parameters: Any) -> str:
        """Run the notebook with nbmake, to the cell that holds `until` or the end; what it printed."""
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        at = next(i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", []))
        lines = [f"{name} = {value!r}" for name, value in {**TINY, **parameters}.items()]
        notebook.cells.insert(at + 1, nbformat.v4.new_code_cell("\n".join(lines)))
        if until:
            last = next(i for i, c in enumerate(notebook.cells) if until in c.source)
            notebook.cells = notebook.cells[: last + 1]
        copy = self.root / "caderno.ipynb"
        nbformat.write(notebook, copy)
        read_only(self.input)
        before = fingerprint(self.input)
        done = self._nbmake(copy, path)
        assert fingerprint(self.input) == before, "/kaggle/input é só de leitura"
        self.failed, self.log = done.returncode != 0, done.stdout
        return printed(nbformat.read(copy, as_version=4))

    def _nbmake(self, copy: Path, path: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PTBR_SLM_KAGGLE_ROOT": str(self.root),
            "KAGGLE_KERNEL_RUN_TYPE": "Batch",
            "NLTK_DATA": str(self.nltk),
            "OMP_NUM_THREADS": "1",
            # The real pip, the real wheel, from the mounted folder alone; but beside this environment.
            "PIP_TARGET": str(self.root / "site-packages"),
            "PIP_NO_DEPS": "1",
            "PATH": os.pathsep.join([path, str(Path(sys.executable).parent), os.environ["PATH"]]),
            "COLUMNS": "100",
        }
        command = [sys.executable, "-m", "pytest", "-q", "--nbmake", "--overwrite", "--nbmake-timeout=120"]
        command += ["-p", "no:cacheprovider", "--rootdir", str(self.root), "-c", os.devnull, str(copy)]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=self.working, timeout=400
        )


def read_only(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def fingerprint(folder: Path) -> dict[str, str]:
    """Root may write anywhere: what is there before must be there after."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in folder.rglob("*")
    }


def printed(notebook: Any) -> str:
    parts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            parts.append(str(output.get("text", "")) or json.dumps(output, ensure_ascii=False))
    return "\n".join(parts)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, capture_output=True, check=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def nltk(tmp_path_factory, texts) -> Path:
    """A corpus of NLTK's shape, in its encoding, with sentences of our own."""
    root = tmp_path_factory.mktemp("nltk_data")
    (root / "corpora").mkdir()
    with zipfile.ZipFile(root / "corpora" / "machado.zip", "w") as archive:
        for index in range(60):
            turn = texts[index % 6 :] + texts[: index % 6]
            text = "\n\n".join(f"{sentence} Foi no dia {index + 1}." for sentence in turn)
            archive.writestr(f"machado/contos/macn{index:03d}.txt", text.encode("latin-1"))
    return root


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_second_session_goes_on_from_the_first_ones_output(tmp_path, wheel, nltk):
    first = FakeKaggle(tmp_path / "primeira", wheel, nltk)
    # Long gone: one step, saved. The rest of the notebook is run by the second session.
    said = first.run(until="!ptbr-slm train", MAX_TIME="1s", SESSION_START="2026-01-01")
    assert not first.failed, first.log
    run = first.working / "runs" / "meu-modelo"
    assert "Treino parado" in said and "o tempo acabou" in said
    assert (first.root / "site-packages" / "ptbr_slm" / "kaggle" / NOTEBOOK.name).read_bytes() == (
        NOTEBOOK.read_bytes()
    )
    stopped_at = int((run / "checkpoints" / "latest").read_text().strip().removeprefix("step-"))
    assert 0 < stopped_at < TINY["MAX_STEPS"]

    second = FakeKaggle(tmp_path / "segunda", wheel, nltk)
    second.mount(first.working)
    said = second.run(SESSION_START=str(int(time.time())))
    assert not second.failed, second.log
    assert "Dados da versão anterior" in said and f"Continuando do passo {stopped_at}" in said
    run = second.working / "runs" / "meu-modelo"
    assert "Treino completo: 12 passos" in said and (run / "final" / "model.safetensors").is_file()
    assert (second.working / "modelo" / "model.onnx").is_file() and "Execução Batch do Kaggle" in said
    sessions = json.loads((run / "report" / "report.json").read_text(encoding="utf-8"))["sessions"]
    assert [session["reason"] for session in sessions] == ["max_time", "complete"]
    assert "conversas para treinar" in said and "Treino completo: 4 passos" in said
    assert (second.working / "conversa" / "model.onnx").is_file() and "Você:   Oi!\nModelo: " in said
    assert {path.name for path in second.working.iterdir()} == {"conversa", "dados", "modelo", "runs"}
    uncoloured = re.sub(r"\x1b\[[\d;]*m", "", said)  # the first conversation is shown in colours
    assert "\x1b[" not in uncoloured  # no bar: each redraw would be an output of the cell


def play(
    root: Path, monkeypatch, *, failing: str = "", **parameters: Any
) -> tuple[list[str], dict[str, Any]]:
    """The cells before the data, their commands noted instead of run, and what they left.

    failing: a part of the command that ends with 1.
    """
    monkeypatch.setenv("PTBR_SLM_KAGGLE_ROOT", str(root))
    commands: list[str] = []
    left: dict[str, Any] = {"_exit_code": 0}

    def run(command: str) -> None:
        commands.append(command)
        left["_exit_code"] = int(bool(failing) and failing in command)

    left["run"] = run
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if "!ptbr-slm data prepare" in cell.source:
            break
        if cell.cell_type == "code":
            source = re.sub(r"^( *)!(.*)$", r'\1run(f"""\2 """)', cell.source, flags=re.MULTILINE)
            exec(compile(source, str(NOTEBOOK), "exec"), left)
            if "parameters" in cell.metadata.get("tags", []):
                left |= parameters
    return commands, left


def write_prepared(folder: Path) -> Path:
    """A folder that looks prepared."""
    folder.mkdir(parents=True)
    (folder / "index.json").write_text("{}")
    return folder


def test_data_that_are_prepared_already_are_read_where_they_are(tmp_path, monkeypatch):
    (tmp_path / "working").mkdir()
    ready = write_prepared(tmp_path / "input" / "datasets" / "ana" / "prontos")
    commands, left = play(tmp_path, monkeypatch, PREPARED=str(ready))
    assert left["DATA"] == ready and not any("cp -r" in command for command in commands)
    with pytest.raises(RuntimeError, match="não há um index"):
        play(tmp_path, monkeypatch, PREPARED=str(tmp_path))


@pytest.mark.parametrize("copied", [True, False])
def test_an_earlier_versions_data_are_copied_only_where_they_are_small(tmp_path, monkeypatch, capsys, copied):
    (tmp_path / "working").mkdir()
    earlier = write_prepared(tmp_path / "input" / "notebooks" / "ana" / "caderno" / "dados")
    commands, left = play(tmp_path, monkeypatch, COPY_UP_TO_GB=2 if copied else 0)
    assert any("cp -r" in command for command in commands) == copied
    assert left["DATA"] == (tmp_path / "working" / "dados" if copied else earlier)
    assert ("PREPARED" in capsys.readouterr().out) != copied


def test_the_package_comes_from_the_folder_that_is_named_or_it_is_said_where_it_could_come_from(
    tmp_path, monkeypatch
):
    (tmp_path / "working").mkdir()
    (tmp_path / "input").mkdir()
    with pytest.raises(RuntimeError, match="Acrescente em Add Input um Dataset"):
        play(tmp_path, monkeypatch, failing="pip install")
    with pytest.raises(RuntimeError, match="não há um ptbr_slm"):
        play(tmp_path, monkeypatch, SOURCE=str(tmp_path / "input" / "nada"))
    commands, _ = play(tmp_path, monkeypatch, SOURCE="git+https://exemplo.br/ptbr-slm")
    assert "app] @ git+https://exemplo.br/ptbr-slm" in commands[0]
    wheels = tmp_path / "input" / "datasets" / "ana" / "rodas"
    wheels.mkdir(parents=True)
    (wheels / "ptbr_slm-0.1.0-py3-none-any.whl").touch()
    for source in ("", str(wheels)):
        commands, _ = play(tmp_path, monkeypatch, SOURCE=source)
        assert f"--no-index --find-links {wheels} " in commands[0]


def test_a_p100_stops_the_notebook_at_doctor_and_names_the_t4(tmp_path, wheel, nltk):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'Tesla P100-PCIE-16GB, 6.0, 16384, 580.82.07'\n")
    tool.chmod(0o755)
    session = FakeKaggle(tmp_path / "kaggle", wheel, nltk)
    said = session.run(until="!ptbr-slm doctor", path=str(tool.parent))
    assert session.failed and "GPU T4 x2" in said and "sm_60" in said and "O comando acima falhou" in said
