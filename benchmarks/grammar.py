"""Controls of the grammar suite: models that know no syntax stay at 50 %, one that reads rises above.

    python benchmarks/grammar.py --data PREPARED --model machado=FOLDER --model shuffled=FOLDER [--write]

`--data`: prepared data whose training split the unigram and the 5-gram count (interpolated Kneser-Ney, over
the tokens of its tokenizer). `--model NAME=FOLDER`: a model folder or an export, any number of them.
`--shuffled FOLDER` writes a copy of the data with the tokens of each document in random order and ends: train
the control on it. A pair is right where the good member has the greater log probability, summed over its
tokens; a tie counts a half. Intervals are Wilson's, 95 %. `--wrong FILE` lists the pairs that the first model
gets wrong, for reading.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from machine import facts
from results import command, table, write_section

from ptbr_slm.data.index import with_sums
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.eval.grammar.suite import PhenomenonPairs, load
from ptbr_slm.eval.statistics import wilson_interval
from ptbr_slm.runtime.model import Model
from ptbr_slm.storage.manifest import sha256_file

Score = Callable[[Sequence[str]], list[float]]
"""Sentences -> their log probabilities."""


class KneserNey:
    """Interpolated Kneser-Ney over token ids, one discount (Kneser and Ney 1995; Chen and Goodman 1998)."""

    def __init__(self, documents: list[list[int]], order: int, discount: float = 0.75) -> None:
        self.order, self.discount = order, discount
        self.counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order)]
        highest = self.counts[order - 1]
        for tokens in documents:
            highest.update(zip(*(tokens[start:] for start in range(order)), strict=False))
            for size in range(1, order):  # the beginning has no full context
                highest_of_size = tuple(tokens[:size])
                self.counts[size - 1][highest_of_size] += 1
        for size in range(order - 1, 0, -1):  # lower orders count in how many contexts a continuation stands
            for gram in self.counts[size]:
                self.counts[size - 1][gram[1:]] += 1
        self.totals: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order)]
        self.kinds: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order)]
        for size, counts in enumerate(self.counts):
            for gram, count in counts.items():
                self.totals[size][gram[:-1]] += count
                self.kinds[size][gram[:-1]] += 1

    def probability(self, context: tuple[int, ...], token: int, vocabulary: int) -> float:
        """Of a token after its context; 1 / vocabulary is the lowest order of all."""
        found = 1 / vocabulary
        for size in range(min(self.order, len(context) + 1)):
            before = context[len(context) - size :]
            total = self.totals[size][before]
            if not total:
                break
            share = max(self.counts[size][(*before, token)] - self.discount, 0) / total
            found = share + self.discount * self.kinds[size][before] / total * found
        return found

    def logprob(self, tokens: list[int], vocabulary: int) -> float:
        """Of a sentence, its first token being given."""
        return math.fsum(
            math.log(
                self.probability(tuple(tokens[max(0, at - self.order + 1) : at]), tokens[at], vocabulary)
            )
            for at in range(1, len(tokens))
        )


def documents(data: PreparedData, share: float) -> list[list[int]]:
    """Token ids of the training split, a list a document: the first `share` of each."""
    train = data.split("train")
    bounds = [(int(start), int(end)) for start, end in pairwise(train.document_offsets())]
    return [train.read(start, start + max(2, int(share * (end - start)))).tolist() for start, end in bounds]


def n_gram(data: PreparedData, order: int, share: float = 1.0) -> Score:
    """A scorer over the tokens of the data, or of the first `share` of each document."""
    tokenizer = data.load_tokenizer()
    model = KneserNey(documents(data, share), order, discount=0.0 if order == 1 else 0.75)
    vocabulary = data.index.vocab_size

    def score(texts: Sequence[str]) -> list[float]:
        return [model.logprob(tokenizer.encode(text), vocabulary) for text in texts]

    return score


def neural(folder: Path) -> Score:
    """A scorer of a model."""
    model = Model(folder)
    return lambda texts: [found.logprob for found in model.score("", texts)]


def judge(phenomenon: PhenomenonPairs, score: Score) -> list[float]:
    """1, 0 or (a tie) 0.5 for each pair."""
    texts = [text for pair in phenomenon.pairs for text in (pair.good, pair.bad)]
    found = score(texts)
    return [
        0.5 if abs(good - bad) < 1e-9 else float(good > bad)
        for good, bad in zip(found[::2], found[1::2], strict=True)
    ]


def percent(points: Sequence[float]) -> str:
    """`71 [62-79]`: the share that is right, and its interval."""
    interval = wilson_interval(sum(points), len(points))
    return f"{100 * sum(points) / len(points):.0f} [{100 * interval.low:.0f}-{100 * interval.high:.0f}]"


def shuffle(source: Path, target: Path) -> None:
    """A copy of prepared data, the tokens of each document between its ends in random order (seed 0)."""
    data = PreparedData.open(source)
    shutil.copytree(source, target)
    index = json.loads((target / "index.json").read_text(encoding="utf-8"))
    for key in ("schema", "kind", "sha256", "index_sha256"):
        index.pop(key)
    generator = np.random.default_rng(0)
    for name, split in index["splits"].items():
        offsets = data.split(name).document_offsets()
        for shard in split["shards"]:
            path = target / shard["file"]
            tokens = np.fromfile(path, dtype=index["dtype"])
            for start, end in pairwise(offsets):
                tokens[start + 1 : end - 1] = generator.permutation(tokens[start + 1 : end - 1])
            tokens.tofile(path)
            shard["sha256"] = sha256_file(path)
    (target / "index.json").write_text(json.dumps(with_sums(index)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared data")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER", help="repeatable")
    parser.add_argument(
        "--share", type=float, help="of the data, for one more 5-gram: as much as a model read"
    )
    parser.add_argument("--shuffled", type=Path, help="write shuffled data here, and end")
    parser.add_argument("--wrong", type=Path, help="list the pairs the first model gets wrong")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    given = parser.parse_args()
    if given.shuffled:
        shuffle(given.data, given.shuffled)
        return
    data = PreparedData.open(given.data)
    chance = np.random.default_rng(0)
    scorers: dict[str, Score] = {
        "random": lambda texts: chance.random(len(texts)).tolist(),
        "unigram": n_gram(data, 1),
        "5-gram": n_gram(data, 5),
    }
    if given.share:
        scorers[f"5-gram, {given.share:.0%} of the text"] = n_gram(data, 5, given.share)
    for named in given.model:
        name, _, folder = named.partition("=")
        scorers[name] = neural(Path(folder))
    suite = load()
    points = {
        name: {one.name: judge(one, score) for one in suite.phenomena} for name, score in scorers.items()
    }
    rows = [
        [f"{one.name} ({one.register})", *(percent(points[name][one.name]) for name in scorers)]
        for one in suite.phenomena
    ]
    for register in ("neutro", "formal", "norma-padrão"):
        names = [one.name for one in suite.in_registers([register])]
        totals = [percent([point for one in names for point in points[name][one]]) for name in scorers]
        rows.append([f"**all {register}** ({len(names)})", *totals])
    text = "\n\n".join(
        (
            f"Pairs right in %, with 95 % intervals. Suite {suite.version}; {facts(['torch'], 1)}",
            table(["phenomenon", *scorers], rows),
            f"`{command()}`",
        )
    )
    if given.wrong and given.model:
        first = given.model[0].partition("=")[0]
        wrong = [
            f"{pair.id}\t{pair.good}\t{pair.bad}\n"
            for one in suite.phenomena
            for pair, point in zip(one.pairs, points[first][one.name], strict=True)
            if point < 1
        ]
        given.wrong.write_text("".join(wrong), encoding="utf-8")
    if given.write:
        write_section("grammar", text)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
