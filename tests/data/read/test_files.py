"""Which files an input names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.pipeline import read_documents
from ptbr_slm.errors import SlmError

FRASE = "A chuva caiu sobre a praça e ninguém correu."


def read(*inputs: Path) -> tuple[list[str], DocumentCounts]:
    counts = DocumentCounts()
    return [document.text for document in read_documents(inputs, counts=counts)], counts


def test_other_files_in_a_folder_are_counted_and_hidden_ones_left_alone(tmp_path: Path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.txt").write_text(FRASE)
    (tmp_path / "foto.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "Área de Trabalho").mkdir()
    (tmp_path / "Área de Trabalho" / "meu texto.TXT").write_text(FRASE)
    found, counts = read(tmp_path)
    assert (found, dict(counts.dropped)) == ([FRASE], {"unknown_format": 1})


def test_a_named_file_of_another_type_or_none_at_all_is_an_error(tmp_path: Path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(SlmError) as error:
        read(tmp_path / "a.pdf")
    assert error.value.code == "E_DATA_FORMAT"
    with pytest.raises(SlmError) as error:
        read(tmp_path / "nada.txt")
    assert error.value.code == "E_NOT_FOUND"
