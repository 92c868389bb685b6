"""How many replicas a machine wants: one engine on all cores, or several that share them.

    python benchmarks/replicas.py                                 # tables on the terminal
    python benchmarks/replicas.py --write                         # and into docs/benchmarks.md
    python benchmarks/replicas.py --nginx nginx --ray PYTHON      # through a proxy and through Ray Serve too

Every arrangement has as many threads as --threads says in all. Without a proxy the clients are dealt to the
replicas in turn, as an ideal balancer would. `--ray`: a Python that has ray[serve]; `--nginx`: its binary.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import load_client
import numpy as np
import psutil
from arguments import contest_parser
from load_client import Load
from machine import facts
from ptbr_slm_export import export_model
from results import command, progress, spread, table, write_section
from servers import Running, Server, ours, running
from serving_models import CONTEXT, Models

from ptbr_slm.bench.synthetic import write_random_model
from ptbr_slm.config import model_config

ROOT = Path(__file__).resolve().parent.parent

PROXY = """
worker_processes 1; daemon off; pid FOLDER/pid; error_log stderr warn;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path FOLDER/1; proxy_temp_path FOLDER/2;
  fastcgi_temp_path FOLDER/3; uwsgi_temp_path FOLDER/4; scgi_temp_path FOLDER/5;
  upstream ptbr_slm { least_conn; REPLICAS keepalive 32; }
  server {
    listen 127.0.0.1:PORT;
    location / {
      proxy_pass http://ptbr_slm; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600s;
    }
  }
}
"""
"""nginx as docs/VARIAS_MAQUINAS.md has it, without a system's folders."""


@dataclass(slots=True)
class Score:
    """One arrangement, over all rounds."""

    name: str
    start: Callable[[], AbstractContextManager[list[Running]]]
    """Starts it: the addresses that clients are dealt to; all processes below theirs are its memory."""
    loads: dict[int, list[Load]] = field(default_factory=dict)
    """Clients -> a load of each round."""
    memory: list[int] = field(default_factory=list)
    """Bytes of each round, see `proportional_bytes`."""


def main() -> None:
    arguments = _arguments()
    about = facts(("onnxruntime", "numpy", "fastapi", "uvicorn"), arguments.threads)
    export = _export(arguments.size, arguments.folder / f"{arguments.size}-{CONTEXT}", arguments.precision)
    models = Models(source=export, ours={}, gguf={})
    clients = [int(each) for each in arguments.clients.split(",")]
    scores = _arrangements(arguments, export)
    for index in range(arguments.rounds):
        prompts = models.prompts(arguments.tokens, seed=1 + index)
        for turn in range(len(scores)):
            score = scores[(index + turn) % len(scores)]
            progress(f"round {index + 1} of {arguments.rounds}: {score.name}")
            with score.start() as replicas:
                _load(replicas, prompts, 2 * len(replicas), 8)  # to warm up
                for number in clients:
                    load = _load(replicas, prompts, number, arguments.tokens)
                    score.loads.setdefault(number, []).append(load)
                score.memory.append(proportional_bytes())
    text = "\n\n".join(
        [
            f"`{command()}`",
            f"{about} {arguments.shared}".strip(),
            f"{arguments.size} {arguments.precision}, prompts of {arguments.tokens} tokens and as many new "
            f"ones, greedy, {arguments.rounds} rounds, two requests a client. Tokens/s of all clients "
            "together; first text and gap between texts in ms, median / 99th percentile; memory of all "
            "processes of the arrangement, shared pages counted once.",
            _table(scores, clients),
        ]
    )
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section("replicas", text)


def proportional_bytes() -> int:
    """Bytes of memory (PSS) of all processes that this one started: a page shared by n counts 1/n to each."""
    return sum(child.memory_full_info().pss for child in psutil.Process().children(recursive=True))


def _load(replicas: Sequence[Running], prompts: Iterator[str], clients: int, tokens: int) -> Load:
    """Two requests a client; the clients dealt to the replicas in turn, a process of clients for each."""
    shares: list[list[list[dict[str, Any]]]] = [[] for _ in replicas]
    for client in range(clients):
        shares[client % len(replicas)].append([_body(prompt, tokens) for prompt in islice(prompts, 2)])
    with ThreadPoolExecutor(len(replicas)) as pool:
        found = list(pool.map(load_client.run, [replica.port for replica in replicas], shares))
    streams = [stream for load in found for stream in load.streams]
    if any(stream.tokens != tokens for stream in streams):
        raise RuntimeError("a text is shorter than asked")
    return Load(streams=streams, client_cpu_s=sum(load.client_cpu_s for load in found))


def _body(prompt: str, tokens: int) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }


def _arrangements(arguments: argparse.Namespace, export: Path) -> list[Score]:
    cores = arguments.threads

    @contextmanager
    def direct(replicas: int) -> Iterator[list[Running]]:
        with ExitStack() as stack:
            server = ours(arguments.precision, export, cores // replicas)
            yield [stack.enter_context(running(server)) for _ in range(replicas)]

    @contextmanager
    def proxied(replicas: int) -> Iterator[list[Running]]:
        with direct(replicas) as behind, tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "nginx.conf"
            servers = " ".join(f"server 127.0.0.1:{each.port};" for each in behind)
            file.write_text(PROXY.replace("FOLDER", folder).replace("REPLICAS", servers))
            script = f"sed -i s/PORT/$1/ {file}; exec {arguments.nginx} -p {folder} -c {file}"
            words = ("sh", "-c", script, "sh", "{port}")
            proxy = Server(tool="nginx", weights="", command=words, health="/v1/models", threads=1)
            with running(proxy) as front:
                yield [front]

    @contextmanager
    def on_ray(replicas: int) -> Iterator[list[Running]]:
        words = (
            arguments.ray, str(ROOT / "examples/scale/ray_serve.py"), str(export), "--port", "{port}",
            "--replicas", str(replicas), "--threads", str(cores // replicas),
        )  # fmt: skip
        server = Server(tool="Ray", weights="", command=words, health="/v1/models", threads=1)
        with running(server) as front:
            yield [front]

    scores = [
        Score(f"{count} x {cores // count} threads", lambda count=count: direct(count))
        for count in range(1, cores + 1)
        if cores % count == 0
    ]
    each = f"{cores} x 1 thread"
    if arguments.nginx:
        scores.append(Score(f"{each}, nginx", lambda: proxied(cores)))
    if arguments.ray:
        scores.append(Score(f"{each}, Ray Serve", lambda: on_ray(cores)))
    return scores


def _export(size: str, folder: Path, precision: str) -> Path:
    out = folder / precision
    if not out.exists():
        source = folder / "model"
        if not source.exists():
            progress(f"drawing a random {size}")
            write_random_model(source, replace(model_config(size), max_seq_len=CONTEXT))
        progress(f"exporting {precision}")
        export_model(source, out, precision=precision, verify=False)
    return out


def _table(scores: Sequence[Score], clients: Sequence[int]) -> str:
    rows = []
    for score in scores:
        row = [score.name]
        for number in clients:
            loads = score.loads[number]
            streams = [stream for load in loads for stream in load.streams]
            gaps = [gap for stream in streams for gap in stream.gaps_s]
            row += [
                spread([load.tokens_per_second for load in loads]),
                _percentiles([stream.first_s for stream in streams]),
                _percentiles(gaps),
            ]
        rows.append([*row, f"{statistics.median(score.memory) / 1e6:.0f}"])
    heads = [
        head
        for number in clients
        for head in (f"{number} client{'s' if number > 1 else ''}: tokens/s", "first text", "gap")
    ]
    return table(["", *heads, "memory, MB"], rows)


def _percentiles(seconds: Sequence[float]) -> str:
    middle, last = np.percentile(seconds, (50, 99)) * 1e3
    return f"{middle:.0f} / {last:.0f}"


def _arguments() -> argparse.Namespace:
    parser = contest_parser(__doc__, rounds=3)
    parser.add_argument("--precision", choices=("int8", "int4", "fp32"), default="int8")
    parser.add_argument("--clients", default="1,8,16")
    parser.add_argument("--tokens", type=int, default=96, help="of each prompt, and new ones")
    parser.add_argument("--nginx", help="binary of nginx")
    parser.add_argument("--ray", help="a Python with ray[serve]")
    parser.add_argument("--shared", default="", help="what shared the processors, for the reader")
    return parser.parse_args()


if __name__ == "__main__":
    main()
