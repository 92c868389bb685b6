"""Tokens a second and waiting times of each server against the number of clients."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import load_client
import numpy as np
from load_client import Load
from results import progress, spread, table
from servers import Server, llama_cpp_python, llama_server, ours, running
from serving_chart import draw
from serving_models import CONTEXT, PAIRS, Models

SLOTS = 16
"""Texts that a server runs at once: our default, and what llama-server is given."""

SMALLEST_LOAD = 4
"""Requests of one level at least, so that a lone client sends some."""

CHART = Path(__file__).resolve().parent.parent / "docs" / "img" / "servidor-carga.svg"

SAMPLED = {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.0}
"""Our temperature and top_p with llama.cpp's top_k, which cuts the vocabulary before its sorting."""

FEW = (1, 4, 16)
"""Clients of a server that runs one request at a time: more only wait longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What all parts are told."""

    size: str
    models: Models
    threads: int
    rounds: int
    clients: tuple[int, ...]
    prompt_tokens: int
    new_tokens: int
    llama_bin: Path
    llama_python: Path | None
    shared: str
    write: bool

    def body(self, prompt: str, **changes: Any) -> dict[str, Any]:
        """A streamed completion of so many tokens, greedy, that no end token ends."""
        return {
            "prompt": prompt,
            "max_tokens": self.new_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
        } | changes

    def bodies(self, prompts: Iterator[str], clients: int, **changes: Any) -> list[list[dict[str, Any]]]:
        """Of each client, its requests: at least two each, and `SMALLEST_LOAD` in all."""
        each = max(2, -(-SMALLEST_LOAD // clients))
        return [[self.body(prompt, **changes) for prompt in islice(prompts, each)] for _ in range(clients)]

    def ours(self, precision: str, *options: str) -> Server:
        """`ptbr-slm serve`."""
        return ours(precision, self.models.ours[precision], self.threads, *options)

    def llama(self, kind: str) -> Server:
        """llama-server."""
        return llama_server(
            self.llama_bin / "llama-server", kind, self.models.gguf[kind],
            threads=self.threads, slots=SLOTS, context=CONTEXT,
        )  # fmt: skip

    def llama_python_server(self, kind: str) -> Server:
        """llama-cpp-python's server."""
        assert self.llama_python is not None
        return llama_cpp_python(
            self.llama_python, kind, self.models.gguf[kind], threads=self.threads, context=CONTEXT
        )


@dataclass(slots=True)
class Score:
    """What one server did, over all rounds."""

    server: Server
    loads: dict[int, list[Load]] = field(default_factory=dict)
    """Clients -> a load of each round."""
    sampled: dict[int, list[Load]] = field(default_factory=dict)
    """The same with `SAMPLED`."""
    peak_bytes: int = 0

    def speeds(self, clients: int) -> list[float]:
        """Tokens/s of each round."""
        return [load.tokens_per_second for load in self.loads[clients]]

    def speed(self, clients: int) -> float:
        """Median of the rounds; 0 for a number of clients that it was not given."""
        return statistics.median(self.speeds(clients)) if clients in self.loads else 0.0


def load_section(setup: Setup) -> str:
    """Each round starts every server anew, alone, and goes through all numbers of clients."""
    servers = [setup.ours(precision) for precision, _ in PAIRS]
    servers += [setup.llama(kind) for _, kind in PAIRS]
    if setup.llama_python is not None:
        servers += [setup.llama_python_server(kind) for _, kind in PAIRS]
    scores = [Score(server) for server in servers]
    for index in range(setup.rounds):
        for turn in range(len(scores)):
            score = scores[(index + turn) % len(scores)]
            progress(f"round {index + 1} of {setup.rounds}: {score.server.name}")
            _round(setup, score, seed=1 + index)
    if setup.write:
        draw(CHART, {score.server.name: {n: score.speeds(n) for n in score.loads} for score in scores})
    return "\n\n".join(
        [
            f"{setup.size}: prompts of {setup.prompt_tokens} tokens, {setup.new_tokens} new ones, greedy, "
            f"{setup.rounds} rounds; {SLOTS} texts at once at most, of {CONTEXT} tokens each.",
            f"![tokens/s against clients](img/{CHART.name})",
            "Tokens/s of all clients together:",
            _speed_table(scores, setup.clients),
            "Milliseconds to the first text, median / 99th percentile:",
            _times_table(scores, setup.clients, lambda stream: [stream.first_s]),
            "Milliseconds from one text to the next, median / 99th percentile:",
            _times_table(scores, setup.clients, lambda stream: stream.gaps_s),
            "Sampled (temperature 0.8, top_k 40, top_p 0.95), tokens/s of all clients together:",
            _sampled_table(scores),
            *_ratios(scores, setup.clients),
        ]
    )


def _round(setup: Setup, score: Score, seed: int) -> None:
    prompts = setup.models.prompts(setup.prompt_tokens, seed=seed)
    with running(score.server) as server:
        load_client.run(server.port, setup.bodies(prompts, 2, max_tokens=8))  # to warm up
        for clients in setup.clients:
            if score.server.one_at_a_time and clients not in FEW:
                continue
            load = load_client.run(server.port, setup.bodies(prompts, clients))
            _check(load, setup)
            progress(f"  {clients}: {load.tokens_per_second:.0f} tokens/s")
            score.loads.setdefault(clients, []).append(load)
        for clients in (1,) if score.server.one_at_a_time else (1, SLOTS):
            load = load_client.run(server.port, setup.bodies(prompts, clients, **SAMPLED))
            score.sampled.setdefault(clients, []).append(load)
        score.peak_bytes = max(score.peak_bytes, server.memory("VmHWM"))


def _check(load: Load, setup: Setup) -> None:
    """Every server did the same work, as it says itself. Raises RuntimeError.

    llama_cpp.server tells no counts: its events are counted, fewer than tokens where a character has several.
    """
    for stream in load.streams:
        told = stream.prompt_tokens > 0
        short = stream.tokens < setup.new_tokens * (1 if told else 0.8)
        other = told and stream.prompt_tokens not in (setup.prompt_tokens, setup.prompt_tokens + 1)
        if short or other:
            raise RuntimeError(f"{stream.prompt_tokens} tokens of prompt, {stream.tokens} generated")


def _speed_table(scores: Sequence[Score], clients: Sequence[int]) -> str:
    rows = [
        [
            score.server.name,
            *(spread(score.speeds(number)) if number in score.loads else "" for number in clients),
            f"{score.peak_bytes / 1e6:.0f}",
        ]
        for score in scores
    ]
    return table(["", *map(_clients, clients), "peak RSS, MB"], rows)


def _times_table(scores: Sequence[Score], clients: Sequence[int], times: Any) -> str:
    rows = []
    for score in scores:
        cells = []
        for number in clients:
            if number not in score.loads:
                cells.append("")
                continue
            found = [
                each for load in score.loads[number] for stream in load.streams for each in times(stream)
            ]
            middle, last = np.percentile(found, (50, 99)) * 1e3
            cells.append(f"{middle:.1f} / {last:.1f}")
        rows.append([score.server.name, *cells])
    return table(["", *map(_clients, clients)], rows)


def _sampled_table(scores: Sequence[Score]) -> str:
    counts = list(scores[0].sampled)
    rows = []
    for score in scores:
        speeds = {n: [load.tokens_per_second for load in loads] for n, loads in score.sampled.items()}
        rows.append([score.server.name, *(spread(speeds[n]) if n in speeds else "" for n in counts)])
    return table(["", *map(_clients, counts)], rows)


def _ratios(scores: Sequence[Score], clients: Sequence[int]) -> list[str]:
    """Ours against the strongest of the other servers with the same kind of weights."""
    lines = []
    for precision, kind in PAIRS:
        mine = next(s for s in scores if (s.server.tool, s.server.weights) == ("ptbr-slm", precision))
        theirs = [s for s in scores if s.server.weights == kind]
        gains = [f"{mine.speed(n) / mine.speed(clients[0]):.2f}x at {n}" for n in clients[1:]]
        if gains:
            lines.append(f"ptbr-slm {precision}, of {_clients(clients[0])}: {', '.join(gains)}.")
        ratios = [f"{mine.speed(n) / max(s.speed(n) for s in theirs):.2f}x at {n}" for n in clients]
        lines.append(f"ptbr-slm {precision} / the faster {kind} server: {', '.join(ratios)}.")
    return lines


def _clients(number: int) -> str:
    return f"{number} client" + ("s" if number > 1 else "")
