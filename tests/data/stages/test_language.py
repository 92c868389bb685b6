"""Portuguese is kept, its neighbours are not, and a stored score is enough to try another threshold."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("py3langid")

from ptbr_slm.data.document import Document
from ptbr_slm.data.stages import language
from ptbr_slm.data.stages.language import KeepPortuguese, TagLanguage, identify_language
from ptbr_slm.data.stages.stage import Dropped, Stage, run

TEXTS = {
    "pt": "A menina abriu a janela devagar e olhou para a rua molhada. Não havia ninguém na calçada, só um "
    "cão que dormia junto ao portão. Ela pensou em voltar para a cama, mas já era tarde e o café esfriava.",
    "gl": "A nena abriu a xanela amodo e mirou para a rúa mollada. Non había ninguén na beirarrúa, só un can "
    "que durmía a carón do portal. Ela pensou en volver á cama, mais xa era tarde e o café estaba feito.",
    "es": "La niña abrió la ventana despacio y miró la calle mojada. No había nadie en la acera, solo un "
    "perro que dormía junto al portón. Pensó en volver a la cama, pero ya era tarde y el café estaba listo.",
    "en": "The girl opened the window slowly and looked at the wet street. There was nobody on the pavement, "
    "only a dog asleep by the gate. She thought of going back to bed, but it was late and coffee was ready.",
    "fr": "La jeune fille ouvrit lentement la fenêtre et regarda la rue mouillée. Il n'y avait personne sur "
    "le trottoir, seulement un chien qui dormait près du portail. Elle pensa retourner se coucher.",
    "it": "La ragazza aprì piano la finestra e guardò la strada bagnata. Non c'era nessuno sul marciapiede, "
    "solo un cane che dormiva accanto al cancello. Pensò di tornare a letto, ma era tardi.",
}


@pytest.mark.parametrize("code", TEXTS)
def test_a_paragraph_is_in_its_language(code: str) -> None:
    assert identify_language(TEXTS[code]).code == code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("A estação está fechada.", "pt"),
        ("Um amigo meu mora lá.", "pt"),
        ("A estación está pechada e non abre.", "gl"),
        ("Las niñas juegan en el jardín.", "es"),
    ],
)
def test_a_sentence_is_told_from_its_neighbours(text: str, code: str) -> None:
    assert identify_language(text).code == code


def test_a_document_half_in_another_language_has_half_a_score() -> None:
    found = identify_language(TEXTS["pt"] * 10 + TEXTS["en"] * 10)
    assert 0.4 < found.score < 0.6


def test_a_text_without_letters_has_no_language() -> None:
    assert identify_language("12 34 !? 56\n") == ("", 0.0)
    assert identify_language("") == ("", 0.0)


def test_function_words_decide_ordinary_portuguese_without_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_identifier", lambda: pytest.fail("the model was asked"))
    assert identify_language(TEXTS["pt"] * 50) == ("pt", 1.0)


STAGES: tuple[Stage, ...] = (TagLanguage(), KeepPortuguese())


def test_portuguese_is_kept_and_others_are_dropped_with_the_figures() -> None:
    kept = run(STAGES, Document(TEXTS["pt"], "a.txt"))
    assert isinstance(kept, Document)
    assert kept.attributes == {"language": "pt", "language_score": 1.0}
    dropped = run(STAGES, Document(TEXTS["gl"], "b.txt"))
    assert not isinstance(dropped, Document)
    assert dropped[2] == Dropped("other_language", {"portuguese_score": 0.0, "least": 0.5})


def test_another_threshold_needs_the_attributes_only() -> None:
    document = Document("", "a.txt", attributes={"language": "pt", "language_score": 0.7})
    assert KeepPortuguese(0.65)(document) is document
    assert isinstance(KeepPortuguese(0.8)(document), Dropped)
    untagged = Document("", "a.txt")
    assert KeepPortuguese()(untagged) is untagged


def test_the_stages_travel_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(STAGES)) == STAGES


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=300))
def test_any_text_has_a_language_or_none(text: str) -> None:
    found = identify_language(text)
    assert 0 <= found.score <= 1.0001
    if not any(char.isalnum() for char in text):
        assert found == ("", 0.0)
