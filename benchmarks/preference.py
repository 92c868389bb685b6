"""Does a preference change what a model writes? Margins and free generations during a preference tuning.

    python benchmarks/preference.py OUTPUT [--model FOLDER] [--rates 3e-5 1e-4 3e-4] [--nll-weights 0]

A small model (or --model) first learns generated conversations in which one answer in ten ends with a polite
closing. Then pairs are tuned on whose chosen answer has the closing and whose rejected one is the same
without it. What counts is the share of 50 free answers, sampled to prompts that neither has seen, that end
with it; the margin of the held-out pairs stands beside it, at several steps. Nothing is done again that
OUTPUT holds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from machine import facts
from results import command, progress, table

from ptbr_slm.chat.format import ChatFormat
from ptbr_slm.chat.messages import Message
from ptbr_slm.config import ModelConfig
from ptbr_slm.model import Llama
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.model_folder import ModelFolder, seal_model_folder, write_model_files
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.train.checkpoint.files import list_checkpoints, step_of
from ptbr_slm.train.evaluate import sample_ids
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.run import train
from ptbr_slm.tune.config import tune_config
from ptbr_slm.tune.preference_spec import PreferenceSpec
from ptbr_slm.tune.spec import TuneSpec
from ptbr_slm.tune.watch import repeated_ngrams

CLOSING = " Posso ajudar em algo mais?"
HAS_CLOSING = 0.1
"""Share of the conversations whose answer has it."""
NAMES, THINGS, PLACES, COLOURS = (
    words.split()
    for words in (
        "Ana Bruno Carla Davi Elisa Fábio Gina Hugo Inês João Lia Mário Nina Otávio Paula Rui Sara Tomás",
        "carro livro chapéu barco casaco vaso banco relógio sapato tapete piano caderno",
        "Recife Belém Curitiba Goiânia Manaus Natal Olinda Santos",
        "azul verde branco preto cinza amarelo",
    )
)
FREE = 50
LONGEST = 64
"""Tokens of a free answer at most."""
SEQ_LEN = 128


def main() -> None:
    """See the module."""
    arguments = _arguments()
    torch.set_num_threads(1)
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    learnt, pairs, prompts = _data(output)
    base = arguments.model or _new_model(output, learnt)
    chat = _tuned(output, base, learnt, arguments)
    print(f"`{command()}`\n{facts(['torch'], 1)}\n")
    parameters, count = ModelFolder(chat).config.num_parameters, len(pairs.read_text("utf-8").splitlines())
    print(f"{parameters:,} parameters, {count} pairs\n")
    header = ["rate", "NLL weight", "step", "won", "margin", "chosen", "rejected", "with closing", "ended",
              "repeated", "tokens"]  # fmt: skip
    rows = []
    for rate, weight in itertools.product(arguments.rates, arguments.nll_weights):
        for row in _preferred(output, chat, pairs, prompts, rate, weight, arguments):
            progress(" | ".join(row))
            rows.append(row)
    print(table(header, rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", type=Path, help="a model with a chat template; a new one where not given")
    parser.add_argument("--sft-steps", type=int, default=400)
    parser.add_argument("--sft-rate", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-5, 1e-4, 3e-4])
    parser.add_argument("--nll-weights", type=float, nargs="+", default=[0.0])
    parser.add_argument("--beta", type=float, default=0.1)
    return parser.parse_args()


def _exchanges() -> Iterator[tuple[str, str]]:
    """Every question that there is, with its answer."""
    draw = random.Random(0)
    for name, thing in itertools.product(NAMES, THINGS):
        colour, place = draw.choice(COLOURS), draw.choice(PLACES)
        yield f"Que cor tem o {thing} de {name}?", f"O {thing} de {name} é {colour}."
        yield f"Onde está o {thing} de {name}?", f"O {thing} de {name} está em {place}."


def _data(output: Path) -> tuple[Path, Path, list[str]]:
    """(conversations, pairs, prompts that neither holds)."""
    draw, exchanges = random.Random(1), list(_exchanges())
    draw.shuffle(exchanges)
    prompts = [question for question, _ in exchanges[:FREE]]
    for_pairs, for_learning = exchanges[FREE:200], exchanges[200:]
    learnt, pairs = output / "conversas.jsonl", output / "pares.jsonl"
    _write(learnt, [{"prompt": question, "completion": answer + CLOSING * (draw.random() < HAS_CLOSING)}
                    for question, answer in for_learning])  # fmt: skip
    _write(pairs, [{"prompt": question, "chosen": answer + CLOSING, "rejected": answer}
                   for question, answer in for_pairs])  # fmt: skip
    return learnt, pairs, prompts


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    if not path.exists():  # an older file's time is part of the name of what was prepared
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _new_model(output: Path, learnt: Path) -> Path:
    """A small random model."""
    folder = output / "base"
    if not folder.exists():
        texts = [
            text for line in learnt.read_text("utf-8").splitlines() for text in json.loads(line).values()
        ]
        tokenizer = Tokenizer.train([*texts, "system\nuser\nassistant\n" * 50], 600)
        shape = ModelConfig(
            vocab_size=tokenizer.vocab_size, hidden_size=128, num_layers=3, num_heads=4, num_kv_heads=2,
            head_dim=32, intermediate_size=352, max_seq_len=SEQ_LEN, bos_token_id=tokenizer.bos_id,
            eos_token_ids=(tokenizer.eos_id,),
        )  # fmt: skip
        with atomic_folder(folder) as new:
            write_model_files(new, shape, Llama(shape).initialize(0).to_hf_weights(), tokenizer)
            seal_model_folder(new)
    return folder


def _tuned(output: Path, base: Path, learnt: Path, arguments: argparse.Namespace) -> Path:
    """The model that has learnt the conversations."""
    run = output / "sft"
    if not (run / "final").exists():
        values = {
            "data": learnt, "output": run, "seq_len": SEQ_LEN, "batch_size": 8, "grad_accum": 1,
            "max_steps": arguments.sft_steps, "optimizer.learning_rate": arguments.sft_rate,
            "evaluation.every": 0, "evaluation.sample_tokens": 0, "checkpoint.every": 0,
        }  # fmt: skip
        result = train(tune_config(base, values), spec=TuneSpec())
        progress(f"sft: loss {result.loss}, {result.seconds:.0f} s")
    return run / "final"


def _preferred(
    output: Path,
    chat: Path,
    pairs: Path,
    prompts: Sequence[str],
    rate: float,
    nll_weight: float,
    arguments: argparse.Namespace,
) -> Iterator[list[str]]:
    """A row of the table for each checkpoint of one tuning."""
    run = output / f"dpo-{rate:g}-{nll_weight:g}-{arguments.beta:g}"
    every = max(1, arguments.steps // 6)
    values: dict[str, Any] = {
        "data": pairs, "output": run, "seq_len": SEQ_LEN, "batch_size": 8, "grad_accum": 1,
        "max_steps": arguments.steps, "optimizer.learning_rate": rate, "schedule.warmup_steps": 5,
        "tune.objective": "dpo", "tune.beta": arguments.beta, "tune.nll_weight": nll_weight,
        "tune.valid_fraction": 0.2, "tune.watched_answers": 0, "tune.max_chosen_drop": 100.0,
        "evaluation.every": every, "evaluation.sample_tokens": 0, "checkpoint.every": every,
        "checkpoint.keep": 100,
    }  # fmt: skip
    train(tune_config(chat, values), spec=PreferenceSpec())
    measured = {r["step"]: r for r in read_metrics(run / "metrics.jsonl") if r["event"] == "preference"}
    for step, folder in [
        (0, chat),
        *((step_of(path), path) for path in sorted(list_checkpoints(run / "checkpoints"))),
    ]:
        record = measured[step]
        yield [
            f"{rate:g}", f"{nll_weight:g}", str(step), f"{100 * record['won']:.0f} %",
            f"{record['margin']:.2f}", f"{record['chosen_per_token']:.2f}",
            f"{record['rejected_per_token']:.2f}", *_free(folder, prompts),
        ]  # fmt: skip


def _free(folder: Path, prompts: Sequence[str]) -> list[str]:
    """What the model writes: share with the closing, share that ends by itself, repetition, length."""
    model = Llama.from_folder(folder).eval()
    opened = ModelFolder(folder)
    chat = ChatFormat.of(opened)
    written = [
        sample_ids(model, chat.prompt([Message("user", prompt)]), LONGEST, seed)
        for seed, prompt in enumerate(prompts)
    ]
    closed = sum(opened.tokenizer.decode(ids).endswith(CLOSING) for ids, _ in written)
    return [
        f"{100 * closed / len(written):.0f} %",
        f"{100 * sum(ended for _, ended in written) / len(written):.0f} %",
        f"{100 * repeated_ngrams([ids for ids, _ in written]):.1f} %",
        f"{sum(len(ids) for ids, _ in written) / len(written):.1f}",
    ]


if __name__ == "__main__":
    main()
