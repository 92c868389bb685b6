"""What choosing one token costs: our sampler against transformers' processors, on one CPU thread.

    python benchmarks/sampling.py [--repeats 200]

Logits of 32,000 and 128,000 tokens, of three kinds: `peaked`, where a trained model is sure (probabilities
that fall with the rank to the power 1.5, the largest 0.4), `unsure` (to the power 1.2, the largest 0.2), and
`flat` (normal, as random weights give them: the worst case, thousands of tokens share the top-p).
transformers: its LogitsProcessorList on float32 torch
tensors, softmax and multinomial, as in `generate`. Every case in turn, `repeats` rounds; medians of the
process's CPU time in microseconds, so that neighbours on the machine disturb little. The last column is our
share of a decode step of an 85M int4 model on two cores, 3.5 ms.

A second table: what a batch could save if the passes that its texts share (largest, difference, temperature,
exp) ran over all rows of its logits at once, and not row by row.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import machine
import numpy as np
import torch
from results import table
from transformers.generation import logits_process as peer

from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sampling.sampler import Sampler

STEP_MS = 3.5
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature 0.8": {"top_p": 1.0},
    "top-k 50": {"top_k": 50, "top_p": 1.0},
    "top-p 0.95 (default)": {},
    "top-k 50, top-p 0.95": {"top_k": 50},
    "min-p 0.05": {"top_p": 1.0, "min_p": 0.05},
    "greedy, repetition 1.1": {"temperature": 0.0, "repetition_penalty": 1.1},
    "default, presence 0.5": {"presence_penalty": 0.5},
    "default, 5 log probabilities": {"logprobs": 5},
}
PROMPT = list(range(1000, 1300))


def logits_of(kind: str, vocab_size: int) -> np.ndarray:
    """(V,) float32."""
    random = np.random.default_rng(0)
    if kind == "flat":
        return random.normal(size=vocab_size).astype(np.float32)
    falling = {"peaked": -1.5, "unsure": -1.2}[kind] * np.log(np.arange(1, vocab_size + 1))
    return random.permutation(falling).astype(np.float32)


def ours(params: SamplingParams, logits: np.ndarray) -> Callable[[], int]:
    """One choice, on logits of its own as an engine hands them over."""
    sampler = Sampler(params, 0, PROMPT, len(logits))
    scores = logits.copy()

    def choose() -> int:
        np.copyto(scores, logits)
        return sampler.choose(scores)

    return choose


def theirs(params: SamplingParams, logits: np.ndarray) -> Callable[[], int] | None:
    """The same with transformers; None for what it has no processor for."""
    if params.presence_penalty or params.logprobs is not None:
        return None
    chain = peer.LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        chain.append(peer.RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.temperature:
        chain.append(peer.TemperatureLogitsWarper(params.temperature))
        if params.top_k:
            chain.append(peer.TopKLogitsWarper(params.top_k))
        if params.top_p < 1:
            chain.append(peer.TopPLogitsWarper(params.top_p))
        if params.min_p:
            chain.append(peer.MinPLogitsWarper(params.min_p))
    source, prompt = torch.from_numpy(logits)[None], torch.tensor([PROMPT])

    def choose() -> int:
        scores = chain(prompt, source.clone())
        if not params.temperature:
            return int(scores.argmax(dim=-1))
        return int(torch.multinomial(scores.softmax(dim=-1), 1))

    return choose


def medians(choices: list[Callable[[], int]], repeats: int) -> list[float]:
    """CPU microseconds a call, the choices in turn."""
    taken: list[list[float]] = [[] for _ in choices]
    for _ in range(repeats):
        for index, choose in enumerate(choices):
            start = time.process_time_ns()
            choose()
            taken[index].append((time.process_time_ns() - start) / 1000)
    return [statistics.median(times) for times in taken]


def measure(kind: str, vocab_size: int, repeats: int) -> list[list[str]]:
    """The rows of one kind of logits."""
    logits = logits_of(kind, vocab_size)
    rows = []
    for name, options in CASES.items():
        params = SamplingParams(**options)
        pair = [ours(params, logits), theirs(params, logits)]
        found = medians([choose for choose in pair if choose is not None], repeats)
        us, them = found[0], found[1] if len(found) > 1 else None
        rows.append(
            [
                f"{name}, {kind}",
                f"{vocab_size:,}",
                f"{us:.0f}",
                "-" if them is None else f"{them:.0f}",
                "-" if them is None else f"{them / us:.1f}x",
                f"{us / (10 * STEP_MS):.1f} %",
            ]
        )
    return rows


def shared_passes(rows: int, vocab_size: int, repeats: int) -> list[str]:
    """The table's row of a batch of `rows` texts, microseconds a text."""
    source = np.stack([logits_of("unsure", vocab_size)] * rows)
    scores, temperature = source.copy(), np.float32(0.8)

    def one_by_one() -> int:
        np.copyto(scores, source)
        for row in scores:
            row -= row.max()
            row /= temperature
            np.exp(row, out=row)
        return 0

    def at_once() -> int:
        np.copyto(scores, source)
        np.subtract(scores, scores.max(axis=1, keepdims=True), out=scores)
        np.divide(scores, temperature, out=scores)
        np.exp(scores, out=scores)
        return 0

    found = medians([one_by_one, at_once], repeats)
    return [str(rows), *(f"{us / rows:.1f}" for us in found), f"{(found[0] - found[1]) / rows:.1f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    rows = [
        row
        for size in (32_000, 128_000)
        for kind in ("peaked", "unsure", "flat")
        for row in measure(kind, size, repeats)
    ]
    print(machine.facts(["numpy", "torch", "transformers"], threads=1))
    print()
    print(table(["one token", "V", "ours, us", "transformers, us", "faster", "of an 85M step"], rows))
    print()
    shared = [shared_passes(count, 32_000, repeats) for count in (1, 2, 4, 8, 16)]
    print(table(["texts", "row by row, us", "at once, us", "saved, us a text"], shared))


if __name__ == "__main__":
    main()
