"""An export for TensorRT through the engine on a CPU: slow there, but its answers can be judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from near_ties import assert_same_but_for_near_ties
from ptbr_slm_export import export_model

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime import model
from ptbr_slm.runtime.engines.onnx.bindings import StdDecodeBinding
from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.engines.onnx.providers.session import ProviderSession
from ptbr_slm.runtime.engines.onnx.providers.tensorrt import DECODE

CLOSE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module")
def folders(model_folder, tmp_path_factory) -> dict[str, Path]:
    """Precision -> export for TensorRT."""
    made = {}
    for precision in ("fp32", "fp16"):
        made[precision] = tmp_path_factory.mktemp("tensorrt") / precision
        export_model(model_folder, made[precision], target="tensorrt", precision=precision, verify=False)
    return made


@pytest.fixture(scope="module")
def std_engine(folders):
    engine = OnnxEngine(folders["fp32"], oracle=True)
    yield engine
    engine.close()


def test_every_position_has_pytorchs_logits(std_engine, torch_engine, ids):
    np.testing.assert_allclose(std_engine.logits(ids), torch_engine.logits(ids), **CLOSE)


def test_a_course_of_slots_gives_the_logits_of_the_gqa_export(std_engine, onnx_engine, ids):
    """Chunked prefill, ragged decode of changing subsets, a truncated and a copied slot, reused slots."""
    collected = []
    for engine in (std_engine, onnx_engine):
        engine.reset(4, engine.config.max_seq_len)
        scores = [engine.prefill(slot, ids[10 * slot : 10 * slot + length]) for slot, length in
                  enumerate((300, 1, 17, 256))]  # fmt: skip
        for slots in ([0, 1, 2, 3], [2, 0], [1], [3, 0, 2]):
            scores.extend(engine.decode(slots, ids[400 : 400 + len(slots)]))
        engine.truncate(0, 40)
        engine.copy_prefix(3, 1, 100)
        scores.extend(engine.extend(1, ids[500:530]))
        scores.extend(engine.decode([0, 1], ids[600:602]))
        engine.close_slot(2)
        slot = engine.open_slot()
        scores.append(engine.prefill(slot, ids[:50]))
        scores.extend(engine.decode([slot, 3], ids[50:52]))
        collected.append(np.stack(scores))
    np.testing.assert_allclose(collected[0], collected[1], **CLOSE)


def test_its_buffers_hold_the_whole_context_from_the_start_and_may_be_filled(std_engine, ids):
    config = std_engine.config
    std_engine.reset(1, config.max_seq_len)
    row_bytes = 4 * 2 * config.num_layers * config.num_kv_heads * config.max_seq_len * config.head_dim
    assert std_engine.kv_bytes % row_bytes == 0
    std_engine.prefill(0, ids[:-1])
    filled = std_engine.decode([0], ids[-1:])[0]
    np.testing.assert_allclose(filled, std_engine.logits(ids)[-1], **CLOSE)
    with pytest.raises(SlmError) as error:
        std_engine.decode([0], [5])
    assert error.value.code == "E_PROMPT_TOO_LONG"


def test_a_batch_larger_than_a_call_may_be_is_run_in_parts_with_the_same_answers(std_engine, ids):
    """A provider with shape profiles takes a few slots a call; leaving the profile would cost minutes."""
    lengths = (9, 1, 30, 4, 12)

    def decoded(max_slots: int) -> np.ndarray:
        std_engine.reset(len(lengths), std_engine.config.max_seq_len)
        for slot, length in enumerate(lengths):
            std_engine.prefill(slot, ids[slot : slot + length])
        provider = ProviderSession(
            std_engine._session.session, profile=replace(DECODE, slots=(1, 1, max_slots))
        )
        caches, vocab = std_engine._caches, std_engine.config.vocab_size
        binding = StdDecodeBinding(provider, caches, 0, len(lengths), vocab)
        steps = []
        for step in range(3):
            binding.ids[:, 0] = ids[100 + step : 100 + step + len(lengths)]
            steps.append(binding.run().copy())
        assert [std_engine.length(slot) for slot in range(5)] == [length + 3 for length in lengths]
        return np.stack(steps)

    whole = decoded(5)
    for most in (1, 2, 4, 8):
        np.testing.assert_allclose(decoded(most), whole, **CLOSE)


def test_every_way_of_generating_gives_the_texts_of_the_gqa_export(folders, export_folder, monkeypatch):
    """A ragged batch, sampling, prompt lookup, and a prompt whose beginning is in a slot already."""
    opened = {folders["fp32"]: lambda path: OnnxEngine(path, oracle=True), export_folder: OnnxEngine}
    monkeypatch.setattr(model, "open_engine", lambda folder, device: opened[folder.path](folder.path))
    asked = [
        (["O rio", "Era uma vez uma menina que lia", "A"], {"temperature": 0.0}),
        (["O rio", "Era uma vez"], {"seed": 3, "max_new_tokens": 40}),
        (["O rio corre para o mar"], {"temperature": 0.0, "lookahead": 4}),
        (["O rio corre para o mar e"], {"temperature": 0.0}),
    ]
    with model.Model(folders["fp32"]) as ours, model.Model(export_folder) as theirs:
        for prompts, options in asked:
            texts = [chosen.generate_detailed(prompts, **options) for chosen in (ours, theirs)]
            for prompt, found, wanted in zip(prompts, *texts, strict=True):
                assert_same_but_for_near_ties(theirs, prompt, found, wanted, within=1e-4, **options)


def test_fp16_caches_stay_fp16_and_its_texts_are_close(folders, torch_engine, ids):
    engine = OnnxEngine(folders["fp16"], oracle=True)
    try:
        assert (engine.precision, engine.device) == ("fp16", "cpu")
        assert {buffer.dtype for buffer in engine._caches.arrays} == {np.dtype(np.float16)}
        ours, theirs = engine.logits(ids[:120]), torch_engine.logits(ids[:120])
        ours, theirs = (x - x.mean(axis=-1, keepdims=True) for x in (ours, theirs))
        assert np.vdot(ours, theirs) / np.sqrt(np.vdot(ours, ours) * np.vdot(theirs, theirs)) > 0.999
    finally:
        engine.close()
