"""A held-out text that was trained on is noticed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.eval.bits_sources import HeldOutText, valid_text
from ptbr_slm.eval.contamination import contamination_note, seen_in_training
from ptbr_slm.tokenizer import Tokenizer


@pytest.fixture
def trained(prepared) -> list[str]:
    """Documents of the train split."""
    split = PreparedData.open(prepared).split("train")
    edges = split.document_offsets()
    tokenizer = Tokenizer.load(prepared)
    return [tokenizer.decode(split.read(int(a), int(b)).tolist()) for a, b in pairwise(edges)]


NEW = "Nenhum destes barcos jamais atracou no porto antigo durante a madrugada fria de quarta-feira passada."


def text_of(*documents: str) -> HeldOutText:
    return HeldOutText(
        "t", "t.txt", documents, tuple(map(str, range(len(documents)))), len(documents), "linhas"
    )


def test_planted_documents_are_found_and_others_are_not(prepared, trained):
    words = trained[3].split()
    words[7] = "zebra"
    found = seen_in_training(prepared, text_of(trained[0], NEW, " ".join(words), "Curto."))
    assert found.documents == (0, 2) and found.checked == 3 and found.searched == found.of
    note = contamination_note(prepared, text_of(trained[0], NEW))
    assert note == "CONTAMINADO: 1 de 2 linhas (50 %) estavam no treino"


def test_a_part_that_was_searched_is_told(prepared, trained):
    found = seen_in_training(prepared, text_of(NEW), most=2000)
    assert found.searched < found.of and "procurado em" in found.note(text_of(NEW))


def test_what_cannot_be_known_is_said(prepared, tmp_path):
    assert contamination_note(prepared, text_of(NEW)) == ""
    assert "não se sabe" in contamination_note(None, text_of(NEW))
    assert "não foi conferido" in contamination_note(tmp_path / "nada", text_of(NEW))
    assert contamination_note(prepared, valid_text(prepared)) == ""
    assert "não se sabe" in contamination_note(None, valid_text(prepared))
