"""`bench generate`: real processes on a tiny model, rows that say what cannot run, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from ptbr_slm.bench import generate_report as tables
from ptbr_slm.bench.generate import (
    Candidate,
    CaseResult,
    Figures,
    GenerateBench,
    GenerateCase,
    GenerateOptions,
    Spread,
    bench_generate,
    result_from,
)
from ptbr_slm.bench.generate_measure import measure, weight_bytes
from ptbr_slm.bench.generate_report import picture
from ptbr_slm.bench.machine import machine, read_bandwidth
from ptbr_slm.bench.synthetic import random_weights, write_random_model
from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder

pytest.importorskip("onnxruntime", reason="falta o onnxruntime: pip install 'ptbr-slm[cpu]'")
pytest.importorskip("onnx_ir", reason="falta o onnx-ir: pip install 'ptbr-slm[export]'")

TINY = ModelConfig(
    vocab_size=400, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
    intermediate_size=96, max_seq_len=80,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "modelo"
    write_random_model(folder, TINY)
    return folder


@pytest.fixture(scope="module")
def exports(model) -> dict[str, Path]:
    from ptbr_slm_export import export_model

    made = {precision: model.parent / precision for precision in ("fp32", "int4")}
    for precision, path in made.items():
        export_model(model, path, precision=precision, verify=False)
    return made


def test_two_exports_side_by_side_give_a_table_a_document_and_a_picture(
    run, exports, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("ptbr_slm.bench.generate.COLD_RUNS", 1)
    done = run("bench", "generate", "-m", exports["int4"], "--against", exports["fp32"], "--batch", "1,3",
               "--prompt", "5,90", "--decode", "4", "--rounds", "2", "-o", tmp_path / "saida",
               check=True)  # fmt: skip
    assert "escrita, tokens/s" in done.stdout and "int4 / fp32, lote 3, texto 5: escrita" in done.stdout
    assert "90 + 4 tokens não cabem no contexto de 80" in done.stdout
    body = json.loads((tmp_path / "saida" / "generate.json").read_text(encoding="utf-8"))
    assert body["bandwidth_bytes_per_second"] > 1e8 and body["threads"] == 1
    assert [candidate["name"] for candidate in body["entrants"]] == ["int4", "fp32"]
    for candidate in body["entrants"]:
        assert candidate["cold"]["median"] > 0
        assert [result["case"]["batch"] for result in candidate["results"]] == [1, 3]
        for result in candidate["results"]:
            assert result["status"] == "ok" and result["device"] == "cpu" and result["peak_bytes"] > 1 << 20
            (figures,) = result["figures"]
            assert figures["kv_bytes"] > 0 and figures["bandwidth_share"] > 0  # above 1 out of a fast cache
            for name in ("prefill", "decode", "first_token_s"):
                assert 0 < figures[name]["low"] <= figures[name]["median"] <= figures[name]["high"]
    page = (tmp_path / "saida" / "generate.md").read_text(encoding="utf-8")
    assert page.count("\n| int4 |") == 2 and "Medido em" in page
    ElementTree.fromstring((tmp_path / "saida" / "generate.svg").read_text(encoding="utf-8"))


def test_the_weights_of_a_step_are_those_it_multiplies_with(exports, model) -> None:
    config = ModelFolder(model).config
    matrices = config.num_parameters - (2 * config.num_layers + 1) * config.hidden_size
    fp32 = weight_bytes(exports["fp32"], config)
    assert fp32 == pytest.approx(4 * matrices, rel=0.02)  # small tensors lie in the graph itself
    assert weight_bytes(exports["int4"], config) < fp32 / 3
    assert weight_bytes(model, config) == 4 * config.num_parameters


def test_measuring_an_export_imports_no_torch(exports, tmp_path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom ptbr_slm.bench.generate_measure import measure, GenerateCase\n"
        f"done = measure(GenerateCase(path={str(exports['int4'])!r}, prompts=(4,), decode=2, rounds=1))\n"
        "assert done.status == 'ok', done.reason\nassert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_run_is_a_row_with_its_reason(tmp_path, exports) -> None:
    asked = GenerateCase(path=str(tmp_path), prompts=(4,), decode=2, rounds=1)
    broken = measure(asked)
    assert broken.status == "error" and broken.reason.startswith("E_")
    candidates = (Candidate(name="quebrado", path="x", results=[broken]),)
    bench = GenerateBench(machine=machine("cpu"), threads=1, bandwidth=1e9, candidates=candidates)
    assert tables.rows(bench)[0][4] == "erro" and broken.reason in "\n".join(tables.remarks(bench))
    ElementTree.fromstring(picture(bench))
    assert result_from(json.loads(json.dumps(broken.to_json()))) == broken


def test_the_share_is_bytes_of_a_step_times_steps_over_bandwidth() -> None:
    figures = Figures(
        prompt=8, batch=4, prefill=Spread(1, 1, 1), first_token_s=Spread(1, 1, 1),
        decode=Spread(400, 300, 500), step_bytes=50_000_000, kv_bytes=1,
    )  # fmt: skip
    bench = GenerateBench(machine=machine("cpu"), threads=1, bandwidth=10e9, candidates=())
    assert bench.share(figures) == pytest.approx(0.5)  # 100 steps a second of 50 MB, of 10 GB/s
    case = CaseResult(case=GenerateCase(path="x"), device="cpu", figures=(figures,))
    assert result_from(json.loads(json.dumps(case.to_json()))) == case


def test_the_memory_is_read_at_a_plausible_speed() -> None:
    assert 1e8 < read_bandwidth(1, megabytes=16, repeats=2) < 1e12


def test_random_weights_fill_a_folder_that_opens_and_are_drawn_like_pytorchs(model) -> None:
    from ptbr_slm.model import Llama

    weights = random_weights(TINY, 0)
    fresh = Llama(TINY).initialize(0).to_hf_weights()
    assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in fresh.items()}
    for name, w in weights.items():
        if w.ndim == 2:
            doubled = 2 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1
            assert np.std(w) == pytest.approx(doubled * np.std(fresh[name]), rel=0.1), name
    assert Llama.from_folder(model).config == TINY


def test_a_size_without_a_model_is_drawn_exported_and_measured(run, monkeypatch) -> None:
    monkeypatch.setattr("ptbr_slm.config.model_config", lambda size: TINY)  # 32,000 tokens take seconds
    done = run("bench", "generate", "--size", "nano", "--precision", "int8", "--batch", "1", "--prompt", "8",
               "--decode", "2", "--rounds", "1", "--no-cold", "--json", check=True)  # fmt: skip
    (candidate,) = json.loads(done.stdout)["entrants"]
    assert candidate["name"] == "nano int8" and candidate["results"][0]["precision"] == "int8"
    assert candidate["cold"] is None


def test_transformers_as_a_peer_reads_the_model_folder(exports, model) -> None:
    pytest.importorskip("transformers", reason="falta o transformers: pip install transformers")
    from ptbr_slm.bench.generate_measure import TransformersRunner
    from ptbr_slm.runtime.load import open_engine

    prompts = [[7, 8, 9, 10], [11, 12, 13, 14]]
    peer, engine = TransformersRunner(model, "cpu"), open_engine(exports["fp32"], "cpu")
    for _ in range(2):  # the cache is used again
        found = [peer.prefill(prompts, 8), peer.decode([20, 21])]
        engine.reset(2, 8)
        expected = [np.stack([engine.prefill(row, text) for row, text in enumerate(prompts)])]
        expected.append(engine.decode([0, 1], [20, 21]))
        for ours, theirs in zip(expected, found, strict=True):
            np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert peer.kv_bytes and peer.device == "cpu"
    engine.close()
    peer.close()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("-m", "nada"),
        ("--size", "85m", "-m", "x"),
        ("--size", "9000b"),
        ("--size", "nano", "--precision", "int3"),
        ("-m", "nada", "--batch", "um"),
        ("-m", "nada", "--batch", "0"),
        ("-m", "nada", "--batch", "1000"),
        ("-m", "nada", "--decode", "-1"),
        ("-m", "nada", "--prompt", ""),
    ],
)
def test_what_cannot_be_measured_is_refused_in_three_lines(run, arguments) -> None:
    done = run("bench", "generate", *arguments)
    assert done.returncode in (1, 2) and "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("sorteando")]
    assert lines[0].startswith("Erro [E_") and len(lines) == 3


def test_an_export_that_is_not_there_is_said_before_anything_is_measured(tmp_path) -> None:
    with pytest.raises(SlmError) as error:
        bench_generate([("a", tmp_path / "nada")], GenerateOptions())
    assert error.value.code == "E_NOT_FOUND"
