"""Time, memory and padding of conversations prepared for tuning, on generated ones and on a file of yours.

    python benchmarks/conversations.py --tokenizer tokenizer.json [--counts 100000 1000000] [--data FILE]

A generated conversation has one to three exchanges of 3 to 40 words; the same ones every time. The time is
the processor's, of one core, and the memory the largest resident one of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts, peak_memory
from results import command, progress, table, write_section

from ptbr_slm.chat.format import ChatFormat
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tokenizer.tokenizer import CHAT_TEMPLATE
from ptbr_slm.tune.packing import Rows
from ptbr_slm.tune.prepared import PreparedConversations, prepare_conversations

WORDS = """
rio pedra manhã café casa janela rua feira criança quintal avô história sertão mar biblioteca cidade silêncio
livro música violão praça trem trabalhador estudante pão vento noite dia ano gente coração ação não é há está
vai veio disse pediu contou viu ouviu abriu fechou com sem para por entre sobre depois antes agora
"""
SEQ_LENS = (512, 1024)


def generate(path: Path, count: int) -> Path:
    """Write `count` conversations."""
    draw, words = random.Random(0), WORDS.split()

    def sentence(least: int, most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(least, most))).capitalize()

    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            messages = []
            for _ in range(draw.choice((1, 1, 1, 2, 3))):
                messages.append({"role": "user", "content": sentence(5, 40) + "?"})
                messages.append({"role": "assistant", "content": sentence(3, 40) + "."})
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return path


def measure(data: Path, tokenizer_file: Path, folder: Path) -> dict[str, Any]:
    """What one file costs, measured in this process."""
    tokenizer = Tokenizer.load(tokenizer_file)
    chat = ChatFormat(CHAT_TEMPLATE, tokenizer, {"bos_token": "<|bos|>"})
    empty = peak_memory()
    start = time.process_time()
    prepared = prepare_conversations(
        [data], folder, chat, tokenizer, seq_len=max(SEQ_LENS), valid_fraction=0.0
    )
    seconds, peak = time.process_time() - start, peak_memory()
    start = time.process_time()
    PreparedConversations.open(prepared.folder)
    opened = time.process_time() - start
    split = prepared.split("train")
    packed = []
    for seq_len in SEQ_LENS:
        sizes = split.lengths - 1
        sizes = sizes[sizes <= seq_len]
        start = time.process_time()
        rows = Rows(sizes, seq_len, 0)
        packed.append(
            {
                "seq_len": seq_len,
                "seconds": time.process_time() - start,
                "padding": rows.padding,
                "unpacked": 1 - float(np.mean(sizes)) / seq_len,
            }
        )
    return {
        "conversations": split.conversations,
        "tokens": split.tokens,
        "seconds": seconds,
        "opened": opened,
        "empty": empty,
        "peak": peak,
        "size": sum(file.stat().st_size for file in prepared.folder.iterdir()),
        "packed": packed,
    }


def report(measured: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """The tables."""
    prepared = table(
        ["conversations", "tokens", "CPU s", "conversations/s", "memory, MB", "of it before", "on disk, MB",
         "opened again, CPU s"],
        [
            [name, f"{one['tokens']:,}", f"{one['seconds']:.0f}",
             f"{one['conversations'] / one['seconds']:,.0f}",
             f"{one['peak'] / 1e6:.0f}", f"{one['empty'] / 1e6:.0f}", f"{one['size'] / 1e6:.0f}",
             f"{one['opened']:.1f}"]
            for name, one in measured
        ],
    )  # fmt: skip
    packed = table(
        ["conversations", "positions a row", "padding, packed", "padding, one a row", "CPU s"],
        [
            [
                name,
                f"{at['seq_len']:,}",
                f"{at['padding']:.2%}",
                f"{at['unpacked']:.1%}",
                f"{at['seconds']:.2f}",
            ]
            for name, one in measured
            for at in one["packed"]
        ],
    )
    return f"{prepared}\n\n{packed}"


def main() -> None:
    """Measure each size in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--data", type=Path, help="a file of conversations, measured too")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    if arguments.one is not None:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(arguments.one, arguments.tokenizer, Path(folder))))
        return
    found = facts(["tokenizers", "jinja2", "numpy"], 1)
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        files = [(arguments.data.name, arguments.data)] if arguments.data else []
        for count in arguments.counts:
            progress(f"generating {count:,} conversations")
            files.append((f"{count:,} generated", generate(Path(folder) / f"{count}.jsonl", count)))
        for name, file in files:
            progress(f"preparing {name}")
            line = [sys.executable, __file__, "--tokenizer", str(arguments.tokenizer), "--one", str(file)]
            done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
            measured.append((name, json.loads(done.stdout)))
    text = f"{found}\n\n{report(measured)}\n\n`{command()}`"
    if arguments.write:
        write_section("conversations", text)
    else:
        print(text)


if __name__ == "__main__":
    main()
