"""Decode and prefill speed of our exports against llama.cpp and onnxruntime-genai, with the same weights.

    python benchmarks/inference.py            # the table on the terminal
    python benchmarks/inference.py --write    # and into docs/benchmarks.md

Needs the environment of benchmarks/requirements.txt. docs/benchmarks.md says what is measured, and how.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from arguments import contest_parser
from contest import Rules, Score, hold
from contestants import Floats
from machine import facts, read_bandwidth
from results import command, progress, spread, table, write_section

PACKAGES = ("onnxruntime", "llama-cpp-python", "onnxruntime-genai", "numpy")
DISTURBED = 1.5
"""Best round over median of decode, above which a run is called disturbed: at most 1.2 on a quiet machine,
over 80 for llama.cpp beside other work on two cores (2026-11-22)."""

RIVALS = (
    ("int4", "llama.cpp", ("Q4_0", "Q4_K_M")),
    ("int4, int8 head", "llama.cpp", ("Q4_0", "Q4_K_M")),
    ("int8", "llama.cpp", ("Q4_0", "Q4_K_M")),
    ("int8", "llama.cpp", ("Q8_0",)),
    ("int4", "onnxruntime-genai", ("int4",)),
    ("int4, int8 head", "onnxruntime-genai", ("int4",)),
    ("fp32", "transformers", ("fp32",)),
)
"""Our precision, a peer, and what of the peer's it is compared with."""


def main() -> None:
    arguments = _arguments()
    from entries import bytes_per_token, make_entries  # heavy, and the players import this file too

    about = facts(PACKAGES, arguments.threads)
    folder = arguments.folder / arguments.size
    model, entries = make_entries(arguments.size, folder, progress, keep=arguments.keep)
    weight_bytes = [bytes_per_token(entry) for entry in entries]
    progress("reading memory")
    bandwidth = read_bandwidth(arguments.threads)
    rules = Rules(
        prompt=random_prompt(arguments.prompt_tokens),
        steps=arguments.decode_tokens,
        rounds=arguments.rounds,
        capacity=arguments.capacity,
        threads=arguments.threads,
    )
    scores = hold(entries, rules, progress)
    reference = torch_logits(model, rules.prompt, arguments.threads)
    text = "\n\n".join(
        [
            f"`{command()}`",
            about,
            f"{arguments.size}: prompt {len(rules.prompt)}, decode {rules.steps}, "
            f"KV capacity {rules.capacity}, {rules.rounds} rounds. "
            f"Memory read bandwidth with {rules.threads} threads: {bandwidth / 1e9:.1f} GB/s (measured).",
            score_table(scores, weight_bytes, bandwidth, reference, rules),
            *disturbance(scores, rules),
            *comparisons(scores, rules),
        ]
    )
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section(f"inference-{arguments.size}", text)


def random_prompt(tokens: int) -> tuple[int, ...]:
    """Ordinary tokens (no special one) drawn with a fixed seed."""
    return tuple(int(token) for token in np.random.default_rng(0).integers(5, 32_000, tokens))


def torch_logits(model: Path, prompt: tuple[int, ...], threads: int) -> Floats:
    """(V,) logits of PyTorch in fp32 after the prompt: what every entry should compute."""
    import torch

    from ptbr_slm.model import Llama

    torch.set_num_threads(threads)
    with torch.inference_mode():
        logits = Llama.from_folder(model).eval()(torch.tensor([prompt]))[0, -1]
    return np.asarray(logits.numpy())


def score_table(
    scores: list[Score],
    weight_bytes: list[int],
    bandwidth: float,
    reference: Floats,
    rules: Rules,
) -> str:
    """One row an entry. MB a token and the share of the bandwidth are computed, the rest is measured."""
    rows = []
    for score, size in zip(scores, weight_bytes, strict=True):
        decode = decode_speeds(score, rules)
        share = statistics.median(decode) * size / bandwidth
        rows.append(
            [
                f"{score.entry.tool} {score.entry.weights}",
                spread(decode),
                spread(prefill_speeds(score, rules)),
                f"{size / 1e6:.1f}",
                f"{100 * share:.0f} %",
                f"{cosine(score.logits, reference):.4f}",
                f"{score.open_s:.2f}",
                f"{score.peak_bytes / 1e6:.0f}",
            ]
        )
    header = [
        "", "decode tokens/s", "prefill tokens/s", "weights read, MB/token", "of read bandwidth",
        "cosine of logits", "open, s", "peak RSS, MB",
    ]  # fmt: skip
    return table(header, rows)


def comparisons(scores: list[Score], rules: Rules) -> list[str]:
    """Ours against each peer's best of `RIVALS`, as ratios of the medians in the table."""
    lines = []
    for ours, tool, kinds in RIVALS:
        mine = next(s for s in scores if (s.entry.tool, s.entry.weights) == ("ptbr-slm", ours))
        theirs = [s for s in scores if s.entry.tool == tool and s.entry.weights in kinds]
        decode = _ratio(mine, theirs, lambda score: decode_speeds(score, rules))
        prefill = _ratio(mine, theirs, lambda score: prefill_speeds(score, rules))
        against = f"the better of {' and '.join(kinds)}" if len(kinds) > 1 else kinds[0]
        lines.append(f"ptbr-slm {ours} / {tool} {against}: decode {decode:.2f}x, prefill {prefill:.2f}x.")
    return lines


def _ratio(mine: Score, theirs: list[Score], speeds: Callable[[Score], list[float]]) -> float:
    """Our median over their best median."""
    return statistics.median(speeds(mine)) / max(statistics.median(speeds(score)) for score in theirs)


def disturbance(scores: list[Score], rules: Rules) -> list[str]:
    """A warning where some entry's best round was far above its median: something else used the cores."""
    worst = max(scores, key=lambda score: _best_over_median(score, rules))
    if _best_over_median(worst, rules) < DISTURBED:
        return []
    return [
        f"**Disturbed run**: the best round of {worst.entry.tool} {worst.entry.weights} was "
        f"{_best_over_median(worst, rules):.1f} times its median, so other work took the cores meanwhile. "
        "Ratios of such a run say which one suffers most from other processes, not which is faster."
    ]


def _best_over_median(score: Score, rules: Rules) -> float:
    speeds = decode_speeds(score, rules)
    return max(speeds) / statistics.median(speeds)


def decode_speeds(score: Score, rules: Rules) -> list[float]:
    """Tokens/s of each round."""
    return [rules.steps / turn.decode_s for turn in score.turns]


def prefill_speeds(score: Score, rules: Rules) -> list[float]:
    """Tokens/s of each round."""
    return [len(rules.prompt) / turn.prefill_s for turn in score.turns]


def cosine(a: Floats, b: Floats) -> float:
    """Of two (V,) vectors."""
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def _arguments() -> argparse.Namespace:
    parser = contest_parser(__doc__, rounds=15)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--decode-tokens", type=int, default=64)
    parser.add_argument("--capacity", type=int, default=1024, help="tokens the KV cache may hold")
    parser.add_argument("--keep", action="store_true", help="our exports of an earlier run too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
