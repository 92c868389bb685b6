"""What an export for CUDA must do on a card, each as a function: on a real one and on the simulated one.

A card's fp16 products round otherwise than the CPU's, so texts are compared by their logits: each token that
a card writes must be one that the CPU, reading the same text, finds as good as the best.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
from prompts import PROMPTS

from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.load import open_oracle
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.sampling.params import GREEDY

PRECISIONS = ["fp16", "int8", "int4"]
TOLERANCE = 0.05
"""Of the standard deviation of the logits."""

CHOSEN_ON_THE_CARD = [
    {"temperature": 0.0},
    {"temperature": 0.8, "top_k": 20, "seed": 3},
    {"temperature": 1.2, "top_p": 0.9, "min_p": 0.01, "seed": 4, "n": 2},
]
CHOSEN_ON_THE_HOST = [
    {"temperature": 0.0, "repetition_penalty": 1.3},
    {"temperature": 0.8, "seed": 5, "logprobs": 2},
    {"temperature": 0.9, "seed": 6, "frequency_penalty": 0.5, "logit_bias": {7: -3.0}},
    {"temperature": 1.0, "top_p": 1.0, "seed": 7},
]

Run = Callable[..., CompletedProcess[str]]


def runs_whole_and_says_so(engine: OnnxEngine) -> None:
    facts = engine.describe()
    assert engine.device == "cuda" and facts["provider"] == "CUDAExecutionProvider"
    assert facts["cuda_graph"] is True and engine.draws_tokens
    assert ("fpa_intb_gemm" in facts) == (engine.precision != "fp16")


def logits_are_the_cpus(engine: OnnxEngine, folder: Path, ids: Sequence[int]) -> None:
    """A whole text in chunks, then a ragged batch in an order of its own."""
    oracle = open_oracle(folder)
    expected = oracle.logits(ids[:300])
    close = TOLERANCE * expected.std()
    assert np.abs(engine.logits(ids[:300]) - expected).max() < close
    engine.reset(3, 640)
    for slot in range(3):
        engine.prefill(slot, ids[slot : slot + 50 * (slot + 1)])
    for step in range(20):
        found = engine.decode([2, 0, 1], [ids[400 + step]] * 3)
    for index, slot in enumerate([2, 0, 1]):
        text = [*ids[slot : slot + 50 * (slot + 1)], *ids[400:420]]
        assert np.abs(found[index] - oracle.logits(text)[-1]).max() < close
    oracle.close()


def slots_grow_move_and_share_prefixes(engine: OnnxEngine, folder: Path, ids: Sequence[int]) -> None:
    """Three buckets, slots that are moved, a copied prefix, a truncated slot; each against the CPU."""
    oracle = open_oracle(folder)
    engine.reset(4, engine.config.max_seq_len)
    texts = [list(ids[slot * 7 : slot * 7 + 250]) for slot in range(4)]
    for slot, text in enumerate(texts):
        engine.prefill(slot, text)

    def step(slots: list[int], tokens: list[int]) -> None:
        found = engine.decode(slots, tokens)
        for slot, token, logits in zip(slots, tokens, found, strict=True):
            texts[slot].append(token)
            expected = oracle.logits(texts[slot])
            assert np.abs(logits - expected[-1]).max() < TOLERANCE * expected.std()

    step([3, 1], [5, 6])  # not neighbours: 2 is moved
    for token in ids[300:305]:
        step([0, 3], [token, token + 1])
    engine.copy_prefix(3, 2, 100)
    texts[2] = texts[3][:100]
    engine.truncate(1, 40)
    del texts[1][40:]
    step([1, 2], [7, 8])
    engine.prefill(0, ids[: 520 - len(texts[0])])
    texts[0] += ids[: 520 - len(texts[0])]
    step([2, 0], [9, 10])
    oracle.close()


def captured_steps_are_the_plain_ones(folder: Path, ids: Sequence[int]) -> None:
    """From the bucket of 256 into that of 512."""
    texts = []
    for graphs in (True, False):
        engine = OnnxEngine(folder, cuda_graph=graphs)
        engine.reset(2, 640)
        tokens = [int(engine.prefill(slot, ids[slot : slot + 230]).argmax()) for slot in range(2)]
        found = [tokens]
        for _ in range(60):
            found.append(list(engine.decode_drawn([0, 1], found[-1], [GREEDY, GREEDY])))
        texts.append(found)
        engine.close()
    assert texts[0] == texts[1]


def tokens_of_the_card_are_numpys(folder: Path, patch: Any, options: dict[str, Any]) -> None:
    """Also where logits tie; not where a number falls within a rounding of exp between two tokens."""
    with Model(folder) as model:
        drawn = [r.tokens for r in model.generate_detailed(PROMPTS, max_new_tokens=32, **options)]
        with patch.context() as inner:
            inner.setattr(OnnxEngine, "draws_tokens", False)
            chosen = [r.tokens for r in model.generate_detailed(PROMPTS, max_new_tokens=32, **options)]
    assert drawn == chosen


def greedy_texts_are_good_ones_for_the_cpu(folder: Path, **options: Any) -> None:
    oracle = open_oracle(folder)
    with Model(folder) as model:
        results = model.generate_detailed(PROMPTS, max_new_tokens=24, temperature=0.0, **options)
        starts = [list(model.engine.tokenizer.encode(prompt)) for prompt in PROMPTS]
    for result, start in zip(results, starts, strict=True):
        near_the_best(oracle, start, list(result.tokens))
    oracle.close()


def near_the_best(oracle: Any, start: list[int], tokens: list[int]) -> None:
    """Each of tokens, after what came before, is as good as any for the CPU, but for a rounding."""
    logits = oracle.logits([*start, *tokens])[len(start) - 1 : -1]
    behind = logits.max(axis=-1) - logits[np.arange(len(tokens)), tokens]
    assert behind.max() < TOLERANCE * logits.std(), behind


def memory_stays_after_many_texts(folder: Path, used: Callable[[], int], rounds: int) -> int:
    """used: bytes of the card that are taken. Returns by how many they grew."""
    with Model(folder) as model:

        def write() -> None:
            model.generate(PROMPTS, max_new_tokens=300)
            model.forget()  # beginnings are kept on purpose, up to a limit

        for _ in range(2):
            write()
        before = used()
        for _ in range(rounds):
            write()
        return used() - before


def commands_export_verify_and_generate(run: Run, model_folder: Path, folder: Path, precision: str) -> None:
    """What a user types. The text is one of those that the CPU finds best."""
    run("export", model_folder, "-o", folder, "--target", "cuda", "--precision", precision, check=True)
    checked = json.loads(run("verify", folder, "--against", model_folder, "--json", check=True).stdout)
    assert checked["export"] == str(folder)
    flags = ["-m", folder, PROMPTS[0], "-n", "16", "--temperature", "0", "--json"]
    document = json.loads(run("generate", *flags, check=True).stdout)
    assert (document["device"], document["precision"]) == ("cuda", precision)
    oracle = open_oracle(folder)
    near_the_best(oracle, list(oracle.tokenizer.encode(PROMPTS[0])), document["tokens"])
    oracle.close()
    drawn = ["-m", folder, PROMPTS[0], "-n", "16", "--seed", "3", "--json"]
    found = [
        json.loads(run("generate", *drawn, *more, check=True).stdout) for more in ([], ["--logprobs", "1"])
    ]
    assert found[0]["tokens"] == found[1]["tokens"]  # chosen on the card, and by the host
