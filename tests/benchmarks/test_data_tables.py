"""The tables of docs/benchmarks.md about data: what is counted, apart from the texts that are counted."""

from __future__ import annotations

import base64
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ptbr_slm.data.document import Document
from ptbr_slm.data.presets import preset
from ptbr_slm.tokenizer import Tokenizer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PROSE = (
    "O ferreiro da vila acendeu o forno antes da missa, como fazia todos os dias do ano. "
    "A filha dele levou o balde até o poço, encheu a bacia e voltou sem dizer palavra. "
    "Quando o sino tocou, um cavalo que ninguém conhecia parou na porta com uma carta na sela. "
    "Ninguém na casa sabia ler, e por isso a carta ficou três semanas em cima da mesa da cozinha."
)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a script of benchmarks/, whose neighbours it imports by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == BENCHMARKS:
            del sys.modules[name]


def test_a_rule_is_counted_first_and_alone(script):
    rule_loss = script("rule_loss")
    numbers = "\n".join(["1234 5678 9012 3456 7890"] * 40)
    lost = " ".join(PROSE.replace("o", "�") for _ in range(2))
    documents = [Document(PROSE, "a"), Document(numbers, "b"), Document(lost, "c")]
    web, curated = (rule_loss.measure(documents, preset(name)) for name in ("web", "curated"))
    assert web.documents == 3 and web.dropped.total() == 2
    assert all(web.alone[rule] >= count for rule, count in web.dropped.items())
    assert web.alone.total() > 2  # the numbers break several rules
    assert 0 < sum(web.dropped_bytes.values()) < web.bytes
    assert curated.dropped == curated.alone == {"replacement_characters": 1}
    table = rule_loss.totals({"web": {"vila": web}, "curated": {"vila": curated}})
    assert "| vila | 3 |" in table and "66.7 %" in table and "33.3 %" in table


def test_what_is_repaired_is_counted_by_document(script):
    rule_loss = script("rule_loss")
    loss = rule_loss.measure(
        [Document("Uma pre\u00adparação simples.", "a"), Document(PROSE, "b")], preset("curated")
    )
    assert loss.repaired == {"invisible": 1} and loss.changed == 1
    assert "| vila: invisible | 1 | 50.0 % |" in rule_loss.by_repair({"vila": loss})


def test_documents_are_parted_by_blank_lines_in_a_file_and_by_files_in_a_folder(script, tmp_path):
    rule_loss = script("rule_loss")
    folder = tmp_path / "obras"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("Um parágrafo.\n\nOutro parágrafo.\n")
    assert [len(list(rule_loss.documents_of(path))) for path in (folder, folder / "a.txt")] == [2, 2]
    assert {one.text.count("parágrafo") for one in rule_loss.documents_of(folder)} == {2}


@pytest.mark.parametrize(("part", "whole", "told"), [(0, 9, "0 %"), (1, 9_999, "< 0.1 %"), (1, 3, "33.3 %")])
def test_a_share_that_is_not_zero_does_not_look_like_zero(script, part, whole, told):
    assert script("rule_loss").share(part, whole) == told


def test_theory_of_bands(script):
    duplicates = script("duplicates")
    shares = duplicates.shares_a_band(np.array([0.0, 0.5, 0.8, 1.0]))
    assert shares == pytest.approx([0, 1 - (1 - 0.5**5) ** 30, 0.99999, 1], abs=1e-4)


def test_a_group_is_never_over_the_split_and_a_pair_apart_mostly_is(script):
    duplicates = script("duplicates")
    pairs = 300
    grouped = np.arange(2 * pairs)
    grouped[pairs : pairs + 150] = np.arange(150)  # half of the copies are in their original's group
    held, apart = duplicates.split_pairs(grouped, np.full(2 * pairs, 1_000))
    assert held.sum() > 0 and apart[:150].sum() == 0
    assert apart[150:].sum() / held[150:].sum() > 0.9


def test_unknown_is_not_wrong(script):
    variety = script("variety")
    texts = ["O autocarro e o ficheiro do utilizador.", "O rio subiu.", "O gênero do fenômeno econômico."]
    judged = variety.judge(texts, "pt")
    assert (judged.answered, judged.right) == (2, 1)
    assert judged.cells() == ["3", "67 %", "50.0 %"]
    assert variety.judge([], "br").cells() == ["", "", ""]
    lines = variety.calibration([judged]).splitlines()
    assert len(lines) == 2 + len(variety.BINS) - 1


def test_ranks_of_js_tiktoken(script, tmp_path):
    fertility = script("fertility")
    tokens = [bytes([byte]) for byte in range(256)] + [b"ca", b"casa", b"sa"]
    ranks = f"! 0 {' '.join(base64.b64encode(token).decode() for token in tokens)}"
    body = {"pat_str": r"\p{L}+|\s+|[^\s\p{L}]+", "special_tokens": {}, "bpe_ranks": ranks}
    file = tmp_path / "ranks.js"
    file.write_text(f"export default {json.dumps(body)};")
    pattern, found = fertility.parse_js_ranks(file.read_text())
    assert pattern == body["pat_str"] and found == {token: rank for rank, token in enumerate(tokens)}
    assert fertility.open_vocabulary(file).encode_batch(["casa"]) == [[257]]
    with pytest.raises(SystemExit, match="not a ranks file"):
        fertility.parse_js_ranks("module.exports = {}")


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("casa,", "lower case"),
        ("“Casa", "capital"),
        ("guarda-chuva.", "lower case"),
        ("R$", "other"),
        ("1994", "other"),
    ],
)
def test_kinds_of_words(script, word, kind):
    assert script("fertility").kind_of(word) == kind


def test_tokens_of_the_kinds_add_up_to_those_of_the_text(script):
    fertility = script("fertility")
    encoder = Tokenizer.train([PROSE], 400)
    words = list(fertility.words_of([PROSE]))
    assert sum(map(len, encoder.encode_batch(words))) == len(encoder.encode_batch([f" {PROSE}"])[0])
    assert "| vila |" in fertility.kinds_table({"vila": [PROSE]}, encoder)


def test_news_held_out_are_one_document_of_ten_whatever_their_order(script, tmp_path):
    fertility = script("fertility")
    rows = [json.dumps({"source": f"porttinari:{i}", "text": f"n{i}"}) for i in range(500)]
    rows += [json.dumps({"source": "petrogold:1", "text": "tese"})]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "b.jsonl").write_text("\n".join(reversed(rows)))
    held, rest = fertility.split_dante(tmp_path / "a.jsonl")
    assert 25 < len(held) < 80 and len(held) + len(rest) == 501 and "tese" in rest
    assert set(fertility.split_dante(tmp_path / "b.jsonl")[0]) == set(held)
