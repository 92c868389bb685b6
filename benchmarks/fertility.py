"""Tokens a word and bytes a token: our vocabulary beside those of others, on text that ours never saw.

    ptbr-slm data fetch dante -o dante
    python benchmarks/fertility.py --dante dante --with NAME=FILE ... [--svg FILE] [--write]

Ours is trained as `tokenizer train` does it, on three sets: what `data fetch` brings from PyPI and the disk
(dante and Machado's works), the same with all of `../shared/corpus`, and the corpus without any news. One
news document of ten of dante (UD Porttinari, Folha de S.Paulo), two of Machado's works and all evaluation
texts stay out of all three. FILE is what `tokenizer compare --with` takes; a tiktoken vocabulary of the
npm package js-tiktoken (`dist/ranks/*.js`) is read here.

The second table says why a set costs more: words of lower-case letters, words with a capital, and those with
a figure or another sign, and what each kind costs.
"""

from __future__ import annotations

import argparse
import base64
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from machine import facts
from results import command, progress, table, write_section
from rule_loss import documents_of

from ptbr_slm.data.pipeline import read_documents
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tokenizer.compare import Fertility, compare, plot
from ptbr_slm.tokenizer.foreign import RanksEncoder, TextEncoder, open_tokenizer

SHARED = Path("../shared")
VOCAB_SIZE = 32_000
HELD_OUT_WORKS = ("domCasmurro", "historiasMeiaNoite")
KINDS = ("lower case", "capital", "other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dante", type=Path, required=True, help="the folder of `data fetch dante`")
    parser.add_argument("--corpus", type=Path, default=SHARED / "corpus")
    parser.add_argument("--evaluation", type=Path, default=SHARED / "evaluation")
    parser.add_argument("--with", dest="others", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--svg", type=Path, help="a plot of the first set of texts")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/benchmarks.md")
    arguments = parser.parse_args()
    others = dict(other.split("=", 1) for other in arguments.others)
    news, dante = split_dante(arguments.dante / "dante.jsonl")
    works, held_works = split_machado(arguments.corpus / "machado")
    rest = corpus_without_machado(arguments.corpus)
    encoders: dict[str, TextEncoder] = {}
    for name, texts in (
        ("ours, dante and Machado", [*dante, *works]),
        ("ours, with all of the corpus", [*dante, *works, *rest]),
        ("ours, the corpus without news", [*works, *rest]),
    ):
        progress(f"{name}: {sum(map(len, texts)) / 1e6:.0f} million characters")
        encoders[name] = Tokenizer.train(texts, VOCAB_SIZE)
    for name, file in others.items():
        encoders[name] = open_vocabulary(Path(file))
    sets = {"news": news, **evaluation_texts(arguments.evaluation), "Machado": held_works}
    counts = {name: compare(texts, encoders) for name, texts in sets.items()}
    lines = [f"`{command()}`", "", facts(["tokenizers", "sentencepiece"], 1), ""]
    lines += [fertility_table(counts), "", "What the words of each set are, and what each kind costs "]
    lines[-1] += f"({list(encoders)[1]}; tokens a word):"
    lines += ["", kinds_table(sets, list(encoders.values())[1])]
    text = "\n".join(lines)
    print(text)
    if arguments.svg:
        arguments.svg.write_text(plot(counts["news"]), encoding="utf-8")
    if arguments.write:
        write_section("fertility", text)


def split_dante(file: Path) -> tuple[list[str], list[str]]:
    """(news held out, everything else): one news document of ten, by a hash of its name."""
    held, rest = [], []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        is_news = row["source"].startswith("porttinari")
        (held if is_news and zlib.crc32(row["source"].encode()) % 10 == 0 else rest).append(row["text"])
    return held, rest


def split_machado(folder: Path) -> tuple[list[str], list[str]]:
    """(works to train on, works held out), as `data prepare` reads them."""
    files = sorted(folder.rglob("*.txt"))
    held = [path for path in files if any(name in path.stem for name in HELD_OUT_WORKS)]
    if len(held) != len(HELD_OUT_WORKS):
        raise SystemExit(f"{folder} has not the works {', '.join(HELD_OUT_WORKS)}")
    train = [path for path in files if path not in held]
    return [one.text for one in read_documents(train)], [one.text for one in read_documents(held)]


def corpus_without_machado(corpus: Path) -> list[str]:
    """Every other text of the corpus."""
    paths = [corpus / "eltec-por", *sorted(corpus.glob("modern/*.txt")), *sorted(corpus.glob("*.txt"))]
    return [document.text for path in paths for document in documents_of(path)]


def evaluation_texts(folder: Path) -> dict[str, list[str]]:
    """UD sentences, and Bosque's documents by variety."""
    sentences = {
        name: (folder / "heldout-text" / file).read_text(encoding="utf-8").splitlines()
        for name, file in (("GSD", "gsd-dev.txt"), ("Bosque sentences", "bosque-dev.txt"))
    }
    rows = [
        json.loads(line)
        for line in (folder / "variety_bosque_a.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    by_variety = {
        f"Bosque {variety}": [row["text"] for row in rows if row["variety"] == variety]
        for variety in ("pt-BR", "pt-PT")
    }
    return {**sentences, **by_variety}


def open_vocabulary(file: Path) -> TextEncoder:
    """A tokenizer file, or the ranks of js-tiktoken."""
    if file.suffix in (".js", ".cjs"):
        pattern, ranks = parse_js_ranks(file.read_text(encoding="utf-8"))
        return RanksEncoder(ranks, pattern, len(ranks))
    return open_tokenizer(file)


def parse_js_ranks(text: str) -> tuple[str, dict[bytes, int]]:
    """(regular expression, token -> rank) of a ranks file of js-tiktoken 1.0.

    `bpe_ranks` has lines `! FIRST TOKEN TOKEN ...`: base64 tokens with ranks from FIRST on (js-tiktoken,
    src/core.ts).
    """
    start = text.find("{")
    if start < 0 or '"bpe_ranks"' not in text:
        raise SystemExit("not a ranks file of js-tiktoken")
    body, _ = json.JSONDecoder().raw_decode(text, start)
    ranks: dict[bytes, int] = {}
    for line in filter(None, body["bpe_ranks"].split("\n")):
        _, first, *tokens = line.split(" ")
        for rank, token in enumerate(tokens, start=int(first)):
            ranks[base64.b64decode(token)] = rank
    return body["pat_str"], ranks


def fertility_table(counts: Mapping[str, Sequence[Fertility]]) -> str:
    """Table: tokenizer by set, tokens a word / bytes a token. `counts` is set -> one for each tokenizer."""
    first = next(iter(counts.values()))
    rows = []
    for at, one in enumerate(first):
        cells = [
            f"{found[at].tokens_per_word:.3f} / {found[at].bytes_per_token:.2f}" for found in counts.values()
        ]
        rows.append([one.name, f"{one.vocab_size:,}", *cells])
    header = [f"{name} ({found[0].words:,} words)" for name, found in counts.items()]
    return table(["tokenizer", "vocabulary", *header], rows)


def kind_of(word: str) -> str:
    """One of `KINDS`; a mark before or after the word, as in `(casa),`, does not count."""
    bare = word.strip("\"'“”‘’«»()[].,;:!?…")
    if not bare.replace("-", "").isalpha():
        return "other"
    return "lower case" if bare.islower() else "capital"


def words_of(texts: Sequence[str]) -> Iterator[str]:
    """Each word with the space before it, as the tokenizer meets it."""
    for text in texts:
        for word in text.split():
            yield f" {word}"


def kinds_table(sets: Mapping[str, Sequence[str]], encoder: TextEncoder) -> str:
    """Table: for each set the share of each kind of word, and its tokens a word."""
    rows = []
    for name, texts in sets.items():
        counts = Counter(words_of(texts))
        costs = dict(zip(counts, map(len, encoder.encode_batch(list(counts))), strict=True))
        cells = []
        for kind in KINDS:
            inside = [word for word in counts if kind_of(word.strip()) == kind]
            number = sum(counts[word] for word in inside)
            cost = sum(counts[word] * costs[word] for word in inside)
            cells.append(f"{100 * number / counts.total():.1f} % x {cost / max(number, 1):.2f}")
        marks = sum(count for word, count in counts.items() if not word[-1].isalnum())
        total = sum(counts[word] * costs[word] for word in counts) / counts.total()
        rows.append([name, f"{total:.3f}", *cells, f"{100 * marks / counts.total():.1f} %"])
    return table(["set", "tokens a word", *KINDS, "words that end in a mark"], rows)


if __name__ == "__main__":
    main()
