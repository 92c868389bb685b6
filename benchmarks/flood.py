"""/health in a flood: many clients at once on few slots and a short queue, half of whom leave early.

    python benchmarks/flood.py                 # a table on the terminal
    python benchmarks/flood.py --write         # and into docs/benchmarks.md

The clients are a process of their own; another asks for /health every 20 ms, each time on a new connection,
as a load balancer does. Who is refused (429) comes again after the seconds that `retry-after` says. When all
are done the server must have nothing running or waiting, and must answer on all slots at once.
"""

from __future__ import annotations

import asyncio
import collections
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import load_client
import numpy as np
from arguments import contest_parser
from machine import facts
from results import command, progress, table, write_section
from servers import Running, ours, running
from serving_models import CONTEXT, Models, make_models

PACKAGES = ("onnxruntime", "fastapi", "uvicorn")
CLIENTS, SLOTS, WAITING = 200, 4, 16
TOKENS = 32
EVERY_S = 0.02
GIVE_UP_S = 120.0


def main() -> None:
    parser = contest_parser(__doc__, rounds=3)
    arguments = parser.parse_args()
    about = facts(PACKAGES, arguments.threads)
    models = make_models(arguments.size, arguments.folder / f"{arguments.size}-{CONTEXT}", progress)
    options = ("--max-slots", str(SLOTS), "--max-waiting", str(WAITING))
    server = ours("int8", models.ours["int8"], arguments.threads, *options)
    rows = []
    with running(server) as started:
        rows.append(["nobody else", *_times(_health_while(started, lambda: time.sleep(5))[0]), ""])
        for number in range(arguments.rounds):
            progress(f"round {number + 1} of {arguments.rounds}")
            took, ends = _health_while(started, lambda n=number: _flood(started, models, seed=n))
            rows.append([f"flood {number + 1}", *_times(took), ends])
            _check_whole(started, models, seed=number)
    text = "\n\n".join(
        [
            f"`{command()}`",
            about,
            f"{arguments.size} int8, {CLIENTS} clients at once on {SLOTS} slots and a queue of {WAITING}, "
            f"{TOKENS} new tokens each in stream, every other client leaves at its first token; refused ones "
            "come again. /health every 20 ms, milliseconds. After each flood nothing ran or waited, and all "
            "slots answered.",
            table(["", "asked", "median", "99th percentile", "largest", "what became of the clients"], rows),
        ]
    )
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section("serving-flood", text)


def _health_while(server: Running, work: Callable[[], str | None]) -> tuple[list[float], str]:
    """(seconds that each /health took while `work` ran, what `work` returned)."""
    mine, theirs = multiprocessing.Pipe()
    watcher = multiprocessing.Process(target=_watch, args=(server.port, theirs), daemon=True)
    watcher.start()
    mine.recv()  # it is there
    ends = work()
    mine.send("stop")
    took = mine.recv()
    watcher.join()
    return took, ends or ""


def _watch(port: int, pipe: Connection) -> None:
    async def watch() -> list[float]:
        took = []
        pipe.send("ready")
        while not pipe.poll():
            began = time.perf_counter()
            status, _, _ = await _ask(port, "GET /health")
            took.append(time.perf_counter() - began)
            if status != 200:
                raise RuntimeError(f"/health answered {status}")
            await asyncio.sleep(EVERY_S)
        return took

    pipe.send(asyncio.run(watch()))


def _times(took: list[float]) -> list[str]:
    middle, last = np.percentile(took, (50, 99)) * 1e3
    return [str(len(took)), f"{middle:.1f}", f"{last:.1f}", f"{max(took) * 1e3:.1f}"]


def _flood(server: Running, models: Models, seed: int) -> str:
    """All clients at once; what became of them."""
    prompts = models.prompts(24, seed=500 + seed)
    bodies = [_body(next(prompts)) for _ in range(CLIENTS)]
    ends: collections.Counter[str] = collections.Counter()

    async def client(number: int) -> None:
        leaves, until = number % 2 == 1, time.perf_counter() + GIVE_UP_S
        while time.perf_counter() < until:
            status, headers, last = await _ask(server.port, "POST /v1/completions", bodies[number], leaves)
            if status == 200:
                whole = last.rstrip().endswith(b"data: [DONE]")
                ends["left" if leaves else "answered" if whole else "broken"] += 1
                return
            if status != 429:
                raise RuntimeError(f"status {status}: {last[-300:]!r}")
            ends["refusals"] += 1
            await asyncio.sleep(float(headers["retry-after"]) * random.uniform(1, 1.5))
        ends["gave up"] += 1

    async def flood() -> None:
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))

    asyncio.run(flood())
    return ", ".join(f"{count} {what}" for what, count in sorted(ends.items()))


def _body(prompt: str) -> dict[str, object]:
    return {"prompt": prompt, "max_tokens": TOKENS, "stream": True, "ignore_eos": True, "temperature": 0.0}


async def _ask(
    port: int, what: str, body: object = None, leaves: bool = False
) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, what has come). leaves: hang up once the answer has begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{what} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {len(data)}\r\n"
        writer.write(f"{head}content-type: application/json\r\n\r\n".encode() + data)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(first.split()[1])
        if leaves and status == 200:
            return status, headers, await reader.read(1)
        came = await reader.read()
        return status, headers, came.removesuffix(b"0\r\n\r\n")
    finally:
        writer.close()


def _check_whole(server: Running, models: Models, seed: int) -> None:
    """Raises RuntimeError where something still runs or waits, or a slot is lost."""
    until = time.perf_counter() + 10
    while True:
        _, _, text = asyncio.run(_ask(server.port, "GET /metrics"))
        lines = [line for line in text.decode().splitlines() if line.startswith("vllm:num_requests_")]
        if len(lines) >= 2 and all(float(line.rsplit(" ", 1)[1]) == 0 for line in lines):
            break
        if time.perf_counter() > until:
            raise RuntimeError(f"after the flood: {lines}")
        time.sleep(0.05)
    prompts = models.prompts(24, seed=900 + seed)
    load = load_client.run(server.port, [[_body(next(prompts))] for _ in range(SLOTS)])
    if len(load.streams) != SLOTS:
        raise RuntimeError("a slot is lost")


if __name__ == "__main__":
    main()
