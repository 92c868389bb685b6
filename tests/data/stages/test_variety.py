"""Brazilian and European Portuguese are told apart by signs, and a text without signs is left alone."""

import json
import pickle
import time
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages import variety
from ptbr_slm.data.stages.stage import Dropped
from ptbr_slm.data.stages.variety import SIGNS, KeepVariety, TagVariety, count_signs, identify_variety

BRAZILIAN = [
    "Você precisa planejar o registro dos usuários antes de acessar o arquivo e compartilhar a senha.",
    "O gênero do fenômeno econômico foi estudado em um relatório acadêmico de bilhões de linhas.",
    "A gente tá esperando o ônibus pra ver o goleiro e a torcida no gramado.",
]
EUROPEAN = [
    "O utilizador deve aceder ao ficheiro e partilhar a palavra-passe no ecrã do telemóvel.",
    "O género do fenómeno económico foi estudado num relatório académico da secção de registo.",
    "A equipa estava a jogar no relvado quando o autocarro dos adeptos chegou da freguesia.",
    "A acção da direcção foi óptima; o director e o arquitecto adoptaram o projecto actual.",
    "Ontem falámos do assunto e chegámos a acordo em 3 de Março de 1994, com a factura na mão.",
]
NEITHER = [
    "A casa fica perto da praia e tem uma porta azul.",
    "O rio subiu durante a noite, mas ninguém se assustou.",
    "2 + 2 = 4",
    "",
]


@pytest.mark.parametrize("text", BRAZILIAN)
def test_brazilian(text: str) -> None:
    assert identify_variety(text).code == "br"


@pytest.mark.parametrize("text", EUROPEAN)
def test_european(text: str) -> None:
    assert identify_variety(text).code == "pt"


@pytest.mark.parametrize("text", NEITHER)
def test_without_signs_it_abstains(text: str) -> None:
    found = identify_variety(text)
    assert found.code == "unknown"
    assert 0.1 < found.brazilian < 0.9


def test_another_language_has_no_signs() -> None:
    english = "The actual director of this manual is actually as exact as the factura that you read. " * 4
    spanish = "El director actual de la empresa recibió la factura exacta y no le afectó que fuera así. " * 4
    assert identify_variety(english) == identify_variety(spanish) == ("unknown", 0.5)
    assert identify_variety(EUROPEAN[3] + "\n" + english[:80]).code == "pt"


def test_signs_of_both_sides_make_it_abstain() -> None:
    assert identify_variety("O ônibus económico e o autocarro econômico.").code == "unknown"


def test_names_are_no_signs() -> None:
    assert not count_signs("António e Antônio, de Lisboa e de Brasília, leram o Diário Económico.")


def test_rio_de_janeiro_is_not_a_month() -> None:
    assert count_signs("no Rio de Janeiro, em 2 de Abril de 1990")["pt_month"] == 1


def test_a_higher_confidence_names_fewer() -> None:
    text = "O fenômeno foi estudado."
    assert identify_variety(text, min_confidence=0.9).code == "br"
    assert identify_variety(text, min_confidence=0.999).code == "unknown"


@pytest.mark.parametrize(("keep", "kept"), [("br", [True, False, True]), ("pt", [False, True, True])])
def test_only_the_other_variety_is_dropped_and_unknown_is_kept(keep: str, kept: list[bool]) -> None:
    stage = KeepVariety("br" if keep == "br" else "pt")
    tagged = [TagVariety()(Document(text, "a.txt")) for text in (BRAZILIAN[1], EUROPEAN[1], NEITHER[0])]
    assert [document.attributes["variety"] for document in tagged] == ["br", "pt", "unknown"]
    answers = [stage(document) for document in tagged]
    assert [answer is document for answer, document in zip(answers, tagged, strict=True)] == kept
    dropped = answers[kept.index(False)]
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "other_variety"
    assert dropped.figures["other_variety"] >= dropped.figures["least"] == variety.MIN_CONFIDENCE


def test_an_untagged_document_is_kept() -> None:
    document = Document(EUROPEAN[0], "a.txt")
    assert KeepVariety("br")(document) is document


def test_the_stages_travel_to_another_process() -> None:
    stages = (TagVariety(), KeepVariety("pt"))
    assert pickle.loads(pickle.dumps(stages)) == stages


def test_no_stored_weight_goes_against_its_sign() -> None:
    weights = json.loads(files("ptbr_slm.data.stages").joinpath("variety.json").read_text())["weights"]
    assert weights.keys() == SIGNS.keys()
    assert all(weights[sign] * side >= 0 for sign, side in SIGNS.items())


def test_a_long_text_takes_no_longer_than_its_two_ends() -> None:
    text = "A acção do ônibus " * 500_000
    start = time.process_time()
    assert identify_variety(text).code in ("br", "pt", "unknown")
    assert time.process_time() - start < 1


@given(st.text(max_size=300))
def test_any_text_has_a_probability(text: str) -> None:
    found = identify_variety(text)
    assert 0 <= found.brazilian <= 1
    assert found.code in ("br", "pt", "unknown")
