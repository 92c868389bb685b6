"""What one server costs and keeps: HTTP's share, a long prompt among running texts, the interpreter's lock,
and memory over many requests.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import direct
import load_client
import numpy as np
from load_client import Load, Stream
from results import progress, spread, table
from servers import Server, running
from serving_load import SLOTS, Setup
from serving_models import PAIRS

LONG_PROMPT = 1_800
"""Tokens."""
BEFORE = 48
"""Texts of the running stream before the long prompt is sent."""
SOAK_REQUESTS = 10_000
SOAK_TOKENS = 8
"""New tokens of a request of the soak."""


TOKEN_BY_TOKEN = ("--stream-interval-ms", "0")
"""Of our server: an event for each token, as llama-server's."""


def http_section(setup: Setup) -> str:
    """A lone stream by HTTP and from `Model.stream`, in turns, each in a fresh process."""
    rows = []
    for precision, _ in PAIRS:
        alone: list[Stream] = []
        by_http: dict[tuple[str, ...], list[Stream]] = {(): [], TOKEN_BY_TOKEN: []}
        for index in range(setup.rounds):
            progress(f"round {index + 1} of {setup.rounds}: {precision}")
            prompts = setup.models.prompts(setup.prompt_tokens, seed=100 + index)
            bodies = [[setup.body(prompt) for prompt in islice(prompts, 6)]]
            for options, streams in by_http.items():
                with running(setup.ours(precision, *options)) as server:
                    load_client.run(server.port, [[setup.body(next(prompts), max_tokens=8)]])
                    streams += load_client.run(server.port, bodies).streams
            alone += direct.run(setup.models.ours[precision], bodies, threads=setup.threads).streams
        rows.append(_cost(f"{precision}, Model.stream", alone, alone))
        for options, streams in by_http.items():
            how = "HTTP, " + (" ".join(options) or "as by default")
            rows.append(_cost(f"{precision}, {how}", alone, streams))
    return "\n\n".join(
        [
            f"{setup.size}: one client, prompts of {setup.prompt_tokens} tokens, {setup.new_tokens} new; "
            "from the request to its end, and from its first text to its last, by token. "
            f"{6 * setup.rounds} texts each.",
            table(["", "ms a text", "more", "ms a token", "more", "events a text"], rows),
        ]
    )


def _cost(name: str, alone: Sequence[Stream], streams: Sequence[Stream]) -> list[str]:
    cells = []
    for measure, digits in ((_whole, 0), (_gap, 2)):
        before, after = [[measure(each) for each in group] for group in (alone, streams)]
        more = statistics.median(after) / statistics.median(before) - 1
        cells += [spread(after, digits), "" if streams is alone else f"{100 * more:+.1f} %"]
    return [name, *cells, f"{statistics.mean(len(each.texts) for each in streams):.0f}"]


def _whole(stream: Stream) -> float:
    return (stream.ended - stream.sent) * 1e3


def _gap(stream: Stream) -> float:
    return (stream.texts[-1] - stream.texts[0]) / (stream.tokens - 1) * 1e3


def long_prompt_section(setup: Setup) -> str:
    """Gaps of a running text before and while a long prompt is read."""
    servers = [
        server for ours, peer in PAIRS for server in (setup.ours(ours, *TOKEN_BY_TOKEN), setup.llama(peer))
    ]
    found: dict[str, list[list[float]]] = {server.name: [] for server in servers}
    for index in range(setup.rounds):
        for server in servers:
            progress(f"round {index + 1} of {setup.rounds}: {server.name}")
            found[server.name].append(_intrusion(setup, server, seed=200 + index))
    rows = []
    for name, rounds in found.items():
        columns = list(zip(*rounds, strict=True))
        rows.append([name, *(spread(column, 1) for column in columns[:-1]), spread(columns[-1], 0)])
    header = [
        "", "mean gap before, ms", "meanwhile", "99th percentile", "largest", "times the gap before",
        "long prompt's first text, ms",
    ]  # fmt: skip
    return "\n\n".join(
        [
            f"{setup.size}: one text runs; after {BEFORE} tokens another client sends a prompt of "
            f"{LONG_PROMPT} tokens. Gaps between the running text's events until the long prompt's first "
            f"text; {setup.rounds} rounds.",
            table(header, rows),
        ]
    )


def _intrusion(setup: Setup, server: Server, seed: int) -> list[float]:
    short = setup.models.prompts(setup.prompt_tokens, seed=seed)
    long = setup.models.prompts(LONG_PROMPT, seed=seed)
    bodies = [
        [setup.body(next(short), max_tokens=600)],
        [setup.body(next(long), max_tokens=2)],
    ]
    with running(server) as started:
        load_client.run(started.port, [[setup.body(next(short), max_tokens=8)]])
        running_text, arrived = load_client.run(started.port, bodies, after=BEFORE).streams
    first = arrived.texts[0]
    if running_text.ended < first:
        raise RuntimeError("the running text ended before the long prompt was read")
    times = list(zip(running_text.texts, running_text.texts[1:], strict=False))
    before = [(end - start) * 1e3 for start, end in times if end < arrived.sent]
    meanwhile = [(end - start) * 1e3 for start, end in times if end >= arrived.sent and start <= first]
    calm, slowed = statistics.mean(before), statistics.mean(meanwhile)
    last = float(np.percentile(meanwhile, 99))
    return [calm, slowed, last, max(meanwhile), slowed / calm, arrived.first_s * 1e3]


def threads_section(setup: Setup) -> str:
    """What a Python thread in the engine's process costs it: a busy one, and the server's own."""
    precision = PAIRS[0][0]
    model = setup.models.ours[precision]
    cases: dict[str, dict[int, list[float]]] = {}
    spent: dict[str, list[float]] = {}
    for index in range(setup.rounds):
        for clients in (1, SLOTS):
            prompts = setup.models.prompts(setup.prompt_tokens, seed=300 + index)
            bodies = setup.bodies(prompts, clients)
            progress(f"round {index + 1} of {setup.rounds}: {clients} texts")

            def note(name: str, load: Load, clients: int = clients) -> None:
                cases.setdefault(name, {}).setdefault(clients, []).append(load.tokens_per_second)

            for busy, interval in ((False, 0.005), (True, 0.005), (True, 0.0005)):
                name = f"Model, {f'a busy thread, {interval * 1e3:g} ms' if busy else 'nothing else'}"
                note(name, direct.run(
                    model, bodies, threads=setup.threads, busy=busy, switch_interval_s=interval
                ))  # fmt: skip
            for interval in (0.005, 0.0005):
                load, times = _watched_load(setup, precision, bodies, interval)
                note(f"server, {interval * 1e3:g} ms", load)
                if clients == SLOTS and interval == 0.0005:
                    tokens = sum(stream.tokens for stream in load.streams)
                    for thread, seconds in times.items():
                        spent.setdefault(thread, []).append(seconds / tokens * 1e6)
    speeds = table(
        ["", "1 text, tokens/s", f"{SLOTS} texts, tokens/s"],
        [[name, spread(found[1]), spread(found[SLOTS])] for name, found in cases.items()],
    )
    shares = table(
        ["thread of the server", "processor, us a token"],
        [[name, spread(values)] for name, values in sorted(spent.items())],
    )
    return "\n\n".join(
        [
            f"{setup.size} {precision}, prompts of {setup.prompt_tokens} tokens, {setup.new_tokens} new. "
            "A busy thread counts in a Python loop; the interval is `sys.setswitchinterval`.",
            speeds,
            f"Processor time of the server's threads at {SLOTS} clients:",
            shares,
        ]
    )


def _watched_load(
    setup: Setup, precision: str, bodies: list[list[dict[str, object]]], interval_s: float
) -> tuple[Load, dict[str, float]]:
    """A load, and the seconds of processor time that each of the server's threads took for it."""
    server = setup.ours(precision)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "threads.json"
        script = Path(__file__).with_name("serve_watched.py")
        words = (sys.executable, str(script), str(file), str(interval_s))
        words += server.command[server.command.index("serve") :]
        with running(replace(server, command=words)) as started:
            load_client.run(started.port, [[bodies[0][0] | {"max_tokens": 8}]])
            before = _read_times(file)
            load = load_client.run(started.port, bodies)
            after = _read_times(file)
    spent: dict[str, float] = {}
    for name, seconds in after.items():
        if name != "watch":  # ours
            what = _THREADS.get(name, _OTHERS)
            spent[what] = spent.get(what, 0.0) + seconds - before.get(name, 0.0)
    return load, spent


_THREADS = {
    "ptbr-slm-engine": "the engine's: its Python and half of ONNX Runtime's work",
    "others": "ONNX Runtime's other",
    "ptbr-slm-http": "the event loop's: HTTP and JSON",
}
_OTHERS = "the rest: tokenising, logs, signals"


def _read_times(file: Path) -> dict[str, float]:
    time.sleep(0.5)  # it is written five times a second
    found: dict[str, float] = json.loads(file.read_text())
    return found


def soak_section(setup: Setup) -> str:
    """Memory of the server over many short requests, to a small model, whose requests are quick."""
    precision = PAIRS[0][0]
    each = SOAK_REQUESTS // SLOTS // 10
    rows = []
    with running(setup.ours(precision)) as server:
        prompts = setup.models.prompts(24, seed=400)
        sent = 0
        for _ in range(11):  # the first tenth is a warm-up: allocators and caches fill
            bodies = [
                [setup.body(prompt, max_tokens=SOAK_TOKENS) for prompt in islice(prompts, each)]
                for _ in range(SLOTS)
            ]
            load = load_client.run(server.port, bodies)
            sent += len(load.streams)
            rows.append([f"{sent:,}", f"{server.memory('VmRSS') / 1e6:.1f}", f"{load.tokens_per_second:.0f}"])
            progress(f"{sent:,} requests: {rows[-1][1]} MB")
    return "\n\n".join(
        [
            f"{SLOTS} clients, prompts of 24 tokens, {SOAK_TOKENS} new ones, none sent twice.",
            table(["requests", "RSS, MB", "tokens/s"], rows),
        ]
    )
