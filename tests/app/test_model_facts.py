"""The model card: what the folder says, nothing else, and nothing hostile."""

from __future__ import annotations

import json
import shutil

import pytest
from toy_engine import ToyEngine

from ptbr_slm.app.card_markdown import card_html
from ptbr_slm.app.model_facts import measured_bits, sections
from ptbr_slm.app.tabs.model_card import card
from ptbr_slm.eval.subject import LocalSubject
from ptbr_slm.runtime.model import Model
from ptbr_slm.storage.manifest import amend_manifest, write_manifest
from ptbr_slm.tokenizer import Tokenizer

TRAINED = {
    "steps": 69,
    "tokens": 70_656,
    "bits_per_byte": 2.6758,
    "held_out": {"data_sha256": "ab", "seq_len": 256, "targets": 33_048, "bytes": 110_546},
    "source_run": "/home/maria/segredo",
    "data": {
        "name": "dados",
        "sha256": "ebbabb1830541ce29241",
        "documents": 954,
        "bytes": 2_100_019,
        "tokens": 568_586,
        "licences": {"CC BY 4.0": 1073, "": 2},
        "sources": [{"name": "dante", "licence": "CC BY 4.0", "hub": [{"repo": "um/conjunto"}]}],
    },
}


@pytest.fixture(scope="module")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 4, 384)


@pytest.fixture
def model(tokenizer, tmp_path) -> Model:
    """Over an empty folder: what is not there has no line."""
    return Model.over(ToyEngine(tokenizer), tmp_path)


def rows(model: Model, language="pt") -> dict[str, str]:
    return {label: value for part in sections(model, language) for label, value in part.rows}


def test_of_a_folder_that_says_nothing_only_the_model_itself_is_told(model):
    assert [part.title for part in sections(model)] == ["Tamanho e forma", "Formato"]
    assert rows(model)["Contexto"] == "512 tokens"


def test_training_data_licences_and_bits_per_byte_come_from_the_manifest(model):
    write_manifest(model.path, "model", **TRAINED)
    found = rows(model)
    assert found["Tokens lidos"] == "70.656" and found["Bits por byte"] == "2,676"
    assert found["Medidos em"] == "33.048 tokens (110,5 kB) de texto que não entrou no treino"
    assert found["Fonte"] == "dante (CC BY 4.0, um/conjunto)"
    licences = [v for p in sections(model) for label, v in p.rows if label == "Licença dos textos"]
    assert licences == ["CC BY 4.0: 1.073 documentos", "não informada: 2 documentos"]
    assert "maria" not in card(sections(model))
    assert rows(model, "en")["Bits per byte"] == "2.676"


def test_an_export_tells_what_was_compared_and_what_its_model_was_trained_on(model):
    checks = [
        {"name": "cosine", "value": 0.9999719, "limit": 0.995, "passed": True},
        {"name": "bits_per_byte", "value": 1.01e-05, "limit": 0.005, "passed": True},
        {"name": "logits", "value": None, "limit": 1e-4, "passed": False},
    ]
    trained = {key: TRAINED[key] for key in ("steps", "tokens", "data")}
    parity = {"passed": True, "checks": checks, "provider": "CPUExecutionProvider", "stand_in": False}
    measured = {**TRAINED["held_out"], "sampled": 2038}
    facts = {"bits_per_byte": 2.6759, "held_out": measured, "trained": trained, "parity": parity}
    (model.path / "model.onnx").write_bytes(b"x")
    write_manifest(model.path, "export", **facts)
    found = rows(model)
    assert found["semelhança dos logits (cosseno)"] == "0,99997 (mínimo 0,995)"
    assert found["mudança dos bits por byte"] == "1,01e-05 (limite 0,005)"
    assert "maior diferença de um logit" not in found
    assert found["Mudança por esta precisão"] == "medida em 2.038 deles" and found["Passos"] == "69"
    assert len(found["model.onnx · 1 bytes"]) == 64
    assert measured_bits(model) == (2.6759, TRAINED["held_out"])  # to be set beside another precision's


def test_a_manifest_with_anything_in_it_breaks_nothing(model):
    odd = {
        "held_out": [1],
        "data": "x",
        "trained": 3,
        "parity": {"checks": [None, {"name": "<b>", "value": "x"}]},
    }
    write_manifest(model.path, "model", **odd, steps="muitos", bits_per_byte=True, tuning=[])
    assert rows(model)["Contexto"] == "512 tokens"
    amend_manifest(
        model.path, data={"name": "<script>alert(1)</script>", "licences": {"<img>": 1}, "sources": [None]}
    )
    shown = card(sections(model))
    assert "<script" not in shown and "<img" not in shown and "&lt;script&gt;" in shown
    (model.path / "manifest.json").write_text("{", encoding="utf-8")
    assert rows(model)["Contexto"] == "512 tokens"


def test_a_readme_is_shown_without_its_header_its_markup_and_its_images(model):
    text = "---\nlicense: mit\n---\n# Título\n<img src=x onerror=alert(1)>\n\nUm **modelo** ![foto](http://a/b.png)"
    (model.path / "README.md").write_text(text, encoding="utf-8")
    shown = card(sections(model))
    assert "<h4>Título</h4>" in shown and "<strong>modelo</strong> foto" in shown
    assert "license" not in shown and "onerror" not in shown and "b.png" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "x <b onclick=alert(1)>y</b>",
        "[a](javascript:alert(1))",
        "[a](data:text/html,x)",
        "[a]: vbscript:x\n\n[a]",
        "![a](http://fora/x.png) ![b][c]\n\n[c]: http://fora/y.png",
        "<https://a'onclick=x>",
        '```"><script>alert(1)</script>\nx\n```',
        "# <svg onload=alert(1)>",
        "| <iframe src=x> |\n|---|\n| `<object>` |",
    ],
)
def test_nothing_that_a_card_says_runs_or_is_fetched(text):
    shown = card_html(text).lower()
    for dangerous in (
        "<script",
        "<b ",
        "<svg",
        "<iframe",
        "<object",
        "<img",
        "src=",
        'href="j',
        'href="d',
        'href="v',
    ):
        assert dangerous not in shown, shown


def test_a_table_can_be_reached_by_the_keyboard_and_an_empty_cell_heads_nothing():
    shown = card_html("| a | |\n|---|--:|\n| 1 | 2 |")
    assert '<table tabindex="0">' in shown and "<th>a</th>" in shown and "<td></td>" in shown


def test_a_card_of_any_size_takes_no_time():
    assert len(card_html("[" * 200_000)) < 400_000 and len(card_html("> " * 100_000)) < 400_000


def test_an_evaluation_stands_on_the_card_of_the_model_that_it_measured_alone(model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "runs" / "meu" / "final")
    results = tmp_path / "runs" / "meu" / "avaliacao" / "meu"
    results.mkdir(parents=True)
    (results / "cartao.md").write_text(
        "---\nx: y\n---\n\n## Avaliação\n\n| texto | alvos |\n|---|---|\n| a | 7 |\n"
    )

    def measure(identity: str) -> None:
        body = {"kind": "evaluation", "model": {"identity": identity}}
        (results / "resultados.json").write_text(json.dumps(body))

    measure("de outro modelo")
    with LocalSubject(folder) as subject:
        assert "Avaliação" not in [part.title for part in sections(subject.model)]
        measure(subject.identity)
        part = next(part for part in sections(subject.model) if part.title == "Avaliação")
    assert "<td>7</td>" in card([part])
