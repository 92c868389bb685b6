"""The same load as `load_client`'s on a `Model` in this process: no HTTP, no JSON, no second process.

`run` starts it in a process of its own. One client reads `Model.stream`, as a program would; several read
their calls from one event loop, as the server does. Beside it, where asked, a thread that runs Python without
a pause: what any busy thread does to the engine through the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from load_client import Load, Stream

from ptbr_slm.runtime.model import Model


def run(
    model: Path,
    bodies: Sequence[Sequence[dict[str, Any]]],
    *,
    threads: int,
    busy: bool = False,
    switch_interval_s: float = 0.005,
) -> Load:
    """As `load_client.run`."""
    job = {"model": str(model), "bodies": bodies, "busy": busy, "switch_interval_s": switch_interval_s}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PTBR_SLM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=False, env=environment,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError("the model's process failed; its error is above")
    found = json.loads(done.stdout)
    return Load(streams=[Stream(**stream) for stream in found], client_cpu_s=0.0)


def options(body: dict[str, Any]) -> dict[str, Any]:
    """What a body of /v1/completions says to `Model.submit`."""
    same = ("temperature", "top_p", "top_k", "min_p", "ignore_eos")
    return {"max_new_tokens": body["max_tokens"]} | {name: body[name] for name in same if name in body}


def _lone(model: Model, bodies: Sequence[dict[str, Any]]) -> list[Stream]:
    streams = []
    for body in bodies:
        stream = Stream(sent=time.perf_counter())
        for chunk in model.stream(body["prompt"], **options(body)):
            _note(stream, chunk)
        streams.append(stream)
    return streams


async def _client(model: Model, bodies: Sequence[dict[str, Any]]) -> list[Stream]:
    streams = []
    for body in bodies:
        stream = Stream(sent=time.perf_counter())
        with model.submit(body["prompt"], **options(body)) as call:
            async for chunk in call:
                _note(stream, chunk)
        streams.append(stream)
    return streams


async def _together(model: Model, bodies: Sequence[Sequence[dict[str, Any]]]) -> list[Stream]:
    done = await asyncio.gather(*(_client(model, each) for each in bodies))
    return [stream for streams in done for stream in streams]


def _note(stream: Stream, chunk: Any) -> None:
    now = time.perf_counter()
    if chunk.text:
        stream.texts.append(now)
    if chunk.result is not None:
        stream.ended, stream.tokens = now, len(chunk.result.tokens)
        stream.prompt_tokens = chunk.result.prompt_tokens


def _spin() -> None:
    count = 0
    while True:
        count += 1


def main() -> None:
    """The child: a job on stdin, its streams on stdout."""
    job = json.load(sys.stdin)
    sys.setswitchinterval(job["switch_interval_s"])
    with Model(job["model"], "cpu") as model:
        model.generate("aquecimento", max_new_tokens=8)
        if job["busy"]:
            threading.Thread(target=_spin, daemon=True).start()
        bodies = job["bodies"]
        streams = _lone(model, bodies[0]) if len(bodies) == 1 else asyncio.run(_together(model, bodies))
        json.dump([asdict(stream) for stream in streams], sys.stdout)
        sys.stdout.flush()
        os._exit(0)  # the spinning thread would not let the interpreter end in time


if __name__ == "__main__":
    main()
