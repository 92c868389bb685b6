"""The tutorials of docs/tutoriais, run as they are written.

What follows `<!-- testado -->` is run: `ptbr-slm` commands inside this process, so that PyTorch is loaded
once. `<!-- testado: A vira B -->` says which words of the block are others here: a shorter training, texts of
our own.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ptbr_slm.cli.main import app
from ptbr_slm.runtime.model import Model

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutoriais"
BLOCK = re.compile(r"<!-- testado(?:: (.*?) vira (.*?))? -->\n```(\w+)\n(.*?)```", re.S)
PLACES = ["feira", "estação", "praça", "igreja", "cidade", "escola", "ponte", "rua"]
PEOPLE = ["vizinho", "menino", "padeiro", "professor", "barqueiro", "carteiro", "avô"]
SERVER = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Block:
    """What stands below a mark."""

    language: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line."""
        return [shlex.split(line) for line in self.text.splitlines() if line.strip()]


def blocks(page: str) -> list[Block]:
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    found = []
    for before, after, language, body in BLOCK.findall(text):
        assert not before or before in body, before
        found.append(Block(language, body.replace(before, after) if before else body))
    assert len(found) == text.count("<!-- testado"), "a mark without a block"
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with `textos`, 120 documents of generated Portuguese."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "textos").mkdir()
    for number in range(120):
        lines = [
            f"O {PEOPLE[(number + line) % 7]} passou pela {PLACES[(number * 3 + line) % 8]} às {line + 5} "
            f"horas, e ninguém na {PLACES[(number + line * 5) % 8]} percebeu."
            for line in range(12)
        ]
        (folder / "textos" / f"{number:03}.txt").write_text(" ".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _there(workplace, monkeypatch):
    monkeypatch.chdir(workplace)


def run(block: Block) -> None:
    """Run a block's commands, or its program."""
    if block.language == "python":
        exec(compile(block.text, "tutorial", "exec", dont_inherit=True), {})
        return
    for words in block.commands:
        assert words[0] == "ptbr-slm", words
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, f"{shlex.join(words)}\n{result.output}"


def test_the_first_model(workplace, capsys):
    for block in blocks("primeiro-modelo"):
        run(block)
    assert (workplace / "demo/treino/report/report.html").is_file()
    assert capsys.readouterr().out.strip()


def test_from_a_text_to_a_model(workplace):
    for block in blocks("do-texto-ao-modelo"):
        run(block)
    assert (workplace / "runs/meu/report/report.html").is_file()


def test_a_page_and_a_server(workplace, capsys):
    """One server, and everything that asks it; the other `serve` commands are those of test_guide.py."""
    from serving import serving

    if not (workplace / "demo/export").exists():
        pytest.skip("precisa do modelo que o primeiro tutorial cria (rode o arquivo inteiro)")
    model = Model(workplace / "demo/export", "cpu")
    asked = 0
    with serving({"demo": model}) as server:
        for block in blocks("pagina-e-servidor"):
            if SERVER in block.text:
                here = Block(block.language, block.text.replace(SERVER, server.url))
                asked += 1
                if here.language == "python":
                    run(here)
                else:
                    done = subprocess.run(here.commands[0], capture_output=True, text=True)
                    assert '"text"' in done.stdout, done.stderr
            else:
                assert {tuple(words[:3]) for words in block.commands} == {
                    ("ptbr-slm", "serve", "demo/export")
                }
    model.close()
    assert asked == 3 and capsys.readouterr().out.strip()
