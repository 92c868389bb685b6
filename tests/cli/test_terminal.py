"""What the terminal decides: colours, line breaks, the bar, and letters that its encoding lacks."""

from __future__ import annotations

import io
import re

import pytest
from terminal import Terminal

from ptbr_slm.cli.bar import bar_line
from ptbr_slm.cli.output import fitting_table
from ptbr_slm.cli.streams import NEAREST, write_anything
from ptbr_slm.cli.terminal import fitted, wants_colour
from ptbr_slm.errors import Exit


class Screen(io.StringIO):
    """A terminal, as far as one asks."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "on_a_terminal", "elsewhere"),
    [
        ({}, True, False),
        ({"TERM": "xterm-256color"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"CLICOLOR": "0"}, False, False),
        ({"CLICOLOR": "1"}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"CLICOLOR_FORCE": "1"}, True, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_colours_follow_what_the_environment_says(environment, on_a_terminal, elsewhere):
    assert wants_colour(Screen(), environment) is on_a_terminal
    assert wants_colour(io.StringIO(), environment) is elsewhere


def test_sentences_are_broken_between_words_and_commands_are_not(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    sentence = "  plano: micro-lote de 16 x 256 tokens, o maior que cabe nesta placa"
    command = "  ptbr-slm train --data dados --output runs/meu-modelo --model-size mini"
    columns = "lote   seq  recalc.    perda  cópias  ativ.  logits  outros"
    shown = fitted("\n".join([sentence, command, columns]), Screen())
    assert shown.splitlines() == [
        "  plano: micro-lote de 16 x 256 tokens,",
        "  o maior que cabe nesta placa",
        command,
        columns,
    ]
    assert fitted(sentence, io.StringIO()) == sentence


@pytest.mark.parametrize("room", [12, 20, 30, 40, 60, 79, 120])
@pytest.mark.parametrize("share", [None, 0.0, 0.456, 1.0])
def test_the_bar_is_one_line_that_fits(room, share):
    parts = bar_line("treinando", share, 83.0, "perda 3,21 · 1.234 tokens/s", room, "#.")
    line = "".join(parts)
    assert len(line) <= room and line.startswith("treinando")
    if room >= 20 and share is not None:
        assert f"{100 * share:.0f} %" in line
    if room >= 79 and share is not None:
        assert (len(parts[1] + parts[2]) == 24 and "01:23" in line) or "1:23" in line
        assert line.endswith("tokens/s")


def test_a_narrow_table_names_the_columns_that_it_does_without(monkeypatch):
    rows = [["85m", "1,25", "3,62", "sim"]]
    header = ["tamanho", "ativações", "total", "cabe"]
    monkeypatch.setenv("COLUMNS", "80")
    assert "ativações" in fitting_table(rows, header=header, spare=["ativações"]).splitlines()[0]
    monkeypatch.setenv("COLUMNS", "30")
    shown = fitting_table(rows, header=header, spare=["ativações"])
    assert shown.splitlines() == [
        "tamanho  total  cabe",
        "-------  -----  ----",
        "85m       3,62   sim",
        "(num terminal mais largo: ativações)",
    ]


def test_what_an_encoding_lacks_is_written_without_its_accent():
    write_anything()
    text = "não → coração «São João» 3 × 4 — ▁█ 🌊"
    assert text.encode("ascii", NEAREST) == b'nao -> coracao "Sao Joao" 3 x 4 - 18 ?'
    assert text.encode("latin-1", NEAREST).decode("latin-1") == "não -> coração «São João» 3 × 4 - 18 ?"


def test_an_error_is_red_on_a_terminal_and_plain_on_a_dumb_one(tmp_path):
    for term, red in (("xterm-256color", True), ("dumb", False)):
        with Terminal(["info", "--model-size", "99b"], tmp_path, TERM=term) as window:
            assert window.end() == Exit.USAGE
        assert ("\x1b[1;31mErro [E_MODEL_SIZE]:\x1b[0m" in window.shown) is red
        assert "Erro [E_MODEL_SIZE]:" in re.sub(r"\x1b\[[0-9;]*m", "", window.shown)


@pytest.mark.parametrize("columns", [60, 80])
def test_info_shows_its_tables_in_the_width_of_the_terminal(tmp_path, columns):
    with Terminal(["info", "--model-size", "800m"], tmp_path, columns=columns) as window:
        assert window.end() == 0
    lines = window.shown.splitlines()
    assert max(map(len, lines)) <= columns
    assert ("(num terminal mais largo: outros, cópias)" in lines) is (columns == 60)
