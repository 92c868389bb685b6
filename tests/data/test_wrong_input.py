"""Wrong lines are counted below a limit; above it the run stops in our form, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptbr_slm.data import batches, encode
from ptbr_slm.data.document import REASONS, Document, DocumentCounts, Skipped
from ptbr_slm.data.index import SPLITS
from ptbr_slm.data.ingest import PrepareProgress
from ptbr_slm.data.mixture import load_mixture
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.recipe import Recipe, Source
from ptbr_slm.data.wrong_input import ALWAYS_ALLOWED, WRONG, SourceLimit, WrongInputLimits
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer


def write(path: Path, good: int, wrong: int, bad_line: str = "isto não é JSON") -> Path:
    """`wrong` lines among `good` ones, the wrong ones spread evenly."""
    lines = [json.dumps({"text": f"Um texto bom de número {i}."}) for i in range(good)]
    for number in range(wrong):
        lines.insert(number * len(lines) // max(wrong, 1), bad_line)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_reason_that_counts_as_wrong_is_one_of_the_report():
    assert set(REASONS) >= WRONG and "empty" not in WRONG and "unknown_format" not in WRONG


@pytest.mark.parametrize(("good", "wrong"), [(0, 1), (50, 100), (11_000, 110)])
def test_below_the_limit_wrong_lines_are_counted_and_named(
    tmp_path: Path, tokenizer: Tokenizer, good: int, wrong: int
):
    (tmp_path / "b.txt").write_text("Um texto bom que vem depois.")
    counts = DocumentCounts()
    inputs = [write(tmp_path / "a.jsonl", good, wrong), tmp_path / "b.txt"]
    data = prepare(inputs, tmp_path / "dados", tokenizer, counts=counts)
    assert sum(data.split(name).documents for name in SPLITS) == good + 1
    assert counts.dropped["bad_json"] == wrong and counts.examples["bad_json"][0].endswith("a.jsonl:1")


@pytest.mark.parametrize("workers", [1, 2])
def test_above_the_limit_the_run_stops_with_what_to_type_and_the_earlier_data_stay(
    tmp_path: Path, tokenizer: Tokenizer, workers: int
):
    (tmp_path / "antes.txt").write_text("Um texto que já estava pronto.")
    before = prepare([tmp_path / "antes.txt"], tmp_path / "dados", tokenizer).sha256
    source = Source((write(tmp_path / "a.jsonl", 900, 101),), name="jornal")
    with pytest.raises(SlmError) as error:
        prepare([], tmp_path / "dados", tokenizer, recipe=Recipe((source,), None), workers=workers)
    told = error.value
    assert told.code == "E_DATA_WRONG" and told.exit_code == 1 and told.where == f"{tmp_path}/a.jsonl:1"
    assert "101 das 1.001" in told.message and "jornal" in told.message and "1,0 %" in told.message
    assert "101 × linha que não é JSON" in told.message
    assert "--max-wrong" in str(told.hint) and "max_wrong" in str(told.hint)
    assert PreparedData.open(tmp_path / "dados").sha256 == before and not list(tmp_path.glob(".dados*"))
    wider = Recipe((replace(source, max_wrong=0.2),), None)
    data = prepare([], tmp_path / "dados", tokenizer, recipe=wider, workers=workers)
    assert sum(data.split(name).documents for name in SPLITS) == 900


def test_another_field_for_the_text_is_told_as_such(tmp_path: Path, tokenizer: Tokenizer):
    path = write(tmp_path / "a.jsonl", 10, 200, json.dumps({"corpo": "Um texto noutro campo."}))
    with pytest.raises(SlmError) as error:
        prepare([path], tmp_path / "dados", tokenizer)
    assert error.value.code == "E_DATA_WRONG" and "--text-field" in str(error.value.hint)


def test_each_source_has_its_own_limit(tmp_path: Path, tokenizer: Tokenizer):
    good = Source((write(tmp_path / "a.jsonl", 30_000, 0),), name="boa")
    bad = Source((write(tmp_path / "b.jsonl", 1_000, 150),), name="ruim")
    for order in ((good, bad), (bad, good)):
        with pytest.raises(SlmError) as error:
            prepare([], tmp_path / "dados", tokenizer, recipe=Recipe(order, None))
        assert error.value.code == "E_DATA_WRONG" and "de ruim" in error.value.message


def test_it_stops_early_and_goes_on_from_its_checkpoint_when_the_limit_is_raised(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 2_000)
    monkeypatch.setattr(batches, "CHECKPOINT_CHARACTERS", 6_000)
    path = write(tmp_path / "a.jsonl", 3_000, 0)
    path.write_text(path.read_text() + "nada\n" * 2_000 + path.read_text().replace("bom", "novo"))
    recipe = Recipe((Source((path,)),), None)
    events: list[PrepareProgress] = []
    with pytest.raises(SlmError) as error:
        prepare([], tmp_path / "dados", tokenizer, recipe=recipe, progress=events.append)
    assert error.value.code == "E_DATA_WRONG" and events[-1].input_bytes < path.stat().st_size
    again: list[PrepareProgress] = []
    wider = Recipe((Source((path,), max_wrong=1.0),), None)
    data = prepare([], tmp_path / "dados", tokenizer, recipe=wider, progress=again.append)
    assert again[0].tokens > events[0].tokens
    fresh = prepare([], tmp_path / "outra", tokenizer, recipe=wider)
    assert data.sha256 == fresh.sha256 and data.index.dropped == fresh.index.dropped == {"bad_json": 2_000}


@given(found=st.lists(st.one_of(st.none(), st.integers(1, 300)), max_size=60), cut=st.integers(0, 60))
def test_a_limit_counts_on_where_an_earlier_run_ended(found: list[int | None], cut: int):
    items = [Document("", "a") if n is None else Skipped("corrupt_rows", f"a:{n}", n) for n in found]
    whole = SourceLimit("a", 0.5, 0)
    for item in items:
        whole.add(item)
    first = WrongInputLimits([SourceLimit("a", 0.5, 0)], {})
    for item in items[:cut]:
        first.add(0, item)
    second = WrongInputLimits([SourceLimit("a", 0.5, 0)], json.loads(json.dumps(first.state())))
    for item in items[cut:]:
        second.add(0, item)
    assert second.state() == WrongInputLimits([whole], {}).state()
    wrong = sum(n or 0 for n in found)
    if wrong > ALWAYS_ALLOWED and wrong > 0.5 * whole.items:
        with pytest.raises(SlmError):
            second.check()
    else:
        second.check()


def test_a_broken_part_at_the_beginning_of_a_large_file_is_judged_by_the_whole_of_it():
    limit = SourceLimit("a", 0.01, size=1_000_000)
    limit.add(Skipped("corrupt_rows", "a:1", 1_000))
    for _ in range(1_000):
        limit.add(Document("", "a"))
    limit.check(read=5_000)  # 400,000 rows are expected, and 4,000 of them may be wrong
    with pytest.raises(SlmError):
        limit.check(read=100_000)


def test_the_limit_is_an_option_of_the_command_line_and_of_each_source(
    tmp_path: Path, tokenizer_file: Path, cli: Callable
):
    write(tmp_path / "a.jsonl", 300, 150)
    options = ("-o", "dados", "--tokenizer", tokenizer_file)
    stopped = cli("data", "prepare", "a.jsonl", *options)
    assert stopped.returncode == 1 and "[E_DATA_WRONG]" in stopped.stderr and "a.jsonl:1" in stopped.stderr
    assert "--max-wrong" in stopped.stderr and not (tmp_path / "dados").exists()
    done = cli("data", "prepare", "a.jsonl", *options, "--max-wrong", "0.5", "--json", check=True)
    assert json.loads(done.stdout)["dropped"] == {"bad_json": 150}
    assert cli("data", "prepare", "a.jsonl", *options, "--max-wrong", "2").returncode == 2
    (tmp_path / "m.toml").write_text('[[source]]\ninputs = "a.jsonl"\nmax_wrong = 0.5\n')
    assert load_mixture(tmp_path / "m.toml").sources[0].max_wrong == 0.5
    for wrong in ("2", "true", '"tudo"'):
        (tmp_path / "m.toml").write_text(f'[[source]]\ninputs = "a.jsonl"\nmax_wrong = {wrong}\n')
        with pytest.raises(SlmError) as error:
            load_mixture(tmp_path / "m.toml")
        assert error.value.code == "E_CONFIG" and "max_wrong" in str(error.value)
