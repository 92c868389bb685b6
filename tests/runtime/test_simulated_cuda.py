"""Exports for CUDA on a simulated card (tests/support/simulated_ort), every day and on any machine.

First what tests/runtime/test_gpu.py asks of a real card; then what only a simulated one can tell: how often
the host waits and uploads, which memory is taken, and faults on order.
"""

from __future__ import annotations

import gc
import json
import re
import threading
import time

import gpu_scenarios_runtime as scenarios
import numpy as np
import onnxruntime
import pytest
from near_ties import FP16, assert_same_but_for_near_ties
from refusals import refusal
from simulated_ort import Card, installed
from simulated_ort.process import environment

from ptbr_slm.runtime.engines.onnx import kv_cache
from ptbr_slm.runtime.engines.onnx.device_sampling import DeviceSampler
from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.engines.onnx.providers import session
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.sampling.params import GREEDY, Draw

DRAW = Draw(temperature=0.8, top_k=20, top_p=0.9, min_p=0.0, uniform=0.25)


@pytest.fixture
def card():
    with installed(Card()) as card:
        yield card


@pytest.fixture(params=scenarios.PRECISIONS)
def folder(request, cuda_exports):
    return cuda_exports[request.param]


@pytest.fixture
def engine(card, folder):
    engine = OnnxEngine(folder)
    yield engine
    engine.close()


def test_it_runs_on_the_card_and_says_so(engine):
    scenarios.runs_whole_and_says_so(engine)


def test_the_cards_logits_are_those_of_the_same_graph_on_the_cpu(engine, folder, ids):
    scenarios.logits_are_the_cpus(engine, folder, ids)


def test_slots_grow_move_and_share_prefixes(engine, folder, ids):
    scenarios.slots_grow_move_and_share_prefixes(engine, folder, ids)


def test_captured_steps_write_the_same_texts_through_growing_buckets(card, folder, ids):
    scenarios.captured_steps_are_the_plain_ones(folder, ids)


@pytest.mark.parametrize("options", scenarios.CHOSEN_ON_THE_CARD + scenarios.CHOSEN_ON_THE_HOST)
def test_tokens_chosen_on_the_card_are_numpys(card, half_folder, monkeypatch, options):
    scenarios.tokens_of_the_card_are_numpys(half_folder, monkeypatch, options)


@pytest.mark.parametrize("options", [{}, {"lookahead": 4}])
def test_greedy_texts_are_good_ones_for_the_cpu(card, folder, options):
    scenarios.greedy_texts_are_good_ones_for_the_cpu(folder, **options)


def test_a_form_is_kept_on_the_card(card, half_folder):
    pytest.importorskip("llguidance", reason="constrained output: pip install 'ptbr-slm[constrain]'")
    with Model(half_folder) as model:
        text = model.generate("O", regex="(sim|não), [0-9]{3}", max_new_tokens=60, seed=1, lookahead=4)
    assert re.fullmatch("(sim|não), [0-9]{3}", text)


def test_memory_of_the_card_stays_where_it_was_after_many_texts(card, half_folder):
    assert scenarios.memory_stays_after_many_texts(half_folder, lambda: card.reserved, rounds=3) < 128 << 10


def test_an_export_for_the_cpu_is_refused_on_the_card(card, export_folder):
    assert refusal(OnnxEngine, export_folder, "cuda").code == "E_PROVIDER"


def test_the_users_commands_export_verify_and_generate(cli, model_folder, tmp_path):
    """As processes of their own. int8: the others differ in the kernels only, which are not a card's here."""

    def run(*arguments, **options):
        return cli(*arguments, env=environment(), **options)

    scenarios.commands_export_verify_and_generate(run, model_folder, tmp_path / "e", "int8")


def test_a_kernel_that_takes_no_chunk_is_left_out_with_a_warning(cli, cuda_exports):
    done = cli(
        "generate",
        *("-m", cuda_exports["int8"], "O", "-n", "4", "--json"),
        env=environment() | {"SIMULATED_CARD_UNSUPPORTED_M": "16"},
        check=True,
    )
    assert json.loads(done.stdout)["device"] == "cuda"
    assert "onnxruntime#29691" in done.stderr and "Traceback" not in done.stderr


# What only a simulated card can tell.


@pytest.mark.parametrize("greedy", [True, False])
def test_a_token_costs_one_read_and_uploads_of_what_changed(card, half_folder, ids, greedy):
    engine = OnnxEngine(half_folder)
    engine.reset(1, 640)
    token = int(engine.prefill(0, ids[:10]).argmax())
    uniform = iter(np.linspace(0.1, 0.9, 9))
    for step in range(9):
        if step == 2:
            card.counts.clear()
        draw = GREEDY if greedy else Draw(0.8, 20, 0.9, 0.0, float(next(uniform)))
        (token,) = engine.decode_drawn([0], [token], [draw])
    tokens = 7
    assert card.counts["wait.read"] == tokens and card.counts["read.bytes"] == 8 * tokens
    assert card.counts["run"] == card.counts["replay"] == 2 * tokens  # the step and the choice
    assert card.counts["upload"] == (1 if greedy else 2) * tokens  # the length, and the number drawn
    assert card.counts["upload.bind"] == 0 and card.counts["capture"] == 0
    engine.close()


def test_a_token_of_the_hosts_choice_costs_one_read_of_its_logits(card, half_folder, ids):
    engine = OnnxEngine(half_folder)
    engine.reset(1, 640)
    engine.prefill(0, ids[:10])
    engine.decode([0], [5])
    card.counts.clear()
    engine.decode([0], [6])
    assert card.counts["wait.read"] == card.counts["run"] == 1
    assert card.counts["upload"] == 2  # the length and the token
    assert card.counts["read.bytes"] == 4 * engine.config.vocab_size
    engine.close()


def test_one_change_of_threads_a_token(card, half_folder, ids, monkeypatch):
    engine = OnnxEngine(half_folder)
    engine.reset(1, 640)
    engine.prefill(0, ids[:10])
    pool = engine._provider.memory._worker._pool
    submitted, submit = [], pool.submit
    monkeypatch.setattr(pool, "submit", lambda *work: (submitted.append(work), submit(*work))[1])
    for _ in range(3):
        engine.decode_drawn([0], [5], [DRAW])
    assert len(submitted) == 3
    engine.close()


def test_a_step_is_captured_once_for_each_range_and_bucket(card, half_folder, ids):
    engine = OnnxEngine(half_folder)
    engine.reset(2, 640)
    for slot in range(2):
        engine.prefill(slot, ids[:250])
    card.counts.clear()
    for step in range(10):  # from the bucket of 256 into that of 512
        engine.decode([0, 1], [step, step])
        engine.decode([1], [step])
    assert card.counts["capture"] == 4
    assert card.counts["replay"] == 20
    engine.close()


def test_the_caches_take_what_they_need_of_the_card(card, half_folder, ids, monkeypatch):
    """Neither the doubling of Python's own arena, nor what smaller buckets left behind."""
    monkeypatch.setattr(kv_cache, "bucket", lambda tokens, limit: min(limit, -(-tokens // 128) * 128))
    engine = OnnxEngine(half_folder)
    engine.reset(1, 640)
    arena = card.python_arena.reserved
    for _ in range(5):
        engine.prefill(0, ids[:120])
    buffers = engine.kv_bytes
    gc.collect()
    copies = engine._provider.memory._identity._session._sess.arena
    assert arena == 0 == card.python_arena.reserved
    assert buffers <= copies.reserved < buffers + 64 * 1024
    engine.close()


def test_a_growth_holds_no_buffer_twice_but_one(card, half_folder, ids):
    engine = OnnxEngine(half_folder)
    engine.reset(4, 640)
    engine.prefill(0, ids[:200])
    before, buffer = card.reserved, engine.kv_bytes // 4
    card.peak = 0
    engine._caches.ensure(300)
    assert engine.kv_bytes == 8 * buffer and abs(card.reserved - before - 4 * buffer) < 16 << 10
    assert card.peak <= card.reserved + 2 * buffer
    engine.close()


def test_an_older_onnxruntime_without_a_sessions_allocator_and_release_works_too(
    card, half_folder, ids, monkeypatch
):
    """1.26, the last for CUDA 12."""
    session = onnxruntime.capi.onnxruntime_inference_collection.Session
    for name in ("create_ortvalue_from_shape_and_type", "release_captured_graph"):
        monkeypatch.delattr(session, name, raising=False)
    scenarios.captured_steps_are_the_plain_ones(half_folder, ids)
    assert card.python_arena.reserved > 0


def test_a_growth_that_does_not_fit_is_an_error_about_memory_and_the_engine_goes_on(card, half_folder, ids):
    engine = OnnxEngine(half_folder)
    engine.reset(2, 640)
    engine.prefill(0, ids[:100])
    before = engine.decode([0], [5])[0]
    engine.truncate(0, 100)
    card.limit = card.reserved + 4096
    error = refusal(engine.prefill, 0, ids[:200])
    assert error.code == "E_MEMORY" and "memória" in error.message
    engine.truncate(0, 100)
    np.testing.assert_array_equal(engine.decode([0], [5])[0], before)
    card.limit = 15 << 30
    assert np.isfinite(engine.prefill(0, ids[:300])).all()
    engine.close()


def test_texts_whose_growth_does_not_fit_end_with_an_error_and_the_next_ones_work(card, half_folder):
    with Model(half_folder) as model:
        expected = model.generate("O Brasil", max_new_tokens=8, temperature=0.0)
        model.forget()
        card.limit = card.reserved + 4096
        prompts = ["Era uma vez " * 20] * 3
        assert refusal(model.generate, prompts, max_new_tokens=300).code == "E_MEMORY"
        card.limit = 15 << 30
        assert model.generate("O Brasil", max_new_tokens=8, temperature=0.0) == expected


def test_a_model_that_does_not_fit_the_card_is_an_error_about_memory(card, half_folder):
    card.limit = 100_000
    error = refusal(OnnxEngine, half_folder)
    assert error.code == "E_MEMORY"


def test_nothing_of_a_closed_engine_stays_on_the_card(card, folder, ids):
    engine = OnnxEngine(folder)
    engine.reset(2, 640)
    engine.prefill(0, ids[:300])
    engine.decode_drawn([0, 1], [5, 6], [DRAW, GREEDY])
    engine.close()
    del engine
    gc.collect()
    assert (card.used, card.reserved) == (0, 0)


def test_a_chunk_that_the_fused_kernels_refuse_reopens_the_model_without_them(
    card, cuda_exports, ids, caplog
):
    card.unsupported_m = 16
    for precision in ("int8", "int4"):
        engine = OnnxEngine(cuda_exports[precision])
        assert engine.describe()["fpa_intb_gemm"] is False and engine.describe()["cuda_graph"] is True
        assert np.isfinite(engine.logits(ids[:300])).all()
        engine.close()
    assert "onnxruntime#29691" in caplog.text
    card.unsupported_m = None
    engine = OnnxEngine(cuda_exports["int8"])
    assert engine.describe()["fpa_intb_gemm"] is True
    engine.close()


def test_a_sampler_that_does_not_start_leaves_the_choice_to_the_host(card, half_folder, caplog):
    with Model(half_folder) as model:
        expected = model.generate(scenarios.PROMPTS, max_new_tokens=12, seed=3)
    card.astray = "TopK"
    with Model(half_folder) as model:
        assert not model.engine.draws_tokens
        assert model.generate(scenarios.PROMPTS, max_new_tokens=12, seed=3) == expected
    assert "o processador os escolhe" in caplog.text


def test_a_node_that_ran_on_the_cpu_closes_the_engine(card, half_folder):
    card.astray = "GroupQueryAttention"
    error = refusal(OnnxEngine, half_folder)
    assert error.code == "E_PROVIDER" and "GroupQueryAttention (2)" in error.message
    del error  # its traceback holds the engine
    gc.collect()
    assert card.used == 0


def test_a_card_without_kernels_is_named(card, half_folder):
    card.no_kernel_image = True
    error = refusal(OnnxEngine, half_folder)
    assert error.code == "E_PROVIDER" and "sm_75" in error.message


def test_a_provider_that_gives_way_to_the_cpu_is_refused(card, half_folder):
    card.absent = True
    error = refusal(OnnxEngine, half_folder)
    assert error.code == "E_PROVIDER" and "passaria para o processador" in error.message


def test_captured_graphs_do_not_grow_without_end(card, half_folder, ids, monkeypatch, caplog):
    """ONNX Runtime keeps them: a server's buffers come and go for weeks."""
    monkeypatch.setattr(session, "MAX_CUDA_GRAPHS", 3)
    engine = OnnxEngine(half_folder)  # captures a step, a greedy choice and a drawn one
    found = set()
    for _ in range(4):
        engine.reset(1, 640)
        engine.prefill(0, ids[:300])
        found.add(*engine.decode_drawn([0], [5], [GREEDY]))
        engine._caches._allocate(1, 256)
    assert len(found) == 1 and card.counts["capture"] == 3 + 1 + 1  # choices do not follow the caches
    assert caplog.text.count("CUDA graphs gravados") == 1
    engine.close()


def test_all_ranges_of_as_many_rows_share_their_logits(card, half_folder, ids):
    engine = OnnxEngine(half_folder)
    engine.reset(4, 640)
    for slot in range(4):
        engine.prefill(slot, ids[slot : slot + 9])
    expected = [engine.decode([slot], [5])[0] for slot in range(4)]
    used = card.used
    for slot in range(4):
        engine.truncate(slot, 9)
    found = engine.decode([0, 1], [5, 5]), engine.decode([2, 3], [5, 5])
    np.testing.assert_allclose(np.concatenate(found), expected, atol=0.02)
    logits = 4 * engine.config.vocab_size
    assert 2 * logits < card.used - used < 3 * logits
    engine.close()


def test_a_step_that_was_left_by_ctrl_c_does_not_disturb_the_next(card, half_folder, ids, monkeypatch):
    """Its choice goes on running: what the next step feeds must not be overwritten by it."""
    engine = OnnxEngine(half_folder)
    engine.reset(1, 640)
    engine.prefill(0, ids[:10])
    expected = engine.decode([0], [7])[0]
    engine.truncate(0, 10)
    worker = engine._provider.memory._worker
    choose = DeviceSampler.choose

    def slowly(*arguments):
        time.sleep(0.1)
        return choose(*arguments)

    def left(work):
        worker._pool.submit(worker._work, work)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "run", left)
        patch.setattr(DeviceSampler, "choose", slowly)
        with pytest.raises(KeyboardInterrupt):
            engine.decode_drawn([0], [5], [GREEDY])
        patch.delattr(worker, "run")
        assert engine.length(0) == 10
        np.testing.assert_array_equal(engine.decode([0], [7])[0], expected)
    engine.close()


def test_threads_share_the_captured_steps(card, half_folder):
    """A replay by another thread than the one that captured is an error here."""
    with Model(half_folder) as model:
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(model.generate_detailed("O rio", temperature=0.0)))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 3
        for text in found[1:]:
            assert_same_but_for_near_ties(model, "O rio", text, found[0], FP16, temperature=0.0)


def test_a_release_that_works_changes_nothing(card, half_folder, ids):
    """As a later ONNX Runtime may have."""
    card.releases = True
    scenarios.captured_steps_are_the_plain_ones(half_folder, ids)
    assert card.counts["release"] > 0
