"""examples/modelo_de_demonstracao.py: what of a work becomes text to learn from, and how it trains."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from ptbr_slm.train.config_file import from_values

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "modelo_de_demonstracao.py"
PARAGRAPH = "A tarde caía sobre o morro, e ninguém na casa falava da carta que chegara pela manhã. " * 4


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_titles_indexes_and_cut_pages_are_left_out(script):
    work = f"ÍNDICE\nCAPÍTULO II\n{PARAGRAPH}\n12 de junho\n— Vem?\n{PARAGRAPH}e depois disso, enquanto\nfim"
    found = list(script["paragrafos"](work))
    assert [text for text in found if text] == [PARAGRAPH.strip(), "— Vem?", PARAGRAPH.strip()]


def test_a_sentence_that_a_line_break_cut_is_made_whole(script):
    beginning = "Quando chegou a casa, já noite fechada, achou a mulher sentada junto da janela,"
    found = list(script["paragrafos"](f"{beginning}\n— a bela Tomásia, — que lia.\n— Boa noite."))
    assert found == [f"{beginning} — a bela Tomásia, — que lia.", "— Boa noite."]


def test_pieces_begin_with_paragraphs_and_short_ones_are_left_out(script):
    work = "\n".join(["CAPÍTULO I", *[PARAGRAPH] * 20, "CAPÍTULO II", "É tarde.", "CAPÍTULO III", PARAGRAPH])
    pieces = list(script["trechos"](work))
    assert "".join(pieces).count("A tarde caía") == 4 * 21 and not any("É tarde" in piece for piece in pieces)
    assert all(piece.startswith("A tarde") for piece in pieces)
    longest = script["TRECHO"] + len(PARAGRAPH) + 10
    assert len(pieces) > 3 and max(map(len, pieces)) < longest


def test_verse_is_left_out_and_two_works_are_kept_whole_to_measure(script, tmp_path):
    works = {
        "romance/um.txt": PARAGRAPH,
        "poesia/dois.txt": PARAGRAPH,
        "romance/domCasmurro.txt": PARAGRAPH
        + "\u0085"
        + PARAGRAPH,  # as NLTK's bytes are read: no line's end
    }
    lines = [{"text": text, "source": f"machado:{name}", "license": "l"} for name, text in works.items()]
    source = tmp_path / "machado.jsonl"
    source.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )
    learnt, held_out = script["separar"](source, tmp_path)
    (row,) = script["linhas"](learnt)
    assert (row["source"], row["text"]) == ("machado:romance/um.txt", PARAGRAPH.strip())
    (whole,) = script["linhas"](held_out)
    assert whole["source"] == "machado:romance/domCasmurro.txt"
    assert whole["text"].count("A tarde caía") == 8 and "\u0085" not in whole["text"]


def test_the_settings_of_the_training_are_valid(script, tmp_path):
    config = from_values(
        {**script["TREINO"], "max_steps": script["PASSOS"], "data": tmp_path, "output": tmp_path}
    )
    assert config.step_tokens == 4096 and "4.096 tokens" in script["FICHA"]
