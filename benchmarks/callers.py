"""One model under many callers in a process, against an earlier checkout of this project, in turns.

    python benchmarks/callers.py EXPORT --before CHECKOUT [--rounds 5]

What a caller of the Python API sees: tokens/s of one stream, of sixteen threads, of sixteen coroutines of one
event loop, of one stream beside a busy Python thread; and what disturbs a running text: a long prompt, and
another thread that asks for logits in a loop. Each figure is the median of its rounds; every round is a
process of its own. EXPORT: an export with a context of 2,048 tokens, of an 85m for example.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOKENS = 96
LONG = 1792
"""Tokens of the long prompt."""
CALLERS = 16


def measure(export: str) -> dict[str, float]:
    """All figures, once. Needs only what both versions have."""
    from ptbr_slm.runtime.model import Model
    from ptbr_slm.runtime.prompt import TokenPrompt

    with Model(export) as model:
        ends = dict.fromkeys(model.engine.config.eos_token_ids, -100.0)
        vocab_size = model.engine.config.vocab_size

        def prompt(number: int, tokens: int = 32) -> TokenPrompt:
            return TokenPrompt(
                tuple((number * 7919 + at * 31) % (vocab_size - 300) + 300 for at in range(tokens))
            )

        def one(number: int, tokens: int = TOKENS) -> list[float]:
            """Times of the chunks."""
            options: dict[str, Any] = {"max_new_tokens": tokens, "seed": number, "logit_bias": ends}
            return [time.perf_counter() for _ in model.stream(prompt(number), **options)]

        async def coroutine(number: int) -> int:
            options: dict[str, Any] = {"max_new_tokens": TOKENS, "seed": number, "logit_bias": ends}
            call = model.submit(prompt(number), **options)
            if hasattr(call, "__anext__"):
                return len([chunk async for chunk in call])
            tokens = 0
            while await asyncio.to_thread(call.next_chunk) is not None:
                tokens += 1
            return tokens

        async def coroutines(first: int) -> int:
            return sum(await asyncio.gather(*(coroutine(first + n) for n in range(CALLERS))))

        def threads(first: int) -> int:
            found: list[int] = []
            running = [
                threading.Thread(target=lambda n=n: found.append(len(one(first + n)))) for n in range(CALLERS)
            ]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
            return sum(found)

        def in_one_call(first: int) -> int:
            options: dict[str, Any] = {"max_new_tokens": TOKENS, "seed": first, "logit_bias": ends}
            return sum(1 for _ in model.stream([prompt(first + n) for n in range(CALLERS)], **options))

        def rate(work: Callable[[], int]) -> float:
            start = time.perf_counter()
            return work() / (time.perf_counter() - start)

        one(1)
        times = one(2)
        figures = {"one stream, tokens/s": (len(times) - 1) / (times[-1] - times[0])}
        figures["16 texts, one reader, tokens/s"] = rate(lambda: in_one_call(100))
        figures["16 threads, tokens/s"] = rate(lambda: threads(200))
        figures["16 coroutines, tokens/s"] = rate(lambda: asyncio.run(coroutines(300)))

        stop = threading.Event()
        busy = threading.Thread(target=lambda: _spin(stop))
        busy.start()
        times = one(400)
        figures["one stream beside a busy Python thread, tokens/s"] = (len(times) - 1) / (
            times[-1] - times[0]
        )
        stop.set()
        busy.join()

        gaps, waits = _long_prompt(model, one, prompt, ends)
        figures["gap between tokens while 1,792 tokens are read, median ms"] = 1e3 * statistics.median(gaps)
        figures["the same, mean ms"] = 1e3 * statistics.mean(gaps)
        figures["the long prompt's first token, ms"] = 1e3 * waits[0]
        figures["first token of a prompt of 2 behind it, ms"] = 1e3 * waits[1]

        ids = list(prompt(5, 256).ids)
        ended = threading.Event()
        asking = threading.Thread(target=lambda: _ask(model, ids, ended))
        asking.start()
        start, tokens = time.perf_counter(), 0
        for _ in model.stream(prompt(500), max_new_tokens=TOKENS, seed=1, logit_bias=ends):
            tokens += 1
            if time.perf_counter() - start > 10:
                break
        figures["a text beside logits() in a loop, tokens/s"] = tokens / (time.perf_counter() - start)
        ended.set()
        asking.join()
    return figures


def _long_prompt(model: Any, one: Any, prompt: Any, ends: Any) -> tuple[list[float], list[float]]:
    """Gaps (s) of a running text until a long prompt has its first token, and the time of its first token and
    of a short prompt's behind it.
    """
    times: list[float] = []
    running = threading.Event()

    def text() -> None:
        for _ in model.stream(prompt(600), max_new_tokens=1500, seed=1, logit_bias=ends):
            times.append(time.perf_counter())
            if len(times) == 16:
                running.set()
            if done.is_set():
                break

    done = threading.Event()
    writer = threading.Thread(target=text)
    writer.start()
    running.wait()
    start = time.perf_counter()
    waits = [0.0, 0.0]

    def first_token(at: int, tokens: int) -> None:
        next(iter(model.stream(prompt(700 + at, tokens), max_new_tokens=2, seed=1)))
        waits[at] = time.perf_counter() - start

    readers = [threading.Thread(target=first_token, args=pair) for pair in ((0, LONG), (1, 2))]
    for reader in readers:
        reader.start()
        time.sleep(0.02)
    for reader in readers:
        reader.join()
    end = start + waits[0]
    done.set()
    writer.join()
    inside = [at for at in times if start <= at <= end]
    return [b - a for a, b in itertools.pairwise(inside)] or [waits[0]], waits


def _spin(stop: threading.Event) -> None:
    count = 0
    while not stop.is_set():
        count += 1


def _ask(model: Any, ids: list[int], ended: threading.Event) -> None:
    while not ended.is_set():
        model.logits(ids)


def main() -> None:
    """Runs both versions in turns and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("export")
    parser.add_argument("--before", type=Path, help="checkout of the earlier version")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.export)))
        return
    from machine import facts
    from results import progress, table

    here = Path(__file__).resolve().parent.parent
    versions = {"before": arguments.before, "now": here} if arguments.before else {"now": here}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    for number in range(arguments.rounds):
        for name, checkout in versions.items():
            progress(f"round {number + 1} of {arguments.rounds}: {name}")
            path = os.pathsep.join([str(checkout), str(checkout / "export")])
            command = [sys.executable, __file__, arguments.export, "--measure"]
            done = subprocess.run(
                command, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True, text=True
            )
            found[name].append(json.loads(done.stdout))
    rows = [
        [key, *(f"{statistics.median(each[key] for each in found[name]):.1f}" for name in versions)]
        for key in found["now"][0]
    ]
    print(table(["", *versions], rows))
    print("\n" + facts(["onnxruntime", "numpy"], 2))


if __name__ == "__main__":
    main()
