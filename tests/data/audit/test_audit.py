"""The audit page: its numbers are the index's, what documents say stays text, and it asks nobody anything."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ptbr_slm.data.audit.collect import SAMPLED, collect, source_of, web_rules
from ptbr_slm.data.audit.page import render
from ptbr_slm.data.document import Document
from ptbr_slm.data.mixture import load_mixture
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.records import RecordWriter
from ptbr_slm.data.stages.figures import FIGURES, Figures
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number

VOID = {"meta", "input", "line", "rect", "br"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"'& \x00\x1b \ud800 $x^2$"


class Page(HTMLParser):
    """Tables by caption, elements by name, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self._caption = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "caption":
            self._caption = ""
        if tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
        if tag in ("th", "td"):
            self.tables[self._caption][-1].append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["caption"]:
            self._caption += data
        if self.open[-1:] in (["th"], ["td"]):
            self.tables[self._caption][-1][-1] += data
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data

    def attributes(self, name: str) -> list[str]:
        return [str(attrs[name]) for _, attrs in self.elements if name in attrs]


def write_rows(folder: Path, rows: list[dict]) -> None:
    """Records in the place of those that are there; a row's `decision` is train, valid or dropped."""
    with RecordWriter(folder) as writer:
        for row in rows:
            document = Document(
                row.get("excerpt", ""), row.get("source", ""), "", row.get("licence", ""), row["attributes"]
            )
            if row["decision"] == "dropped":
                writer.drop(document, row["reason"], row.get("figures"))
            else:
                writer.keep(row["decision"], document)
        writer.finish()


@pytest.fixture
def recorded(corpus: Path, tmp_path: Path, tokenizer, prose) -> PreparedData:
    """The corpus prepared, with a record of each document and of ten that were dropped."""
    for place in range(3):
        (corpus / f"copia{place}.txt").write_text(prose(place), encoding="utf-8")
    data = prepare([corpus], tmp_path / "dados", tokenizer, valid_fraction=0.1)
    rows = []
    for split in ("train", "valid"):
        for place in range(data.split(split).documents):
            text = prose(place, sentences=3 + place % 7)
            attributes = dict(Figures()(Document(text, "")).attributes)
            attributes |= {"language": "pt", "variety": "br" if place % 3 else "unknown"}
            rows.append(
                {"source": f"textos/livro{place % 2}.txt:{place}", "decision": split, "licence": "CC BY 4.0",
                 "bytes": len(text.encode()), "excerpt": text[:100], "attributes": attributes}
            )  # fmt: skip
    for place in range(10):
        rows.append(
            {"source": f"web/pagina.jsonl:{place}", "decision": "dropped", "reason": "few_words",
             "figures": {"words": place, "least": 50}, "excerpt": f"menu {place}",
             "attributes": dict.fromkeys(FIGURES, float(place))}
        )  # fmt: skip
    write_rows(data.folder, rows)
    return data


def test_the_numbers_are_those_of_the_index(data: PreparedData):
    page = Page(render(collect(data)))
    summary = data.summary()
    rows = page.tables["Documentos que ficaram"]
    assert rows[-1][:4] == ["total", *(number(n) for n in (summary.documents, summary.words, summary.tokens))]
    assert rows[1][1] == number(summary.splits["train"].documents)
    lengths = page.tables["Documentos por número de tokens"][1:]
    assert sum(int(row[1]) for row in lengths) == summary.splits["train"].documents
    assert sum(int(row[2]) for row in lengths) == summary.splits["valid"].documents


def test_what_was_dropped_is_counted_and_shown_with_its_place(recorded: PreparedData):
    text = render(collect(recorded))
    page = Page(text)
    assert page.tables["Por motivo"][1] == ["cópia exata de outro", "3", "7,0 %"]
    assert page.tables["Cópias que saíram"][1] == ["cópia exata de outro", "3"]
    sources = {row[0]: row[1:] for row in page.tables["Por arquivo"][1:]}
    assert sources["web/pagina.jsonl"][:1] == ["0"] and sources["web/pagina.jsonl"][2] == "10"
    kept = [row for name, row in sources.items() if name != "web/pagina.jsonl"]
    assert sum(int(row[0]) for row in kept) == recorded.summary().documents
    assert page.tables["Licenças do que ficou"][1][:2] == ["CC BY 4.0", "40"]
    assert page.tables["Língua"][1] == ["português", "40", "100,0 %", "0"]
    assert page.tables["Variedade"][1][0] == "português do Brasil"
    assert page.tables["Variedade"][2][0] == "não se sabe"


def test_what_stages_found_out_is_counted(recorded: PreparedData):
    rows = [
        {"decision": "train", "attributes": {"masked_cpf": 2, "spelling": "before_1943"}},
        {"decision": "train", "attributes": {"copies": 5, "masked_cpf": 1}},
        {"decision": "dropped", "reason": "other_language", "attributes": {"language": "es"}},
    ]
    write_rows(recorded.folder, rows)
    page = Page(render(collect(recorded)))
    assert page.tables["Dados pessoais trocados por etiquetas"][1:] == [["cpf", "3"]]
    assert page.tables["Grupos de quase cópias, de que um ficou"][1:] == [["5", "1"]]
    assert page.tables["Ortografia"][1] == ["de antes de 1943", "1", "100,0 %", "0"]
    assert page.tables["Língua"][1] == ["espanhol", "0", "0,0 %", "1"]


def test_the_mixture_is_shown_as_the_index_describes_it(corpus: Path, tmp_path: Path, tokenizer):
    mixture = tmp_path / "mistura.toml"
    mixture.write_text(
        f'[[source]]\nname = "contos"\ninputs = ["{corpus.as_posix()}"]\n'
        'licence = "CC BY 4.0"\npreset = "curated"\n'
    )
    data = prepare([], tmp_path / "dados", tokenizer, recipe=load_mixture(mixture))
    page = Page(render(collect(data)))
    documents = number(data.summary().documents)
    assert page.tables["Mistura (sem as repetições do peso)"][1][:5] == [
        "contos",
        "curated",
        "1,00",
        "CC BY 4.0",
        documents,
    ]
    kept = sum(int(row[1]) for row in page.tables["Por arquivo"][1:])
    assert number(kept) == documents and "não guarda registros" not in render(collect(data))


def test_examples_of_a_reason_begin_next_to_the_threshold(recorded: PreparedData):
    examples = collect(recorded).examples["few_words"]
    assert [record.figures["words"] for record in examples] == [9, 8, 7, 6, 5]


def test_a_threshold_reaches_the_documents_that_its_rule_would_drop(recorded: PreparedData):
    audit = collect(recorded)
    place = audit.figures.index("words")
    values = [sampled.values[place] for sampled in audit.sample]
    below = sum(1 for value in values if value is not None and value < 50)
    assert len(audit.sample) == 50 and below >= 10
    index = next(i for i, rule in enumerate(audit.rules) if rule.figure == "words" and rule.is_least)
    shown = re.search(rf'id="rule-{index}".*?sozinha, tiraria ([\d,]+) %', render(audit), re.DOTALL)
    assert shown is not None and shown[1] == number(100 * below / 50, 1)


def test_without_records_the_figures_are_measured_on_the_decoded_texts(data: PreparedData):
    audit = collect(data)
    assert not audit.complete and len(audit.sample) == data.summary().documents
    tokenizer = data.load_tokenizer()
    offsets = data.split("train").document_offsets()
    text = tokenizer.decode(data.split("train").read(int(offsets[0]), int(offsets[1])).tolist())
    expected = Figures(("words",))(Document(text, "")).attributes["words"]
    assert audit.sample[0].values[audit.figures.index("words")] == expected
    assert "não guarda registros" in render(audit)


def test_what_documents_and_files_say_stays_text(recorded: PreparedData):
    rows = [
        {"source": HOSTILE, "decision": decision, "licence": HOSTILE,
         "reason": "" if decision == "train" else "<i>regra do usuário</i>",
         "excerpt": HOSTILE, "attributes": {"language": "<u>", "words": 3.0}}
        for decision in ["train"] * 30 + ["dropped"] * 30
    ]  # fmt: skip
    write_rows(recorded.folder, rows)
    text = render(collect(recorded))
    page = Page(text)
    text.encode("utf-8")
    assert not page.open and len(page.scripts) == 2
    assert {"img", "i", "u"}.isdisjoint(tag for tag, _ in page.elements)
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
    body = json.loads(page.scripts[0])
    assert any("<script>alert(1)" in sampled["source"] for sampled in body["sample"])
    assert "\x00" not in text and "\x1b" not in text


def test_nothing_is_asked_of_the_network_and_only_our_script_may_run(recorded: PreparedData):
    page = Page(render(collect(recorded)))
    assert not page.attributes("src")
    assert all(address.startswith("#") for address in page.attributes("href"))
    assert not any(tag in ("link", "iframe", "object", "img", "base") for tag, _ in page.elements)
    policy = next(attrs["content"] for _, attrs in page.elements if "http-equiv" in attrs)
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy


def test_the_page_is_well_formed_and_its_controls_have_names(recorded: PreparedData):
    page = Page(render(collect(recorded)))
    ids = page.attributes("id")
    assert not page.open and len(ids) == len(set(ids))
    assert page.elements[0] == ("html", {"lang": "pt-BR"})
    inputs = [attrs for tag, attrs in page.elements if tag == "input" and attrs["type"] != "checkbox"]
    assert len(inputs) == 2 * len(web_rules([])) and all(attrs["aria-label"] for attrs in inputs)
    assert all(attrs.get("aria-label") for tag, attrs in page.elements if tag == "svg")
    assert {address[1:] for address in page.attributes("href")} <= set(ids)
    assert any(attrs.get("name") == "viewport" for _, attrs in page.elements)


def test_the_page_is_the_same_again_and_of_bounded_size(recorded: PreparedData, monkeypatch):
    monkeypatch.setitem(SAMPLED, "dropped", sum(SAMPLED.values()))
    rows = [
        {"source": f"{'pasta/' * 60}arquivo{place}.txt:{place}", "decision": "dropped", "reason": "few_words",
         "excerpt": "日本" * 200, "attributes": dict.fromkeys(FIGURES, (place * 7919 % 1000) / 999)}
        for place in range(4_000)
    ]  # fmt: skip
    write_rows(recorded.folder, rows)
    audit = collect(recorded)
    page = render(audit)
    assert page == render(collect(recorded))
    assert sum(1 for sampled in audit.sample if sampled.weight) == SAMPLED["dropped"]
    assert sum(sampled.weight for sampled in audit.sample) == pytest.approx(4_000)
    assert len(page.encode()) < 3_000_000


def test_what_moved_thresholds_say_is_estimated_within_the_margin_that_the_page_gives(
    recorded: PreparedData, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(SAMPLED, "dropped", 400)
    words = [(place * 7919) % 5_000 / 50 for place in range(5_000)]
    rows = [
        {"source": f"a.jsonl:{place}", "decision": "dropped", "reason": "few_words",
         "attributes": dict.fromkeys(FIGURES, value)}
        for place, value in enumerate(words)
    ]  # fmt: skip
    write_rows(recorded.folder, rows)
    audit = collect(recorded)
    assert audit.margin == pytest.approx(1.96 * (0.25 / 400 * (1 - 400 / 5_000)) ** 0.5)
    at = audit.figures.index("words")
    for threshold in range(5, 100, 5):
        true = sum(value < threshold for value in words) / 5_000
        estimated = sum(each.weight for each in audit.sample if (each.values[at] or 0.0) < threshold) / 5_000
        assert abs(true - estimated) <= audit.margin
    assert f"erro de até {number(100 * audit.margin, 1)} pontos" in render(audit)
    write_rows(recorded.folder, rows[:300])
    assert collect(recorded).margin == 0 and "partes abaixo são contadas" in render(collect(recorded))


def dropped_from(sources: list[str]) -> list[dict]:
    return [
        {"source": name, "decision": "dropped", "reason": "few_words", "attributes": {}} for name in sources
    ]


def test_files_of_many_sources_count_by_folder(recorded: PreparedData):
    write_rows(recorded.folder, dropped_from([f"textos/{place % 4}/{place}.txt" for place in range(200)]))
    sources = collect(recorded).sources
    assert {name: counts.dropped.total() for name, counts in sources.items()} == {
        f"textos/{folder}": 50 for folder in range(4)
    }


def test_sources_with_names_of_their_own_stay_apart_and_are_not_too_many(recorded: PreparedData):
    write_rows(recorded.folder, dropped_from([f"fonte {place:02}" for place in range(50)]))
    sources = collect(recorded).sources
    assert len(sources) == 31 and sources["outras"].dropped == {"few_words": 20}
    assert sources["fonte 00"].dropped == {"few_words": 1}


def test_damaged_records_and_more_records_than_documents_are_told(recorded: PreparedData):
    many = [{"source": "a", "decision": "train", "attributes": {}}] * 100
    file = recorded.folder / "dropped.documents.gz"
    damaged = file.read_bytes()[:-30]
    write_rows(recorded.folder, many)
    with pytest.raises(SlmError) as caught:
        collect(recorded)
    assert caught.value.code == "E_DATA_CORRUPT"
    write_rows(recorded.folder, many[:1])
    file.write_bytes(damaged)
    with pytest.raises(SlmError) as caught:
        collect(recorded)
    assert caught.value.code == "E_DATA_CORRUPT"


def test_a_source_is_named_without_its_line():
    assert [source_of(name) for name in ("a.jsonl:17", "C:\\x.txt", "a.txt")] == [
        "a.jsonl",
        "C:\\x.txt",
        "a.txt",
    ]


def test_the_command_writes_the_page_and_replaces_only_a_page(recorded: PreparedData, cli: Callable):
    first = cli("data", "audit", recorded.folder, "--json", check=True)
    file = Path(json.loads(first.stdout)["file"])
    assert file == recorded.folder / "auditoria.html" and json.loads(first.stdout)["records"] is True
    content = file.read_bytes()
    cli("data", "audit", recorded.folder, check=True)
    assert file.read_bytes() == content
    other = recorded.folder.parent / "notas.html"
    other.write_text("minhas notas")
    done = cli("data", "audit", recorded.folder, "-o", other)
    assert done.returncode != 0 and "E_EXISTS" in done.stderr and other.read_text() == "minhas notas"


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="instale com: apt-get install chromium")
def test_in_a_browser_a_threshold_moves_and_nothing_is_asked_for(recorded: PreparedData, tmp_path: Path):
    playwright = pytest.importorskip("playwright.sync_api", reason="instale com: pip install playwright")
    file = tmp_path / "auditoria.html"
    file.write_text(render(collect(recorded)), encoding="utf-8")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 390, "height": 844}, locale="pt-BR").new_page()
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]")
        index = next(i for i, rule in enumerate(web_rules([])) if rule.figure == "words" and rule.is_least)
        rule = page.locator(f"#rule-{index}")
        rule.locator("summary").click()
        before = rule.locator(".share").inner_text()
        rule.locator("input[type=number]").fill("1000")
        assert rule.locator(".share").inner_text() == "sozinha, tiraria 100 %" != before
        assert "ficam 0 % dos documentos" in page.locator("#total-text").inner_text()
        page.locator("#reset").click()
        assert rule.locator(".share").inner_text() == before
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        browser.close()
    assert asked == [file.as_uri()] and not errors
