"""`--help` of every command: whole at every width, Portuguese, with examples that the command takes."""

from __future__ import annotations

import re

import pytest
from commands import commands, refusal, words_of
from typer.testing import CliRunner

from ptbr_slm.cli import help_layout, tune
from ptbr_slm.cli.help import summary
from ptbr_slm.cli.main import app
from ptbr_slm.tune.config import TuneOptions

COMMANDS = dict(commands())
EXAMPLES = [(words, line) for words, command in COMMANDS.items() for line in command.examples]
CHEAP = ("info", "doctor", "data fetch --list", "eval --list", "kaggle init", "train --help")
"""Examples that need no model and no text."""


def shown(words: tuple[str, ...], columns: int, **environment: str) -> str:
    environment = {"COLUMNS": str(columns), **environment}
    done = CliRunner().invoke(app, [*words, "--help"], env=environment, prog_name="ptbr-slm")
    assert done.exit_code == 0, done.output
    return done.output


def joined(text: str) -> str:
    """A text with the lines of each command in one, as a shell reads it."""
    return re.sub(r" \\\n\s+", " ", text)


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_every_help_is_whole_in_every_width(columns):
    for words, command in COMMANDS.items():
        text = shown(words, columns)
        assert max(map(len, text.splitlines())) <= min(columns, 100), words
        said = " ".join(text.split())
        for member in [command, *getattr(command, "commands", {}).values()]:
            assert summary(member) in said
        for parameter in command.params:
            if not getattr(parameter, "hidden", False):
                assert " ".join((parameter.help or "").split()) in said, parameter.name
        for line in command.examples:
            assert line in joined(text)


def test_every_help_is_portuguese_and_its_summary_fits_a_line():
    for words, command in COMMANDS.items():
        text = shown(words, 80)
        assert text.startswith("Uso: ptbr-slm")
        for english in ("Usage", "default", "required", "<", "Show ", "Options", "Commands", "env var"):
            assert english not in text, words
        assert not words or re.fullmatch(r"\w[^.]{9,62}", summary(command)), "one short sentence"


def test_a_wide_terminal_shows_each_verb_in_one_line():
    text = shown((), 80)
    for name, command in COMMANDS[()].commands.items():
        assert re.search(rf"^  {name} +{re.escape(summary(command))}\.$", text, re.M), name


def test_what_an_option_does_stands_below_its_name_where_the_terminal_is_narrow():
    wide, narrow = shown(("export",), 80), shown(("export",), 40)
    assert "  -o, --output PASTA         Onde gravar o export. [obrigatório]" in wide
    assert "  -o, --output PASTA\n      Onde gravar o export.\n      [obrigatório]\n" in narrow


def test_headings_and_names_are_coloured_where_colours_are_wanted():
    plain, coloured = shown(("info",), 80, NO_COLOR="1"), shown(("info",), 80, FORCE_COLOR="1")
    assert "\x1b" not in plain and "\x1b[1mExemplos:\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


@pytest.mark.parametrize(("words", "line"), EXAMPLES, ids=[line for _, line in EXAMPLES])
def test_every_example_is_a_command_line_that_the_command_takes(words, line):
    assert refusal(line) is None
    assert tuple(words_of(line)[: len(words)]) == words
    assert joined("\n".join(help_layout.wrapped_command(line, 40, "    "))).strip() == line


def test_a_wrong_example_would_be_found():
    assert "--colour não existe" in (refusal("ptbr-slm info --colour x") or "")
    assert "falta a opção --output" in (refusal("ptbr-slm export runs/meu/final") or "")


def test_every_verb_has_examples():
    assert all(command.examples for words, command in COMMANDS.items() if not hasattr(command, "headings"))


@pytest.mark.parametrize("start", CHEAP)
def test_cheap_examples_run(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [line for _, line in EXAMPLES if line.startswith(f"ptbr-slm {start}") and "runs/" not in line]
    assert lines
    for line in lines:
        done = CliRunner().invoke(app, words_of(line), prog_name="ptbr-slm")
        assert done.exit_code == 0, f"{line}: {done.output}"


def test_defaults_that_the_help_of_tune_writes_out_are_those_of_the_settings():
    settings, told = TuneOptions(), 0
    for flag in tune.TUNE_FLAGS:
        if found := re.search(r"\(padrão: ([\d.]+)\)", flag.help):
            told += 1
            assert getattr(settings, str(flag.key).removeprefix("tune.")) == float(found[1]), flag.name
    assert told == 6
