"""Paragraphs repeated over documents in `prepare`: by source, with workers, after a kill; and records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prepared_texts import texts_of

from ptbr_slm.data import batches, encode
from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.index import SPLITS
from ptbr_slm.data.ingest import PrepareProgress
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.presets import Preset, preset
from ptbr_slm.data.recipe import Recipe, Source
from ptbr_slm.data.records import read_records
from ptbr_slm.data.stages import repeated_paragraphs
from ptbr_slm.data.stages.clean import Clean
from ptbr_slm.data.stages.figures import Figures
from ptbr_slm.data.stages.length import AtLeastTwoWords
from ptbr_slm.data.stages.repeated_paragraphs import COPIES, RemoveRepeatedParagraphs
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer

NOTICE = "Esta página é um serviço do portal da cidade, e não substitui o que sai no diário oficial."
STAGES = Preset("own", (Clean(), RemoveRepeatedParagraphs()), (Figures(),), (AtLeastTwoWords(),))


@pytest.fixture
def pages(tmp_path: Path, prose: Callable[..., str]) -> Path:
    """60 pages of a site: each has its own text and the notice; every tenth has the notice alone."""
    with (tmp_path / "site.jsonl").open("w") as file:
        for number in range(60):
            own = "" if number % 10 == 9 else prose(number, 12) + "\n"
            file.write(json.dumps({"text": own + NOTICE}) + "\n")
    return tmp_path / "site.jsonl"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def texts(data: PreparedData, tokenizer: Tokenizer) -> list[str]:
    return [text for name in SPLITS for text in texts_of(data, name, tokenizer)]


def recipe_of(path: Path, stages: Preset = STAGES) -> Recipe:
    return Recipe((Source((path,), name="site", stages=stages),), None, keep_records=True)


def test_repeated_paragraphs_go_and_are_counted_and_figures_are_of_what_is_left(
    pages: Path, tmp_path: Path, tokenizer: Tokenizer
):
    counts = DocumentCounts()
    data = prepare([], tmp_path / "dados", tokenizer, recipe=recipe_of(pages), counts=counts)
    found = texts(data, tokenizer)
    assert sum(NOTICE in text for text in found) == COPIES and len(found) == 54
    assert dict(counts.dropped) == {"only_repeated_paragraphs": 6}
    assert dict(counts.repaired) == {"repeated_paragraphs": 54 - COPIES}
    assert data.index.recipe["sources"][0]["dropped"] == {"only_repeated_paragraphs": 6}
    dropped = list(read_records(data.folder, "dropped"))
    assert {(r.stage, r.reason) for r in dropped} == {("repeated_paragraphs", "only_repeated_paragraphs")}
    assert dropped[0].excerpt == NOTICE and dropped[0].source.endswith("site.jsonl:10")
    words = {r.attributes["words"] for r in read_records(data.folder, "train")}
    assert max(words) - min(words) > 0 and len(NOTICE.split()) < min(words)
    for record in read_records(data.folder, "train"):
        assert record.bytes == len(next(t for t in found if len(t.encode()) == record.bytes).encode())


def test_sources_that_do_not_ask_are_neither_changed_nor_looked_at(
    pages: Path, tmp_path: Path, tokenizer: Tokenizer
):
    assert RemoveRepeatedParagraphs() in preset("web").cleaning
    assert not any(RemoveRepeatedParagraphs() in preset(name).all for name in ("curated", "none"))
    books = tmp_path / "livros.jsonl"
    books.write_text("".join(json.dumps({"text": f"Livro {i}.\n{NOTICE}"}) + "\n" for i in range(5)))
    sources = (Source((books,), stages=preset("curated")), Source((pages,), stages=STAGES))
    data = prepare([], tmp_path / "dados", tokenizer, recipe=Recipe(sources, None))
    found = texts(data, tokenizer)
    assert sum(text.startswith("Livro") and NOTICE in text for text in found) == 5
    assert sum(NOTICE in text for text in found) == 5 + COPIES


def test_the_number_of_workers_changes_no_byte(
    pages: Path, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 2_000)
    one = prepare([], tmp_path / "um", tokenizer, recipe=recipe_of(pages))
    two = prepare([], tmp_path / "dois", tokenizer, recipe=recipe_of(pages), workers=2)
    assert contents(one.folder) == contents(two.folder)
    assert one.index.repaired == {"repeated_paragraphs": 54 - COPIES}


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from test_ingest import recipe_of
from ptbr_slm.data import batches, encode
from ptbr_slm.data.stages import repeated_paragraphs
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.tokenizer import Tokenizer

def slow(now):
    time.sleep(0.02)
    print(now.tokens, flush=True)

if __name__ == "__main__":
    encode.BATCH_CHARACTERS, batches.CHECKPOINT_CHARACTERS = 1_500, 4_000
    repeated_paragraphs.MEMORY = 1 << 12
    recipe = recipe_of(Path("site.jsonl"))
    prepare([], Path("dados"), Tokenizer.load(Path(sys.argv[1])), recipe=recipe, progress=slow,
            workers=int(sys.argv[2]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_knows_the_paragraphs_that_it_has_seen(
    pages: Path, tmp_path: Path, tokenizer: Tokenizer, tokenizer_file: Path, workers: int,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    (tmp_path / "killed.py").write_text(KILLED)
    here = Path(__file__).parent
    command = [sys.executable, "killed.py", str(tokenizer_file), str(workers), here, here.parent / "support"]
    for lines in (8, 6):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        left = next(tmp_path.glob(".dados.preparing-*"))
        saved = json.loads((left / "checkpoint.json").read_text())
        assert any(name.startswith("paragraphs-") for name in saved["sizes"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 1_500)
    monkeypatch.setattr(batches, "CHECKPOINT_CHARACTERS", 4_000)
    monkeypatch.setattr(repeated_paragraphs, "MEMORY", 1 << 12)
    recipe = recipe_of(Path("site.jsonl"))
    resumed_events: list[PrepareProgress] = []
    resumed = prepare([], Path("dados"), tokenizer, recipe=recipe, progress=resumed_events.append)
    fresh_events: list[PrepareProgress] = []
    fresh = prepare([], Path("inteiro"), tokenizer, recipe=recipe, progress=fresh_events.append)
    assert contents(resumed.folder) == contents(fresh.folder) and not list(tmp_path.glob(".dados*"))
    assert len(resumed_events) < len(fresh_events)
    assert fresh.index.repaired == {"repeated_paragraphs": 54 - COPIES}


def test_a_disk_too_small_for_the_paragraphs_that_were_seen_is_told_and_the_earlier_data_stay(
    pages: Path, small_disk: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 2_000)
    before = prepare([], small_disk / "dados", tokenizer, recipe=recipe_of(pages)).sha256
    monkeypatch.setattr(batches, "CHECKPOINT_CHARACTERS", 4_000)
    with pytest.raises(SlmError) as error:
        prepare([], small_disk / "dados", tokenizer, recipe=recipe_of(pages), seed=3)
    assert error.value.code == "E_DISK_FULL"
    assert PreparedData.open(small_disk / "dados").sha256 == before
    assert [path.name for path in small_disk.iterdir()] == ["dados"]


def test_a_record_of_a_paragraph_says_its_number(tmp_path: Path, tokenizer: Tokenizer):
    path = tmp_path / "a.txt"
    path.write_text("O primeiro parágrafo daqui.\n\nsó\n\nO terceiro parágrafo daqui.\n")
    source = Source((path,), paragraph_documents=True)
    data = prepare([], tmp_path / "dados", tokenizer, recipe=Recipe((source,), None, keep_records=True))
    assert {record.source for name in SPLITS for record in read_records(data.folder, name)} == {
        f"{path}:1", f"{path}:3"
    }  # fmt: skip
    assert [record.source for record in read_records(data.folder, "dropped")] == [f"{path}:2"]
