"""`data fetch machado`: NLTK's copy of the corpus, packed as NLTK leaves it, in its encoding."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ptbr_slm.data.sources.fetch import fetch
from ptbr_slm.errors import SlmError

WORKS = {
    "romance/marm05.txt": "Algum tempo hesitei à porta; não sabia começar.\n\nComecei pelo fim.\n",
    "contos/macn001.txt": "A Missa é à meia-noite, disse Conceição.\n",
}


def as_zip(root: Path) -> None:
    (root / "corpora").mkdir(parents=True)
    with zipfile.ZipFile(root / "corpora" / "machado.zip", "w") as archive:
        archive.writestr("machado/README", "Public Domain")
        for name, text in WORKS.items():
            archive.writestr(f"machado/{name}", text.encode("latin-1"))


def as_folder(root: Path) -> None:
    for name, text in WORKS.items():
        path = root / "corpora" / "machado" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))


@pytest.mark.parametrize("build", [as_zip, as_folder])
def test_the_works_come_with_their_accents_their_names_and_their_licence(build, tmp_path, monkeypatch):
    build(tmp_path / "nltk_data")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "nltk_data"))
    path = fetch("machado", tmp_path / "textos")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == [WORKS["contos/macn001.txt"], WORKS["romance/marm05.txt"]]
    assert lines[1]["source"] == "machado:romance/marm05.txt" and lines[0]["license"] == "domínio público"
    licence = (path.parent / "LICENCA.md").read_text(encoding="utf-8")
    assert "domínio público" in licence and "9.610" in licence
    monkeypatch.setenv("NLTK_DATA", "")  # a second call needs nothing more
    assert fetch("machado", tmp_path / "textos") == path


def test_without_nltk_data_the_other_corpus_is_named(tmp_path: Path, cli: Callable):
    done = cli("data", "fetch", "machado", "-o", tmp_path / "x", env={"NLTK_DATA": "", "HOME": str(tmp_path)})
    assert done.returncode == 1 and "Erro [E_FETCH]" in done.stderr and "data fetch dante" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_damaged_or_empty_copy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "machado.zip").write_bytes(b"PK, ou quase")
    with pytest.raises(SlmError, match="danificado"):
        fetch("machado", tmp_path / "x")
    (tmp_path / "corpora" / "machado").mkdir()
    with pytest.raises(SlmError, match="não tem textos"):
        fetch("machado", tmp_path / "x")
    assert not (tmp_path / "x").exists()
