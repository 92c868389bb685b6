"""Ways to tune one base model with the same conversations: what each costs, teaches and makes it forget.

    python benchmarks/tuning.py --base RUN/final --data conversas.jsonl --nli inferbr_val.jsonl
        --text DADOS [--methods full lora-16 ...] [--epochs 2] [--folder DIR] [--write]

--data: conversations with a `task` a row (`nli`, ...), of which 200 are held out by their content, before
anything is trained. --nli: rows with premise, hypothesis and label, asked in words and judged by what the
model writes, greedily. --text: prepared text of the pre-training, for bits per byte and the replay.

Methods: base (untuned), full, lora-R for a rank R, replay-P for full with P % replay, majority (the most
frequent label, computed), shuffled (full, on conversations whose NLI answers are dealt out at random): the
last two are controls, which must fail. Methods run one after the other, each in a process of its own.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import facts
from results import command, progress, table, write_section

from ptbr_slm.runtime.model import Model, load
from ptbr_slm.runtime.prompt import ChatPrompt

Conversation = dict[str, Any]

ANSWERS = {"entailment": "Sim.", "contradiction": "Não, há contradição.", "neutral": "Não é possível saber."}
QUESTION = (
    "Premissa: {premise}\nHipótese: {hypothesis}\nA hipótese segue da premissa? Responda "
    '"Sim.", "Não, há contradição." ou "Não é possível saber."'
)
OWN_QUESTIONS = (
    QUESTION.format(premise="Uma menina lê um livro na varanda", hypothesis="Ninguém está lendo"),
    QUESTION.format(premise="Dois homens carregam um sofá azul", hypothesis="Homens carregam um móvel"),
    QUESTION.format(premise="O cachorro dorme no tapete", hypothesis="O cachorro está com fome"),
    'Escreva uma frase que contradiga esta: "A loja está cheia de clientes"',
    'Escreva uma frase que seja consequência desta: "Um casal dança na praça à noite"',
    "Quem é você?",
)
"""Written for this script, in the form of the conversations, but for the last; all of them are shown."""
HELD_OUT = 200
MOST_TOKENS = 96
"""Of an answer to a held-out question; one that has not ended by then counts as endless."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a method gave."""

    method: str
    seconds: float
    """Of the whole `ptbr-slm tune`."""
    peak_mib: float
    """Most resident memory of its process."""
    answer_bits: float | None
    """Bits per byte of the answers of the validation part."""
    text_bits: float
    """Bits per byte of pre-training text that was held out."""
    ended: float
    """Share of held-out questions whose answer ends by itself."""
    valid: float
    """Share of NLI questions answered with one of the three answers."""
    correct: int
    asked: int
    qa_f1: float | None
    """Mean F1 of the words of extractive answers, as SQuAD counts it; None without such questions."""

    @property
    def p_value(self) -> float:
        """One-sided binomial test against a third."""
        n, k = self.asked, self.correct
        return min(1.0, sum(math.comb(n, i) * 2 ** (n - i) for i in range(k, n + 1)) / 3**n)


def main() -> None:
    given = _arguments()
    given.folder.mkdir(parents=True, exist_ok=True)
    train, held_out = split(rows(given.data), HELD_OUT)
    files = {"plain": given.folder / "plain.jsonl", "shuffled": given.folder / "shuffled.jsonl"}
    write_rows(files["plain"], train)
    write_rows(files["shuffled"], shuffled(train))
    questions = rows(given.nli)[: given.items or None]
    outcomes = []
    for method in given.methods:
        kept = given.folder / f"{method}.json"
        if kept.exists():
            outcomes.append(Outcome(**json.loads(kept.read_text(encoding="utf-8"))))
            continue
        progress(f"{method}: ...")
        found = measure(method, given, files, held_out, questions)
        kept.write_text(json.dumps(asdict(found)), encoding="utf-8")
        progress(f"{method}: {found.seconds:.0f} s, {found.correct}/{found.asked}, ended {found.ended:.0%}")
        outcomes.append(found)
    labels = collections.Counter(row["label"] for row in questions)
    text = report(outcomes, max(labels.values()) / len(questions), given)
    print(text)
    if given.write:
        write_section("tuning", text)


def measure(
    method: str,
    given: argparse.Namespace,
    files: dict[str, Path],
    held_out: list[Conversation],
    questions: list[dict[str, Any]],
) -> Outcome:
    """Tune, then ask."""
    folder, seconds, peak, bits = given.base, 0.0, 0.0, None
    if method != "base":
        run = given.folder / method
        data = files["shuffled" if method == "shuffled" else "plain"]
        options = ["--epochs", str(given.epochs), "--seq-len", str(given.seq_len)]
        rate = given.lora_learning_rate if method.startswith("lora-") else given.learning_rate
        options += [] if rate is None else ["--learning-rate", str(rate)]
        if method.startswith("lora-"):
            options += ["--method", "lora", "--set", f"tune.lora_rank={method.removeprefix('lora-')}"]
        if method.startswith("replay-"):
            share = int(method.removeprefix("replay-")) / 100
            options += ["--replay", str(share), "--replay-data", str(given.text)]
        seconds, peak, bits = tune(given.base, data, run, options)
        folder = run / "final"
    model = load(folder)
    ended, qa_f1 = ask(model, held_out)
    valid, correct = ask_nli(model, questions)
    model.close()
    return Outcome(
        method=method,
        seconds=seconds,
        peak_mib=peak,
        answer_bits=bits,
        text_bits=text_bits(folder, given.text),
        ended=ended,
        qa_f1=qa_f1,
        valid=valid,
        correct=correct,
        asked=len(questions),
    )


def tune(base: Path, data: Path, run: Path, options: list[str]) -> tuple[float, float, float | None]:
    """(seconds, peak MiB, bits per byte of the answers) of `ptbr-slm tune`."""
    words = ["tune", str(base), "--data", str(data), "-o", str(run), "--json", "--eval-every", "0"]
    words += ["--set", "evaluation.sample_tokens=0", "--save-every", "0", *options]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "ptbr_slm", *words], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stdout is not None
    events = [json.loads(line) for line in process.stdout]
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"ptbr-slm {' '.join(words)} ended with {status}")
    return time.monotonic() - began, usage.ru_maxrss / 1024, events[-1]["bits_per_byte"]


def ask(model: Model, held_out: list[Conversation]) -> tuple[float, float | None]:
    """(share of answers that end by themselves, F1 of the extractive ones)."""
    prompts = [ChatPrompt(row["messages"][:-1]) for row in held_out]
    answers = model.generate_detailed(prompts, temperature=0.0, max_new_tokens=MOST_TOKENS)
    scores = [
        word_f1(answer.text, row["messages"][-1]["content"])
        for row, answer in zip(held_out, answers, strict=True)
        if row.get("task") == "qa"
    ]
    ended = sum(answer.finish_reason != "length" for answer in answers) / len(answers)
    return ended, sum(scores) / len(scores) if scores else None


def word_f1(answer: str, reference: str) -> float:
    """F1 of the words of an answer (Rajpurkar et al., 2016, arXiv:1606.05250), case and punctuation aside."""
    given, wanted = (collections.Counter(re.findall(r"\w+", text.lower())) for text in (answer, reference))
    common = sum((given & wanted).values())
    return 2 * common / (sum(given.values()) + sum(wanted.values())) if common else 0.0


def ask_nli(model: Model, questions: list[dict[str, Any]]) -> tuple[float, int]:
    """(share of the answers that are one of the three, how many are right)."""
    prompts = [ChatPrompt([{"role": "user", "content": QUESTION.format(**row)}]) for row in questions]
    answers = model.generate_detailed(prompts, temperature=0.0, max_new_tokens=24)
    given = [answer.text.strip() for answer in answers]
    valid = sum(text in ANSWERS.values() for text in given) / len(given)
    right = sum(text == ANSWERS[row["label"]] for text, row in zip(given, questions, strict=True))
    return valid, right


def text_bits(folder: Path, data: Path) -> float:
    """Bits per byte of the held-out part of prepared text, by `ptbr_slm.train.evaluate`."""
    import torch

    from ptbr_slm.data.prepared import PreparedData
    from ptbr_slm.eval.bits import held_out_windows
    from ptbr_slm.model import Llama
    from ptbr_slm.train.evaluate import bits_per_byte
    from ptbr_slm.train.planning.precision import choose_precision

    prepared = PreparedData.open(data, verify=False)
    text = held_out_windows(prepared.split("valid"), prepared.load_tokenizer(), 256, 16_384)
    if text is None:
        raise SystemExit(f"{data} has no validation part")
    torch.manual_seed(0)
    return bits_per_byte(Llama.from_folder(folder), text, 8, choose_precision("cpu", None, "fp32"))


def rows(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write_rows(file: Path, found: list[Conversation]) -> None:
    """As JSONL; the same rows leave the file as it is, so that prepared folders are found again."""
    body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    if not file.exists() or file.read_text(encoding="utf-8") != body:
        file.write_text(body, encoding="utf-8")


def split(found: list[Conversation], held_out: int) -> tuple[list[Conversation], list[Conversation]]:
    """(to train on, held out): those whose question has the smallest hashes, with all that ask the same."""

    def digest(row: Conversation) -> str:
        return hashlib.sha256(row["messages"][0]["content"].encode()).hexdigest()

    limit = sorted(map(digest, found))[held_out]
    return [r for r in found if digest(r) >= limit], [r for r in found if digest(r) < limit]


def shuffled(found: list[Conversation]) -> list[Conversation]:
    """The same conversations, the answers of the NLI ones dealt out at random among them."""
    nli = [row for row in found if row.get("task") == "nli"]
    answers = [row["messages"][-1] for row in nli]
    random.Random(0).shuffle(answers)
    dealt = iter(answers)
    return [
        {**row, "messages": [*row["messages"][:-1], next(dealt)]} if row.get("task") == "nli" else row
        for row in found
    ]


def answers_of(method: str, given: argparse.Namespace) -> list[str]:
    """What a method's model answers to `OWN_QUESTIONS`, greedily, cut at 120 characters."""
    folder = given.base if method == "base" else given.folder / method / "final"
    with load(folder) as model:
        prompts = [ChatPrompt([{"role": "user", "content": text}]) for text in OWN_QUESTIONS]
        return [
            answer.text[:120]
            for answer in model.generate_detailed(prompts, temperature=0.0, max_new_tokens=MOST_TOKENS)
        ]


def report(outcomes: list[Outcome], majority: float, given: argparse.Namespace) -> str:
    """The table, and the answers of each method to the same questions."""
    header = ["method", "s", "peak MiB", "bits/byte of answers", "of pre-training text", "answers that end",
              "valid NLI", "right NLI", "p against 1/3", "QA F1"]  # fmt: skip
    lines = [
        [
            found.method,
            f"{found.seconds:.0f}" if found.seconds else "",
            f"{found.peak_mib:.0f}" if found.peak_mib else "",
            "" if found.answer_bits is None else f"{found.answer_bits:.3f}",
            f"{found.text_bits:.3f}",
            f"{found.ended:.1%}",
            f"{found.valid:.1%}",
            f"{found.correct / found.asked:.1%}",
            f"{found.p_value:.1e}",
            "" if found.qa_f1 is None else f"{found.qa_f1:.1%}",
        ]
        for found in outcomes
    ]
    lines.append(["majority", "", "", "", "", "", "", f"{majority:.1%}", "", ""])
    parts = [
        facts(["torch"], int(os.environ.get("OMP_NUM_THREADS", "0"))),
        table(header, lines),
        f"`{command()}`",
    ]
    answers = [answers_of(found.method, given) for found in outcomes]
    for number, question in enumerate(OWN_QUESTIONS):
        shown = [f"- {found.method}: {said[number]!r}" for found, said in zip(outcomes, answers, strict=True)]
        parts.append("\n".join([f"> {question}".replace("\n", " / "), "", *shown]))
    return "\n\n".join(parts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--nli", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["base", "full", "lora-16", "replay-10", "shuffled"])
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--items", type=int, default=0, help="NLI questions to ask; 0: all")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/tuning"))
    parser.add_argument("--learning-rate", type=float, help="of methods that train every weight")
    parser.add_argument("--lora-learning-rate", type=float)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
