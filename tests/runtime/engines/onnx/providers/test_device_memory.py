"""The device's memory, tried on the CPU provider: the same code moves, grows and binds it on a card."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from near_ties import assert_same_but_for_near_ties, possible_choices
from prompts import PROMPTS

from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.engines.onnx.providers import registry
from ptbr_slm.runtime.engines.onnx.providers.cpu import open_cpu
from ptbr_slm.runtime.engines.onnx.providers.device_memory import DeviceMemory
from ptbr_slm.runtime.engines.onnx.providers.memory import HostMemory
from ptbr_slm.runtime.engines.onnx.providers.onnx_writer import Node, Tensor, model_bytes
from ptbr_slm.runtime.engines.onnx.providers.registry import Provider
from ptbr_slm.runtime.engines.onnx.providers.session import ProviderSession
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.sampling.distribution import distribution
from ptbr_slm.runtime.sampling.distribution import draw as numpy_draw
from ptbr_slm.runtime.sampling.params import GREEDY, Draw, SamplingParams
from ptbr_slm.runtime.sampling.sampler import Sampler

CPU = ["CPUExecutionProvider"]
SHAPE = (3, 2, 4, 16)
"""slots, heads, capacity, head_dim"""


@pytest.fixture(scope="module")
def device_model(export_folder):
    """The fp32 export, its tensors in memory that only ONNX Runtime sees."""

    def open_here(request):
        opened = open_cpu(replace(request, threads=1, spinning=False))
        return ProviderSession(opened.session, DeviceMemory("cpu", CPU))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._PROVIDERS, "cpu", Provider("cpu", CPU[0], open_here))
        model = Model(export_folder)
    yield model
    model.close()


@pytest.fixture(scope="module")
def device_engine(device_model) -> OnnxEngine:
    return device_model.engine


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_both_memories_move_and_grow_slots_alike(dtype):
    content = np.random.default_rng(1).normal(size=SHAPE).astype(dtype)
    host, device, whole = HostMemory(), DeviceMemory("cpu", CPU), [SHAPE[2]] * SHAPE[0]
    ours, theirs = content.copy(), device.zeros(SHAPE, dtype)
    assert not theirs.read().any() and theirs.nbytes == content.nbytes
    theirs.upload(content)
    for memory, buffer in ((host, ours), (device, theirs)):
        memory.copy_slot(buffer, 0, 2, SHAPE[2])
        memory.swap_slots(buffer, 0, 1, (SHAPE[2], SHAPE[2]))
    np.testing.assert_array_equal(theirs.read(), ours)
    np.testing.assert_array_equal(device.grown(theirs, 5, 8, whole).read(), host.grown(ours, 5, 8, whole))


def test_a_small_graph_is_what_onnx_says_a_graph_is():
    ends = [Tensor(name, "float32", ("n", 4)) for name in "xy"]
    nodes = [Node("LeakyRelu", ["x"], ["z"], {"alpha": 0.5}), Node("Mul", ["z", "two"], ["y"])]
    model = onnx.load_from_string(
        model_bytes("tiny", nodes, ends[:1], ends[1:], {"two": np.float32([2.0]), "least": np.int64([-5])})
    )
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["LeakyRelu", "Mul"]
    assert onnx.numpy_helper.to_array(model.graph.initializer[1]).tolist() == [-5]


def test_a_text_is_the_same_through_growth_moves_and_prefixes(onnx_engine, device_engine, ids):
    """Two buckets, slots that are moved, a copied prefix, a truncated one."""
    answers = []
    for engine in (onnx_engine, device_engine):
        engine.reset(4, engine.config.max_seq_len)
        found = [engine.prefill(slot, ids[slot * 7 : slot * 7 + 250]) for slot in range(4)]
        found += list(engine.decode([3, 1], [5, 6]))  # not neighbours: 2 is moved
        for token in ids[300:310]:
            found += list(engine.decode([0, 3], [token, token + 1]))
        engine.copy_prefix(3, 2, 100)
        engine.truncate(1, 40)
        found += list(engine.decode([1, 2], [7, 8]))
        found += [engine.extend(0, ids[:300])[-1], engine.logits(ids[:20])[-1]]
        answers.append(np.array(found))
        assert engine.kv_bytes == 2 * engine.config.num_layers * 8 * 640 * engine.config.kv_size * 4
    np.testing.assert_array_equal(*answers)


def test_what_a_binding_reads_is_what_the_host_wrote_last(device_engine, onnx_engine, ids):
    for engine in (device_engine, onnx_engine):
        engine.reset(1, 64)
        engine.prefill(0, ids[:9])
    for token in (3, 200, 3):
        np.testing.assert_array_equal(device_engine.decode([0], [token]), onnx_engine.decode([0], [token]))


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 0.9, "top_p": 0.9, "seed": 7},
        {"temperature": 1.3, "top_k": 20, "top_p": 1.0, "min_p": 0.01, "seed": 8, "n": 3},
        {"temperature": 1.0, "top_p": 0.95, "seed": 9, "repetition_penalty": 1.2},
        {"temperature": 0.8, "seed": 10, "logprobs": 2},
    ],
)
def test_texts_are_the_same_wherever_their_tokens_are_chosen(device_model, export_folder, options):
    """Also penalised ones and those with log probabilities, which the host chooses.

    The first time the logits are the same to the last bit, and the same numbers are drawn: what differs is
    exp. The second time the beginnings lie in the cache, and another number of tokens runs at once.
    """
    device_model.forget()
    with Model(export_folder) as host:
        expected = host.generate_detailed(PROMPTS, max_new_tokens=24, **options)
        for reused in (False, True):
            found = device_model.generate_detailed(PROMPTS, max_new_tokens=24, **options)
            assert any(result.reused_tokens for result in found) or not reused
            prompts = [prompt for prompt in PROMPTS for _ in range(options.get("n", 1))]
            for prompt, ours, theirs in zip(prompts, found, expected, strict=True):
                assert_same_but_for_near_ties(host, prompt, ours, theirs, **options)


def test_the_logits_of_a_text_are_the_same_bits_in_both_memories(device_model, export_folder, monkeypatch):
    """A ragged batch, step by step; each token is one that its logits allow, to a rounding of exp."""
    from ptbr_slm.runtime.engines.onnx.device_sampling import DeviceSampler

    options = {"temperature": 0.9, "top_p": 0.9, "seed": 7}
    seen: dict[str, list] = {"host": [], "device": []}
    choose, pick = DeviceSampler.choose, Sampler._pick

    def watched_choose(self, logits, tokens, draws):
        before = logits.read()[:, 0]
        chosen = choose(self, logits, tokens, draws)
        for scores, draw, token in zip(before, draws, chosen[:, 0].tolist(), strict=True):
            seen["device"].append((draw.uniform, scores.tobytes()))
            assert token in possible_choices(scores, SamplingParams(**options), draw.uniform, 0.0)
        return chosen

    def watched_pick(self, logits):
        before, uniform = logits.copy(), self._next_uniform()
        token = pick(self, logits)
        seen["host"].append((uniform, before.tobytes()))
        assert token in possible_choices(before, SamplingParams(**options), uniform, 0.0)
        return token

    device_model.forget()
    with Model(export_folder) as host, monkeypatch.context() as patch:
        patch.setattr(Sampler, "_pick", watched_pick)
        texts = [host.generate_detailed(PROMPTS, max_new_tokens=24, **options)]
        first = seen["host"]
        seen["host"] = []
        patch.setattr(DeviceSampler, "choose", watched_choose)
        texts.append(device_model.generate_detailed(PROMPTS, max_new_tokens=24, **options))
    # The first token of each text comes of the prefill, whose logits the host has.
    assert len(seen["device"]) == sum(len(result.tokens) - 1 for result in texts[1])
    if [result.tokens for result in texts[0]] == [result.tokens for result in texts[1]]:
        assert sorted(seen["host"] + seen["device"]) == sorted(first)
    else:  # a number within a rounding of exp of a border, on this CPU
        for prompt, ours, theirs in zip(PROMPTS, *texts, strict=True):
            assert_same_but_for_near_ties(device_model, prompt, ours, theirs, **options)


def test_tokens_are_chosen_on_the_device_unless_the_host_must(device_engine, onnx_engine, ids):
    assert device_engine.draws_tokens and not onnx_engine.draws_tokens
    for engine in (device_engine, onnx_engine):
        engine.reset(3, 64)
        for slot in range(3):
            engine.prefill(slot, ids[slot : slot + 6])
    draw = Draw(0.7, 5, 0.9, 0.0, 0.4)
    first, second, third = device_engine.decode_drawn([2, 0, 1], [4, 5, 6], [GREEDY, None, draw])
    logits = onnx_engine.decode([2, 0, 1], [4, 5, 6])
    assert first == int(logits[0].argmax())
    np.testing.assert_array_equal(second, logits[1])
    params = SamplingParams(temperature=0.7, top_k=5, top_p=0.9)
    kept, weights = distribution(logits[2].copy(), params)
    assert {third, int(kept[numpy_draw(weights, 0.4)])} <= possible_choices(logits[2], params, 0.4, 0.0)
    # The tokens that were chosen lie where the next step reads them; one that is not taken is written over.
    again = device_engine.decode([2, 0, 1], [first, 9, third])
    np.testing.assert_array_equal(again, onnx_engine.decode([2, 0, 1], [first, 9, third]))


def test_a_captured_step_may_never_be_told_another_length(export_folder, ids, onnx_engine):
    """What a CUDA graph needs: one total for a bucket, an id for each binding, none for a prefill."""
    seen = []

    class Watched:
        """A session that notes the run options, and drops them: the CPU provider captures nothing."""

        def __init__(self, session):
            self.session = session
            self.released = []

        def __getattr__(self, name):
            return getattr(self.session, name)

        def run_with_iobinding(self, io, options=None):
            seen.append(options.get_run_config_entry("gpu_graph_id"))
            self.session.run_with_iobinding(io)

        def release_captured_graph(self, number):
            self.released.append(number)

    sessions = []

    def open_here(request):
        sessions.append(Watched(open_cpu(replace(request, threads=1, spinning=False)).session))
        return ProviderSession(sessions[0], DeviceMemory("cpu", CPU), captures=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._PROVIDERS, "cpu", Provider("cpu", CPU[0], open_here))
        engine = OnnxEngine(export_folder)
    for either in (engine, onnx_engine):
        either.reset(2, 640)
        either.prefill(0, ids[:250])
        either.prefill(1, ids[:5])
    for step in range(10):  # past the first bucket
        slots, tokens = ([0, 1], [step, step]) if step % 2 else ([1], [step])
        np.testing.assert_array_equal(engine.decode(slots, tokens), onnx_engine.decode(slots, tokens))
        onnx_engine.decode([0], [3])
        engine.decode([0], [3])
    engine.close()
    assert set(seen[:2]) == {"-1"}
    steps = seen[2:]
    assert steps[0] != steps[1] and "-1" not in steps
    assert len(set(steps)) == 6  # three ranges of slots in two buckets
    assert sorted(sessions[0].released) == sorted(map(int, set(steps)))
