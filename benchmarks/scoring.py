"""Scoring of continuations: `Model.score_batch` against transformers' plain scoring, on the same weights.

    python benchmarks/scoring.py [--tasks choices,words] [--rounds 3]

Plain scoring is what evaluation harnesses do (`_loglikelihood_tokens` of lm_eval/models/huggingface.py,
0.4.13): each prompt with each continuation is a text of its own; texts are sorted by length, padded on the
right, run in batches, and the logits of all positions are normalised. It is given the tokens, so that its
time has no tokenizing; ours has. One process, contestants in turn, medians of the process's CPU time, so that
neighbours on the machine disturb little. Scores are compared: fp32 ours and transformers'.

Tasks, of invented words: `choices`, 4 continuations of a question; `few-shot`, the same after 5 examples that
all questions share; `letters`, 4 of one token; `words`, the last word of a passage (LAMBADA's form); `pairs`,
two sentences without a prompt (BLiMP's form).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from arguments import contest_parser
from machine import facts, peak_memory
from ptbr_slm_export import export_model
from results import command, progress, spread, table

from ptbr_slm.bench.synthetic import invented_words, write_random_model
from ptbr_slm.config import ModelConfig, model_config
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.scoring import EncodedPair, Request, encode_pairs

BATCHES = (1, 16)
"""Texts a batch of plain scoring: lm_eval's default, and a larger one."""
EXPORTS = ("fp32", "int8")


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    about = facts(("onnxruntime", "torch", "transformers", "numpy"), arguments.threads)
    folder = arguments.folder / arguments.size
    source = folder / "model"
    if not source.exists():
        write_random_model(source, model_config(arguments.size))
    for precision in EXPORTS:
        if not (folder / precision).exists():
            export_model(source, folder / precision, precision=precision, verify=False)
    ours = {precision: Model(folder / precision, "cpu") for precision in EXPORTS}
    ours["checkpoint"] = Model(source, "cpu")
    peer = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    flops = product_speed()
    rows, notes = [], []
    for name in arguments.tasks.split(","):
        requests = TASKS[name](arguments.requests)
        engine = ours["fp32"].engine
        pairs = [
            pair
            for prompt, texts in requests
            for pair in encode_pairs(engine.tokenizer, engine.config, prompt, texts)
        ]
        contestants: dict[str, Callable[[], Sequence[float]]] = {
            **{f"plain {size}": partial(plain_scores, peer, pairs, size) for size in BATCHES},
            **{who: partial(_scores, model, requests) for who, model in ours.items()},
        }
        times, scores = hold(contestants, arguments.rounds)
        best = min(statistics.median(times[f"plain {size}"]) for size in BATCHES)
        least = least_seconds(engine.config, pairs, flops)
        rows.append(
            [
                name,
                *(spread(times[who], 2) for who in contestants),
                *(f"{best / statistics.median(times[who]):.1f}" for who in EXPORTS),
                f"{least / statistics.median(times['fp32']):.0%}",
            ]
        )
        progress(" | ".join(rows[-1]))
        worst = float(np.abs(np.subtract(scores["fp32"], scores["plain 1"])).max())
        notes.append(f"{name}: {len(requests)} requests, {len(pairs)} texts, fp32 apart {worst:.1e}")
    header = ["task", *(f"{who} s" for who in contestants), *(f"{p} x" for p in EXPORTS), "fp32 of limit"]
    limit = f"Limit: {flops / 1e9:.0f} GFLOP/s of fp32 products. Peak memory {peak_memory() >> 20} MiB."
    print(f"`{command()}`\n\n{about}\n\n{table(header, rows)}\n\n{'; '.join(notes)}. {limit}")


def plain_scores(model: Any, pairs: Sequence[EncodedPair], batch: int) -> list[float]:
    """Nats of each continuation, text by text, as the docstring says."""
    order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index].ids))
    found = [0.0] * len(pairs)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        longest = len(pairs[chosen[0]].ids)
        ids = torch.tensor([[*pairs[i].ids, *[0] * (longest - len(pairs[i].ids))] for i in chosen])
        with torch.inference_mode():
            logprobs = torch.log_softmax(model(ids, use_cache=False).logits, dim=-1)  # (B, T, V)
        for row, index in enumerate(chosen):
            targets = torch.tensor(pairs[index].targets)
            first = pairs[index].start - 1
            own = logprobs[row, first : first + len(targets)]
            found[index] = float(own.gather(1, targets[:, None]).sum())
    return found


def least_seconds(config: ModelConfig, pairs: Sequence[EncodedPair], flops: float) -> float:
    """What the products alone cost at the machine's fp32 speed: every prefix once, the head where asked."""
    body = config.num_parameters - config.vocab_size * config.hidden_size * (
        1 if config.tie_embeddings else 2
    )
    prefixes = {pair.ids[: end + 1] for pair in pairs for end in range(len(pair.ids))}
    asked = {pair.ids[: pair.start + index] for pair in pairs for index in range(len(pair.targets))}
    products = len(prefixes) * body + len(asked) * config.vocab_size * config.hidden_size
    return 2 * products / flops


def product_speed() -> float:
    """FLOP/s, by CPU time, of the fastest of some fp32 products of 256 rows."""
    left, right = torch.ones(256, 768), torch.ones(768, 4096)
    times = []
    for _ in range(40):
        start = time.process_time()
        left @ right
        times.append(time.process_time() - start)
    return 2 * 256 * 768 * 4096 / min(times)


def _scores(model: Model, requests: Sequence[Request]) -> list[float]:
    return [score.logprob for scores in model.score_batch(requests) for score in scores]


def hold(
    contestants: dict[str, Callable[[], Sequence[float]]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Sequence[float]]]:
    """CPU seconds of each round, and the scores; a first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    scores: dict[str, Sequence[float]] = {}
    for round_ in range(rounds + 1):
        for name, work in contestants.items():
            progress(f"round {round_}: {name}")
            start = time.process_time()
            scores[name] = work()
            if round_:
                times[name].append(time.process_time() - start)
    return times, scores


class _Words:
    """Words in a row, the same at each run."""

    def __init__(self) -> None:
        self._words = " ".join(invented_words(100_000, seed=3)).split()
        self._draw = np.random.default_rng(0)

    def take(self, least: int, most: int) -> str:
        """From `least` to `most` words."""
        return " ".join(self._words.pop() for _ in range(self._draw.integers(least, most + 1)))


def _choices(count: int) -> list[Request]:
    words = _Words()
    return [
        (f"Pergunta: {words.take(20, 40)}?\nResposta:", [f" {words.take(2, 6)}" for _ in range(4)])
        for _ in range(count)
    ]


def _few_shot(count: int) -> list[Request]:
    words = _Words()
    shots = "\n\n".join(f"Pergunta: {words.take(20, 40)}?\nResposta: {words.take(2, 6)}" for _ in range(5))
    return [(f"{shots}\n\n{prompt}", texts) for prompt, texts in _choices(count)]


def _letters(count: int) -> list[Request]:
    words = _Words()
    options = " ".join("ABCD")
    return [
        (f"Pergunta: {words.take(30, 60)}\nAlternativas: {options}\nResposta:", [" A", " B", " C", " D"])
        for _ in range(count)
    ]


def _last_words(count: int) -> list[Request]:
    words = _Words()
    return [(words.take(40, 60), [f" {words.take(1, 1)}"]) for _ in range(4 * count)]


def _pairs(count: int) -> list[Request]:
    words = _Words()
    found: list[Request] = []
    for _ in range(4 * count):
        beginning, ending = words.take(3, 5), words.take(2, 3)
        found.append(("", [f"{beginning} {words.take(1, 1)} {ending}" for _ in range(2)]))
    return found


TASKS: dict[str, Callable[[int], list[Request]]] = {
    "choices": _choices,
    "few-shot": _few_shot,
    "letters": _letters,
    "words": _last_words,
    "pairs": _pairs,
}


def _arguments() -> Any:
    parser = contest_parser(__doc__, rounds=3)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--requests", type=int, default=8, help="4 times as many of words and pairs")
    parser.set_defaults(threads=1, folder=Path("models/benchmark"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
