"""What only a CUDA card can tell about exports: `pytest -m gpu`. Written for a T4; not run on one yet."""

from __future__ import annotations

import time

import numpy as np
import onnxruntime
import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.load import open_oracle
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.onnx.engine import OnnxEngine
from ptbr_slm.system import find_gpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not find_gpus() or "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason='precisa de uma GPU e de onnxruntime-gpu: pip install "onnxruntime-gpu[cuda,cudnn]==1.31.1"',
    ),
]

PROMPTS = ["O Brasil é", "Era uma vez, numa cidade pequena do interior,", "A"]


@pytest.fixture(scope="module", params=["fp16", "int8", "int4"])
def folder(request, model_folder, tmp_path_factory):
    """An export for CUDA in each precision."""
    from ptbr_slm_export import export_model

    path = tmp_path_factory.mktemp("gpu") / request.param
    export_model(model_folder, path, target="cuda", precision=request.param, verify=False)
    return path


@pytest.fixture(scope="module")
def engine(folder):
    """Opening it asserts that every node ran on the card, with no copy."""
    engine = OnnxEngine(folder)
    yield engine
    engine.close()


def test_it_runs_on_the_card_and_says_so(engine):
    facts = engine.describe()
    assert engine.device == "cuda" and facts["provider"] == "CUDAExecutionProvider"
    assert facts["cuda_graph"] is True and facts["device_name"]
    assert engine.draws_tokens


def test_the_cards_logits_are_those_of_the_same_graph_on_the_cpu(engine, folder, ids):
    oracle = open_oracle(folder)
    expected, found = oracle.logits(ids[:300]), engine.logits(ids[:300])
    assert np.abs(found - expected).max() < 0.05 * expected.std()
    engine.reset(3, 640)
    for row in range(3):
        engine.prefill(row, ids[row : row + 50 * (row + 1)])
    for step in range(20):  # a ragged batch, each row against the whole text
        found = engine.decode([2, 0, 1], [ids[400 + step]] * 3)
    for place, row in enumerate([2, 0, 1]):
        text = [*ids[row : row + 50 * (row + 1)], *ids[400:420]]
        assert np.abs(found[place] - oracle.logits(text)[-1]).max() < 0.05 * expected.std()
    oracle.close()


def test_captured_steps_write_the_same_texts_through_growing_buckets(folder, ids):
    texts = []
    for graphs in (True, False):
        engine = OnnxEngine(folder, cuda_graph=graphs)
        engine.reset(2, 640)
        tokens = [int(engine.prefill(row, ids[row : row + 230]).argmax()) for row in range(2)]
        found = [tokens]
        for _ in range(60):  # from the bucket of 256 into that of 512
            found.append([int(row.argmax()) for row in engine.decode([0, 1], found[-1])])
        texts.append(found)
        engine.close()
    assert texts[0] == texts[1]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 0.8, "top_k": 20, "seed": 3}])
def test_tokens_chosen_on_the_card_are_numpys(folder, monkeypatch, options):
    with Model(folder) as model:
        drawn = model.generate(PROMPTS, max_new_tokens=32, **options)
        monkeypatch.setattr(OnnxEngine, "draws_tokens", False)
        assert model.generate(PROMPTS, max_new_tokens=32, **options) == drawn


def test_memory_of_the_card_stays_where_it_was_after_many_texts(folder):
    import subprocess

    def used() -> int:
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0])

    with Model(folder) as model:
        model.generate(PROMPTS, max_new_tokens=300)
        before = used()
        for _ in range(20):
            model.generate(PROMPTS, max_new_tokens=300)
        assert used() - before < 64  # MiB


def test_a_captured_step_is_not_slower_than_a_plain_one(folder, ids):
    """Launches are most of a small model's step: reference onnx E1 expects 20 to 45 % less."""
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
