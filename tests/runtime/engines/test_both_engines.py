"""What both engines promise: the same logits, however the tokens arrive and whoever shares the buffers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.onnx import kv_cache
from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine

CLOSE = {"rtol": 0, "atol": 1e-4}


def last_logits(engine, tokens):
    """Logits after the last token of a text run alone in a fresh slot."""
    slot = engine.open_slot()
    try:
        return engine.prefill(slot, tokens)
    finally:
        engine.close_slot(slot)


def test_the_export_computes_what_pytorch_computes_at_every_position(onnx_engine, torch_engine, ids):
    ours, reference = onnx_engine.logits(ids), torch_engine.logits(ids)
    assert ours.shape == (len(ids), onnx_engine.config.vocab_size)
    assert ours.dtype == reference.dtype == np.float32
    np.testing.assert_allclose(ours, reference, **CLOSE)
    assert np.ptp(reference) > 5  # the model is lively enough for the comparison to mean something


@pytest.mark.parametrize("chunks", [[300], [1] * 20 + [280], [100, 1, 199], [256, 44]])
def test_prefill_in_chunks_equals_prefill_at_once(engine, ids, chunks):
    engine.reset(1, engine.config.max_seq_len)
    start = 0
    for size in chunks:
        logits = engine.prefill(0, ids[start : start + size])
        start += size
    assert engine.length(0) == 300
    np.testing.assert_allclose(logits, engine.logits(ids[:300])[-1], **CLOSE)


def test_ragged_batch_row_equals_the_row_alone(engine, ids):
    texts = [ids[:3], ids[50:311], ids[100:120], ids[7:8]]
    engine.reset(len(texts), engine.config.max_seq_len)
    for slot, text in enumerate(texts):
        engine.prefill(slot, text)
    for slots in ([0, 1, 2, 3], [0, 2, 3], [2, 0], [1], [3, 0, 2], [0, 1, 2, 3]):
        fed = [ids[200 + slot] for slot in slots]
        logits = engine.decode(slots, fed)
        assert logits.shape == (len(slots), engine.config.vocab_size)
        for slot, token, scores in zip(slots, fed, logits, strict=True):
            texts[slot] = [*texts[slot], token]
            np.testing.assert_allclose(scores, last_logits(engine, texts[slot]), **CLOSE)


def test_stopping_early_and_going_on_equals_a_fresh_run(engine, ids):
    """onnxruntime-genai 0.18 loses the last token here (microsoft/onnxruntime-genai#1110, #1814)."""
    engine.reset(1, engine.config.max_seq_len)
    engine.prefill(0, ids[:10])
    for token in ids[10:15]:
        engine.decode([0], [token])
    continued = engine.prefill(0, ids[15:40])
    np.testing.assert_allclose(continued, last_logits(engine, ids[:40]), **CLOSE)


def test_a_truncated_slot_goes_on_as_if_the_rest_had_never_been(engine, ids):
    engine.reset(1, engine.config.max_seq_len)
    engine.prefill(0, ids[:300])
    engine.truncate(0, 40)
    assert engine.length(0) == 40
    expected = last_logits(engine, [*ids[:40], *ids[400:410]])
    np.testing.assert_allclose(engine.prefill(0, ids[400:410]), expected, **CLOSE)


def test_a_copied_prefix_replaces_what_the_slot_held(engine, ids):
    engine.reset(2, engine.config.max_seq_len)
    engine.prefill(0, ids[:300])
    engine.prefill(1, ids[500:520])
    engine.copy_prefix(0, 1, 270)
    assert (engine.length(0), engine.length(1)) == (300, 270)
    np.testing.assert_allclose(engine.prefill(1, ids[270:300]), engine.logits(ids[:300])[-1], **CLOSE)


def test_extend_gives_the_logits_after_each_token_and_keeps_them(engine, ids):
    engine.reset(1, engine.config.max_seq_len)
    engine.prefill(0, ids[:20])
    after = engine.extend(0, ids[20:330])
    np.testing.assert_allclose(after, engine.logits(ids[:330])[20:], **CLOSE)
    assert engine.length(0) == 330
    np.testing.assert_allclose(engine.decode([0], ids[330:331])[0], engine.logits(ids[:331])[-1], **CLOSE)


def test_a_reused_slot_keeps_nothing_of_the_text_before(onnx_engine, ids):
    clean = onnx_engine.logits(ids[:50])[-1]
    onnx_engine.reset(2, onnx_engine.config.max_seq_len)
    for slot in (0, 1):
        onnx_engine.prefill(slot, ids[100:400])
        onnx_engine.close_slot(slot)
    for array in onnx_engine._caches.arrays:
        array[...] = np.nan
    slot, other = onnx_engine.open_slot(), onnx_engine.open_slot()
    onnx_engine.prefill(slot, ids[:48])
    onnx_engine.prefill(other, ids[:5])
    onnx_engine.decode([slot, other], [ids[48], ids[5]])
    np.testing.assert_allclose(onnx_engine.decode([other, slot], ids[48:50])[1], clean, **CLOSE)
    np.testing.assert_allclose(last_logits(onnx_engine, ids[:50]), clean, **CLOSE)


def test_growing_the_buffers_in_mid_text_changes_nothing(engine, ids):
    engine.reset(2, engine.config.max_seq_len)
    engine.prefill(0, ids[:254])
    engine.prefill(1, ids[:9])
    expected = engine.logits(ids[:260])
    for position in range(254, 260):  # crosses the bucket of 256
        scores, _ = engine.decode([0, 1], [ids[position], ids[position]])
        np.testing.assert_allclose(scores, expected[position], **CLOSE)


def test_a_text_may_fill_the_context_and_not_one_token_more(engine, ids):
    engine.reset(1, engine.config.max_seq_len)
    engine.prefill(0, ids[:-1])
    filled = engine.decode([0], ids[-1:])[0]
    np.testing.assert_allclose(filled, engine.logits(ids)[-1], **CLOSE)
    for overflow in (lambda: engine.decode([0], [5]), lambda: engine.prefill(0, [5])):
        with pytest.raises(SlmError, match="641 tokens; cabem 640") as error:
            overflow()
        assert error.value.code == "E_PROMPT_TOO_LONG"


@pytest.mark.parametrize("tokens", [[], [-1], [10**6]])
def test_impossible_tokens_are_refused(engine, tokens):
    engine.reset(1, 64)
    for call in (lambda: engine.prefill(0, tokens), lambda: engine.logits(tokens)):
        with pytest.raises(SlmError) as error:
            call()
        assert error.value.code == "E_PROMPT"


def test_a_capacity_beyond_the_context_is_refused(engine):
    with pytest.raises(SlmError) as error:
        engine.reset(1, engine.config.max_seq_len + 1)
    assert error.value.code == "E_SEQ_LEN"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_course_of_slots_gives_the_reference_logits(onnx_engine, torch_engine, ids, data):
    """Opening, closing, prefilling and decoding any subset in any order, against PyTorch slot by slot."""
    engines = (onnx_engine, torch_engine)
    for engine in engines:
        engine.reset(0, engine.config.max_seq_len)
    slots: dict[int, int] = {}  # of the one engine -> of the other
    for _ in range(data.draw(st.integers(3, 14), label="steps")):
        action = data.draw(st.sampled_from(["open", "close", "decode", "decode", "decode"]), label="action")
        if action == "open" or not slots:
            ours, reference = (engine.open_slot() for engine in engines)
            slots[ours] = reference
            text = ids[: data.draw(st.integers(1, 300), label="prompt")]
            scores = [e.prefill(slot, text) for e, slot in zip(engines, (ours, reference), strict=True)]
        elif action == "close":
            ours = data.draw(st.sampled_from(sorted(slots)), label="closed")
            onnx_engine.close_slot(ours)
            torch_engine.close_slot(slots.pop(ours))
            continue
        else:
            chosen = data.draw(
                st.lists(st.sampled_from(sorted(slots)), min_size=1, unique=True), label="chosen"
            )
            fed = ids[300 : 300 + len(chosen)]
            scores = [onnx_engine.decode(chosen, fed), torch_engine.decode([slots[r] for r in chosen], fed)]
        np.testing.assert_allclose(*scores, **CLOSE)


def test_memory_follows_the_tokens_in_use_and_not_the_context(onnx_engine, ids, monkeypatch):
    config = onnx_engine.config
    token_bytes = 2 * config.num_layers * config.kv_size * 4
    monkeypatch.setattr(kv_cache, "IDLE_BYTES", 0)
    onnx_engine.reset(1, config.max_seq_len)
    onnx_engine.prefill(0, ids[:200])
    assert onnx_engine.kv_bytes == 256 * token_bytes
    onnx_engine.prefill(0, ids[:200])
    assert onnx_engine.kv_bytes == 512 * token_bytes
    slots = [onnx_engine.open_slot() for _ in range(3)]
    assert onnx_engine.kv_bytes == 4 * 512 * token_bytes
    for slot in (0, *slots):
        onnx_engine.close_slot(slot)
    onnx_engine.close_slot(onnx_engine.open_slot())
    assert onnx_engine.kv_bytes == 256 * token_bytes


def test_bindings_are_made_once_and_reused(onnx_engine, ids):
    onnx_engine.reset(2, onnx_engine.config.max_seq_len)
    for slot in (0, 1):
        onnx_engine.prefill(slot, ids[:5])
    onnx_engine.decode([0, 1], [7, 8])
    plans, version = dict(onnx_engine._plans), onnx_engine._caches.version
    for _ in range(5):
        onnx_engine.decode([0, 1], [7, 8])
    assert onnx_engine._plans == plans
    assert onnx_engine._caches.version == version


def test_results_belong_to_the_caller(engine, ids):
    engine.reset(2, 64)
    first = engine.prefill(0, ids[:4])
    kept = first.copy()
    engine.prefill(1, ids[9:20])
    np.testing.assert_array_equal(first, kept)
    batch = engine.decode([0, 1], [5, 6])
    kept = batch.copy()
    engine.decode([0, 1], [9, 9])
    np.testing.assert_array_equal(batch, kept)


def test_a_closed_engine_says_so(export_folder):
    engine = OnnxEngine(export_folder)
    slot = engine.open_slot()
    engine.prefill(slot, [5, 6])
    engine.close()
    for call in (engine.open_slot, lambda: engine.decode([slot], [5]), lambda: engine.logits([5])):
        with pytest.raises(SlmError) as error:
            call()
        assert error.value.code == "E_CLOSED"


def test_generating_from_an_export_never_imports_torch(export_folder):
    script = (
        "import sys, ptbr_slm\n"
        f"text = ptbr_slm.generate('O rio corre', model={str(export_folder)!r}, max_new_tokens=3, seed=1)\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnx_ir', 'typer', 'gradio'} & set(sys.modules)\n"
        "assert isinstance(text, str) and not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
