"""Commands that we print are copied into a shell: a path in them is one word there, whatever it is named."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ptbr_slm.cli.train import train_report
from ptbr_slm.errors import Exit
from ptbr_slm.text import quoted
from ptbr_slm.train.events import TrainResult

ROOT = Path(__file__).resolve().parents[2]
AWKWARD = Path("out") / "a b" / "$(touch z)" / "d'água"
COMMAND = re.compile(
    r"((^|\s)-{1,2}[a-z][a-z-]*[ =]|ptbr-slm( [a-z-]+)+ |\b(rm|cd|mv|ls|cat|df|llama-[a-z-]+)( -\w+)* )$"
)
"""The end of a text behind which a word of a command follows."""
PATH = re.compile(
    r"\b(\w*folder|\w*path|\w*file|out\w*|model|source|export|data|run|texts|inputs?|own|final|other|smaller"
    r"|calibration|tokenizer|checkpoint|cache|beside|target_dir)\b"
)
"""What a path is called in our sources."""


@pytest.mark.skipif(not Path("/bin/sh").exists(), reason="precisa de um shell POSIX")
@pytest.mark.parametrize("word", [AWKWARD, Path("-o"), Path("runs/x"), "a;b", "*", ""])
def test_a_printed_path_is_one_word_of_the_shell_and_runs_nothing(word, tmp_path):
    done = subprocess.run(
        ["sh", "-c", f"printf %s {quoted(word)}"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout in (str(word), f"./{word}") and not list(tmp_path.iterdir())
    assert not done.stdout.startswith("-")


def test_the_next_step_of_a_training_can_be_copied_into_a_shell():
    result = TrainResult(
        status="done", reason="complete", exit_code=Exit.OK, run=AWKWARD, model=AWKWARD / "final", step=1,
        tokens=1, loss=1.0, bits_per_byte=None, seconds=1.0, tokens_per_second=1.0, skipped_steps=0,
    )  # fmt: skip
    command = shlex.split(train_report(result).text.splitlines()[-1])
    assert command == ["ptbr-slm", "export", str(AWKWARD / "final"), "-o", str(AWKWARD / "export")]


def test_data_commands_print_a_next_step_that_can_be_copied(cli, tmp_path, texts):
    folder = tmp_path / "a b" / "$(z)"
    folder.mkdir(parents=True)
    (folder / "textos.txt").write_text("\n\n".join(texts * 5), encoding="utf-8")
    made = cli(
        "tokenizer", "train", folder, "-o", folder / "tokenizer.json", "--vocab-size", "300", check=True
    )
    assert shlex.split(made.stdout.splitlines()[-1])[-1] == str(folder / "tokenizer.json")
    done = cli("data", "prepare", folder / "textos.txt", "-o", folder / "dados", "--tokenizer", folder,
               "--paragraph-documents", check=True)  # fmt: skip
    assert shlex.split(done.stdout.splitlines()[-1])[2:4] == ["--data", str(folder / "dados")]


def test_every_path_in_a_printed_command_is_quoted():
    faults = []
    for file in [*ROOT.glob("ptbr_slm/**/*.py"), *ROOT.glob("export/**/*.py")]:
        if "bench" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            before = ""
            for part in node.values if isinstance(node, ast.JoinedStr) else ():
                if isinstance(part, ast.Constant):
                    before += part.value
                    continue
                source = ast.unparse(part.value)
                if COMMAND.search(before) and PATH.search(source) and not source.startswith("quoted("):
                    faults.append(f"{file.relative_to(ROOT)}:{part.lineno}: {before[-30:]!r} {{{source}}}")
                before += "x"
    assert not faults, "use ptbr_slm.text.quoted:\n" + "\n".join(faults)
