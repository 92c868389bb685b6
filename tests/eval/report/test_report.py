"""What people read of results: the same facts in table, page, plot and card, and nothing grey as a claim."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from small_disk import mounted

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.report import plot
from ptbr_slm.eval.report.card import card
from ptbr_slm.eval.report.folder import write_report
from ptbr_slm.eval.report.page import page
from ptbr_slm.eval.report.table import WIDTH, table
from ptbr_slm.eval.results import (
    BitsRecord,
    DocumentBits,
    ModelFacts,
    Part,
    Refusal,
    Results,
    TaskRecord,
    read_results,
)
from ptbr_slm.eval.statistics import Interval
from ptbr_slm.eval.tasks.metrics import ItemResult, TaskScore

PARTS = ("dois", "um")


def task(name: str, title: str, value: float, interval: Interval, **changes) -> TaskRecord:
    right = round(100 * value)
    items = tuple(
        ItemResult(
            f"{('dois', 'um')[number % 2]}-{number:03}",
            f"{number:016x}",
            {"acc": float(number < right)},
            0,
            0,
        )
        for number in range(100)
    )
    values = {
        "name": name, "title": title, "version": "1", "protocol": "sem exemplos", "task_sha256": "a" * 64,
        "data_sha256": "b" * 64, "of": 400, "items": items,
        "scores": (TaskScore("acc", value, interval, 0.5),),
    }  # fmt: skip
    return TaskRecord(**{**values, **changes})


@pytest.fixture
def results() -> Results:
    documents = tuple(DocumentBits(f"d{number}", "c" * 16, 800.0, 400, 100) for number in range(3))
    bits = BitsRecord("validação <b>", "dados", "d" * 64, 256, 128, 300, 1200, 2.0, Interval(1.9, 2.1), 100,
                      documents, ("os documentos são curtos.",))  # fmt: skip
    parts = (
        Part("um", "Crase", 50),
        Part("dois", "Gerúndio, particípio e infinitivo depois de auxiliar", 50),
    )
    published = {"Modelo A": 0.61, "Modelo B": 0.58, "Um modelo de nome muito comprido | 1b": 0.2}
    return Results(
        ModelFacts("treino/final", "e" * 64, 12_000_000, 1024),
        (bits,),
        (
            task("gramatica", "Gramática", 0.8, Interval(0.71, 0.87), parts=parts, of=100),
            task("facil", "Tarefa fácil", 0.6, Interval(0.55, 0.65), facts={"published": published}),
            task("acaso", "Tarefa difícil", 0.52, Interval(0.42, 0.62)),
        ),
        (Refusal("minusculas", "E_LOSSY", "o tokenizador perde as maiúsculas."),),
    )


def test_the_table_fits_eighty_columns_and_greys_what_is_no_claim(results):
    plain = table(results)
    assert max(map(len, plain.splitlines())) <= WIDTH
    lines = {line.split("  ")[0]: line for line in plain.splitlines()}
    assert "80,0" in lines["todos os fenômenos"] and "100 de 400" in lines["Tarefa fácil"]
    assert lines["Tarefa difícil"].endswith("≈ acaso")
    assert not lines["Tarefa fácil"].endswith("acaso")
    assert "publicados: Modelo A 61,0 · Modelo B 58,0" in plain
    grey = [line for line in table(results, color=True).splitlines() if line.startswith("\x1b[90m")]
    assert any("Tarefa difícil" in line for line in grey)
    assert not any("Tarefa fácil" in line for line in grey)


class _Checker(HTMLParser):
    VOID = ("meta", "line", "circle", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, _ in attrs:
            assert name not in ("src", "href"), "nothing from the network"

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_a_perplexity_of_a_model_that_knows_nothing_leaves_the_names_legible(results):
    huge = TaskScore("perplexity", 5.7e11, Interval(19_843.4, 5.3e17))
    found = task("lambada", "LAMBADA-PT (verossimilhança)", 0.0, Interval(0.0, 0.1), scores=(huge,))
    text = table(replace(results, tasks=(found,)), color=False)
    assert "5,7e11  19.843,4 a 5,3e17" in text and "LAMBADA-PT" in text
    assert all(len(line) <= WIDTH for line in text.splitlines())


def test_the_page_is_whole_and_shows_names_as_text(results):
    text = page(results)
    checker = _Checker()
    checker.feed(text)
    assert not checker.open
    assert "validação &lt;b&gt;" in text and "<script" not in text
    assert "o tokenizador perde as maiúsculas." in text
    _, _, rest = text.partition("Tarefa fácil: modelos publicados")
    assert rest.index("Modelo A") < rest.index("este modelo") < rest.index("Modelo B")


def test_the_plot_is_xml_and_has_a_dot_for_each_score(results):
    root = ElementTree.fromstring(plot.sheet(plot.panels(results)))
    dots = [node for node in root.iter() if node.get("class") == "ponto"]
    assert len(dots) == 1 + 3 + 2
    assert ElementTree.fromstring(plot.sheet([])) is not None


def test_the_card_is_yaml_for_the_hub_and_claims_nothing_at_chance(results):
    _, header, body = card(results).split("---\n", 2)
    (model,) = yaml.safe_load(header)["model-index"]
    metrics = {entry["dataset"]["name"]: entry["metrics"][0] for entry in model["results"]}
    assert set(metrics) == {"validação <b>", "Gramática", "Tarefa fácil"}
    assert metrics["Tarefa fácil"]["value"] == 60.0 and metrics["Tarefa fácil"]["type"] == "accuracy"
    assert "| Tarefa difícil | 52,0 |" in body and "≈ acaso" in body
    assert (
        yaml.safe_load(card(Results(results.model, (), ())).split("---\n")[1])["model-index"][0]["results"]
        == []
    )


def test_what_was_written_is_read_back_and_shown_the_same(results, tmp_path):
    write_report(tmp_path / "r", results)
    assert table(read_results(tmp_path / "r")) == table(results)
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert names == {"avaliacao.html", "cartao.md", "items", "manifest.json", "notas.svg", "resultados.json"}


def test_a_full_disk_leaves_the_results_before(results, tmp_path):
    with mounted(tmp_path / "disk", 256) as disk:
        folder = Path(disk) / "r"
        write_report(folder, results)
        before = (folder / "resultados.json").read_bytes()
        (Path(disk) / "filler").write_bytes(b"x" * 130_000)
        with pytest.raises(SlmError) as caught:
            write_report(folder, results)
        assert caught.value.code == "E_DISK_FULL"
        assert (folder / "resultados.json").read_bytes() == before
        assert table(read_results(folder))
