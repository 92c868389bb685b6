"""`bench train`: real processes on nano, rows that say what cannot run, and the files that it writes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ptbr_slm.bench.train import (
    Bench,
    Case,
    Result,
    TrainOptions,
    _repeats,
    _within,
    cases,
    machine,
    result_from,
)
from ptbr_slm.bench.train_report import HEADER, explanation, markdown, rows
from ptbr_slm.errors import Exit

torch = pytest.importorskip("torch", reason="falta o torch: pip install 'ptbr-slm[train]'")

NANO = Case(size="nano", label="plano", device="cpu", seq_len=16, seconds=0.2, batch_size=2)
GIB = 1 << 30


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_the_table_of_a_real_bench_has_speed_memory_and_the_plan(run, tmp_path: Path) -> None:
    done = run("bench", "train", "--sizes", "nano", "--seconds", "0.2", "--seq-len", "16", "--no-variants",
               "-o", tmp_path / "saida", "--device", "cpu", check=True)  # fmt: skip
    assert "tokens/s" in done.stdout and "nano" in done.stdout
    body = json.loads((tmp_path / "saida" / "bench-train.json").read_text(encoding="utf-8"))
    (found,) = body["results"]
    assert found["status"] == "ok" and found["tokens_per_second"] > 0 and found["mfu_gemm"] > 0
    assert found["mfu"] is None  # a CPU has no data sheet here: never 0
    assert found["peak_bytes"] > 0 and found["predicted_bytes"] > 0
    assert found["first_loss"] == pytest.approx(10.37, rel=0.05)  # ln 32,000: it trains the real model
    assert {"torch", "cpu", "date", "ptbr_slm", "gpus"} <= set(body["machine"])
    page = (tmp_path / "saida" / "bench-train.md").read_text(encoding="utf-8")
    assert page.count("\n| nano |") == 1 and "Medido em" in page


def test_what_cannot_run_says_why_in_its_row_and_the_others_go_on() -> None:
    result = _within(replace(NANO, optimizer="sgd"), left_s=60)
    assert result.status == "error" and "optimizer.name" in result.reason
    assert "erro" in rows([result])[0]


def test_a_case_that_no_longer_fits_into_the_minutes_is_named_not_dropped() -> None:
    result = _within(NANO, left_s=0.0)
    assert result.status == "skipped" and "--minutes" in result.reason


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limite de memória por processo só em Unix")
def test_an_out_of_memory_is_shown_as_that_with_the_predicted_bytes(monkeypatch, tmp_path: Path) -> None:
    from ptbr_slm.bench import train_measure as measure

    def no_room(*arguments: object, **more: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(measure.Trainer, "step_once", no_room)
    result = measure.measure(NANO, tmp_path)
    assert result.status == "oom" and result.predicted_bytes and result.peak_bytes is None
    assert "OOM" in rows([result])[0] and "GiB" in explanation(result)


def test_what_the_plan_refuses_is_an_out_of_memory_too(monkeypatch, tmp_path: Path) -> None:
    from ptbr_slm.bench import train_measure as measure
    from ptbr_slm.train.planning import plan

    monkeypatch.setattr(plan, "memory_bytes", lambda: GIB)
    result = measure.measure(replace(NANO, size="800m", batch_size=0, seq_len=256), tmp_path)
    assert result.status == "oom" and "E_MEMORY" in result.reason


def test_a_process_killed_by_the_system_counts_as_out_of_memory(monkeypatch) -> None:
    from ptbr_slm.bench import train

    assert train._died(NANO, -9, "").status == "oom"
    assert "ValueError: x" in train._died(NANO, 1, "Traceback\nValueError: x\n").reason


def test_cases_come_in_the_order_of_what_is_worth_knowing_first() -> None:
    options = TrainOptions(device="cuda", cards=2, sizes=("85m", "400m"), seq_len=1024)
    labels = [(case.size, case.label, case.ranks) for case in cases(options)]
    assert labels[:4] == [
        ("85m", "plano", 2), ("400m", "plano", 2), ("85m", "uma GPU", 1), ("400m", "uma GPU", 1),
    ]  # fmt: skip
    assert {"muon", "adamw8bit", "compile", "perda plain", "checkpointing full"} <= {one[1] for one in labels}
    assert len(list(cases(replace(options, variants=False, cards=1)))) == 2


def test_a_variant_that_the_plan_chose_anyway_is_not_measured_again() -> None:
    plan = Result(case=NANO, status="ok", checkpointing="none", loss="chunked")
    assert _repeats(replace(NANO, label="checkpointing none", checkpointing="none"), [plan])
    assert not _repeats(replace(NANO, label="checkpointing full", checkpointing="full"), [plan])


def test_results_survive_the_way_through_json_and_fill_every_column() -> None:
    full = Result(case=NANO, status="ok", batch_size=2, checkpointing="none", loss="chunked", mfu=0.21,
                  mfu_gemm=0.6, tokens_per_second=22_000.0, predicted_tokens_per_second=23_000.0,
                  predicted_bytes=7 * GIB, peak_bytes=7 * GIB + GIB // 2, reserved_bytes=8 * GIB,
                  skipped_steps=1)  # fmt: skip
    assert result_from(json.loads(json.dumps(full.to_json()))) == full
    assert full.memory_error == pytest.approx(-0.067, abs=0.001)
    bare = Result(case=NANO, status="time", reason="não terminou em 90 s")
    assert all(len(row) == len(HEADER) for row in rows([full, bare]))
    page = markdown(Bench(machine=machine("cpu"), results=(full, bare)))
    assert "21,0 %" in page and "Sem medida:" in page and "não terminou em 90 s" in page


def test_an_unknown_size_is_answered_with_the_sizes(run) -> None:
    done = run("bench", "train", "--sizes", "1b")
    assert done.returncode == Exit.USAGE and "E_MODEL_SIZE" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--sizes", "9000b"),
        ("--sizes", ","),
        ("--device", "tpu"),
        *([] if torch.cuda.is_available() else [("--device", "cuda")]),
        ("--seq-len", "0"),
        ("--seconds", "nan"),
        ("--seconds", "-1"),
    ],
)
def test_what_was_asked_is_never_measured_as_something_else(run, arguments) -> None:
    done = run("bench", "train", *arguments)
    assert done.returncode in (1, 2) and done.stderr.startswith("Erro [E_")
    assert len(done.stderr.strip().splitlines()) == 3
