"""Stages answer with a document or a reason; presets list them; the pipeline counts."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from page_text import PAGE

from ptbr_slm.data.document import REASONS, Document, DocumentCounts
from ptbr_slm.data.mixture import plan
from ptbr_slm.data.pipeline import read_documents
from ptbr_slm.data.presets import PRESETS, Preset, preset
from ptbr_slm.data.recipe import SourceOptions
from ptbr_slm.data.stages.length import AtLeastTwoWords
from ptbr_slm.data.stages.personal_data import MaskPersonalData
from ptbr_slm.data.stages.stage import Dropped, run
from ptbr_slm.data.stages.variety import KeepVariety
from ptbr_slm.errors import SlmError


class CountWords:
    name = "count_words"

    def __call__(self, document: Document) -> Document | Dropped:
        return document.with_attributes(words=len(document.text.split()))


class NoShout:
    name = "no_shout"

    def __call__(self, document: Document) -> Document | Dropped:
        return Dropped("binary", {"capitals": 1.0}) if document.text.isupper() else document


def test_a_stage_that_changes_nothing_returns_the_same_object():
    document = Document(PAGE.strip(), "a.txt")
    for name in PRESETS:
        for stage in preset(name).cleaning + preset(name).filtering:
            assert stage(document) is document


@pytest.mark.parametrize("name", PRESETS)
def test_the_stages_of_a_preset_have_names_of_their_own_and_go_to_another_process(name: str):
    stages = preset(name).cleaning + preset(name).tagging + preset(name).filtering
    assert len({stage.name for stage in stages}) == len(stages)
    assert pickle.loads(pickle.dumps(stages)) == stages


def test_an_unknown_preset_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(SlmError) as error:
        preset("total")
    assert error.value.code == "E_CONFIG" and "none" in str(error.value.hint)


def test_only_documents_surely_of_the_other_variety_go_and_personal_data_are_masked(tmp_path: Path):
    (tmp_path / "pt.txt").write_text("O utilizador deve aceder ao ficheiro no ecrã do telemóvel.", "utf-8")
    (tmp_path / "br.txt").write_text("O usuário deve acessar o arquivo. CPF 111.444.777-35.", "utf-8")
    (tmp_path / "nem.txt").write_text("A casa fica perto da praia e tem porta azul.", "utf-8")
    counts = DocumentCounts()
    stages = plan([tmp_path], options=SourceOptions(variety="br", mask=True)).sources[0].stages
    assert stages.cleaning[-1] == MaskPersonalData() and stages.filtering[-1] == KeepVariety("br")
    kept = [document.text for document in read_documents([tmp_path], stages=stages, counts=counts)]
    assert sorted(kept) == [
        "A casa fica perto da praia e tem porta azul.",
        "O usuário deve acessar o arquivo. CPF [CPF].",
    ]
    assert counts.dropped == {"other_variety": 1} and counts.repaired["masked"] == 1


def test_a_drop_stops_the_stages_and_tells_what_the_rule_looked_at():
    dropped = run((AtLeastTwoWords(), CountWords()), Document("só", "a.txt"))
    assert not isinstance(dropped, Document)
    document, stage, answer = dropped
    assert (document.text, stage.name) == ("só", "at_least_two_words")
    assert answer == Dropped("too_short", {"words": 1, "least": 2})
    assert answer.reason in REASONS and "words" not in document.attributes


def test_the_pipeline_runs_cleaning_then_tagging_then_filtering_and_counts(tmp_path: Path):
    (tmp_path / "a.txt").write_text("NADA AQUI\n\num texto com cinco palavras\n\nfi\ufb01m da história")
    stages = Preset("teste", preset("none").cleaning, (CountWords(),), (NoShout(), AtLeastTwoWords()))
    counts = DocumentCounts()
    kept = list(read_documents([tmp_path], paragraph_documents=True, stages=stages, counts=counts))
    assert [(d.text, d.attributes) for d in kept] == [
        ("um texto com cinco palavras", {"words": 5}),
        ("fifim da história", {"words": 3}),
    ]
    assert dict(counts.dropped) == {"binary": 1} and dict(counts.repaired) == {"ligatures": 1}


def test_repairs_are_added_to_those_that_there_are():
    document = Document("a", "a.txt").repaired("b", "ligatures").repaired("c", "invisible", "unwrapped")
    assert (document.text, document.attributes) == ("c", {"repairs": "ligatures invisible unwrapped"})
    assert document.repaired("c") is document
