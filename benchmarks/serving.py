"""The server under load, against llama.cpp's own server and llama-cpp-python's, with the same weights.

    python benchmarks/serving.py                         # tables on the terminal
    python benchmarks/serving.py --write                 # and into docs/benchmarks.md, with the plot
    python benchmarks/serving.py --parts load --rounds 1 # one part, quickly

Parts: load (clients 1 to 32), http (a lone stream with and without HTTP), prompt (a long prompt arrives while
a text runs), threads (what shares the interpreter with the engine), soak (memory over many short requests;
the only part that does not run by default). Needs the environment of benchmarks/requirements.txt and
llama.cpp's tools (`--llama-bin`), which that file says how to build.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import serving_parts
from arguments import contest_parser
from machine import facts
from results import command, progress, write_section
from serving_load import Setup, load_section
from serving_models import CONTEXT, make_gguf, make_models

PACKAGES = ("onnxruntime", "numpy", "fastapi", "uvicorn", "httptools")

PARTS: dict[str, Callable[[Setup], str]] = {
    "load": load_section,
    "http": serving_parts.http_section,
    "prompt": serving_parts.long_prompt_section,
    "threads": serving_parts.threads_section,
    "soak": serving_parts.soak_section,
}
PARTS_WITH_PEERS = {"load", "prompt"}
DEFAULT_PARTS = ("load", "http", "prompt", "threads")


def main() -> None:
    arguments = _arguments()
    parts = arguments.parts.split(",")
    about = facts(PACKAGES, arguments.threads)
    folder = arguments.folder / f"{arguments.size}-{CONTEXT}"
    models = make_models(arguments.size, folder, progress)
    if PARTS_WITH_PEERS.intersection(parts):
        make_gguf(models, arguments.llama_bin, progress)
    setup = Setup(
        size=arguments.size,
        models=models,
        threads=arguments.threads,
        rounds=arguments.rounds,
        clients=tuple(int(each) for each in arguments.clients.split(",")),
        prompt_tokens=arguments.prompt_tokens,
        new_tokens=arguments.new_tokens,
        llama_bin=arguments.llama_bin,
        llama_python=arguments.llama_python,
        shared=arguments.shared,
        write=arguments.write,
    )
    for part in parts:
        progress(f"part {part}")
        text = "\n\n".join([f"`{command()}`", f"{about} {arguments.shared}".strip(), PARTS[part](setup)])
        sys.stdout.write(text + "\n\n")
        if arguments.write:
            write_section(f"serving-{part}", text)


def _arguments() -> argparse.Namespace:
    parser = contest_parser(__doc__, rounds=3)
    parser.add_argument("--parts", default=",".join(DEFAULT_PARTS))
    parser.add_argument("--clients", default="1,2,4,8,16,32")
    parser.add_argument("--prompt-tokens", type=int, default=96)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument(
        "--llama-bin", type=Path, default=Path("llama.cpp/build/bin"), help="llama-server and llama-quantize"
    )
    parser.add_argument(
        "--llama-python", type=Path, help="has llama-cpp-python[server]; without it that server is left out"
    )
    parser.add_argument("--shared", default="", help="what shared the processors, for the reader")
    return parser.parse_args()


if __name__ == "__main__":
    main()
