"""What only a CUDA card can tell about exports: `pytest -m gpu`. Not run on one yet.

The same scenarios run every day over a simulated card: tests/runtime/test_simulated_cuda.py.
"""

from __future__ import annotations

import subprocess
import time

import gpu_scenarios_runtime as scenarios
import numpy as np
import onnxruntime
import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.gpus import find_gpus
from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not find_gpus() or "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason='precisa de uma GPU e de onnxruntime-gpu: pip install "onnxruntime-gpu[cuda,cudnn]==1.31.1"',
    ),
]


@pytest.fixture(scope="module", params=scenarios.PRECISIONS)
def folder(request, cuda_exports):
    """An export for CUDA in each precision."""
    return cuda_exports[request.param]


@pytest.fixture(scope="module")
def engine(folder):
    """Opening it asserts that every node ran on the card, with no copy."""
    engine = OnnxEngine(folder)
    yield engine
    engine.close()


@pytest.mark.parametrize("precision", scenarios.PRECISIONS)
def test_the_users_commands_export_verify_and_generate(cli, model_folder, tmp_path, precision):
    scenarios.commands_export_verify_and_generate(cli, model_folder, tmp_path / "e", precision)


def test_it_runs_on_the_card_and_says_so(engine):
    scenarios.runs_whole_and_says_so(engine)
    assert engine.describe()["device_name"]


def test_the_cards_logits_are_those_of_the_same_graph_on_the_cpu(engine, folder, ids):
    scenarios.logits_are_the_cpus(engine, folder, ids)


def test_slots_grow_move_and_share_prefixes(engine, folder, ids):
    scenarios.slots_grow_move_and_share_prefixes(engine, folder, ids)


def test_captured_steps_write_the_same_texts_through_growing_buckets(folder, ids):
    scenarios.captured_steps_are_the_plain_ones(folder, ids)


@pytest.mark.parametrize("options", scenarios.CHOSEN_ON_THE_CARD + scenarios.CHOSEN_ON_THE_HOST)
def test_tokens_chosen_on_the_card_are_numpys(folder, monkeypatch, options):
    scenarios.tokens_of_the_card_are_numpys(folder, monkeypatch, options)


@pytest.mark.parametrize("options", [{}, {"lookahead": 4}])
def test_greedy_texts_are_good_ones_for_the_cpu(folder, options):
    scenarios.greedy_texts_are_good_ones_for_the_cpu(folder, **options)


def test_memory_of_the_card_stays_where_it_was_after_many_texts(folder):
    def used() -> int:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        done = subprocess.run(query, capture_output=True, text=True, check=True)
        return int(done.stdout.split()[0]) << 20

    assert scenarios.memory_stays_after_many_texts(folder, used, rounds=20) < 64 << 20


def test_a_captured_step_is_not_slower_than_a_plain_one(folder, ids):
    """Launches are most of a small model's step: 20 to 45 % less is reported (onnxruntime-genai#2070)."""
    medians = []
    for graphs in (True, False):
        engine = OnnxEngine(folder, cuda_graph=graphs)
        engine.reset(1, 256)
        engine.prefill(0, ids[:16])
        times = []
        for _ in range(200):
            started = time.perf_counter()
            engine.decode([0], [7])
            times.append(time.perf_counter() - started)
        medians.append(float(np.median(times[50:])))
        engine.close()
    assert medians[0] < medians[1] * 1.05


def test_an_export_for_the_cpu_is_refused_on_the_card(export_folder):
    with pytest.raises(SlmError) as error:
        OnnxEngine(export_folder, "cuda")
    assert error.value.code == "E_PROVIDER"
