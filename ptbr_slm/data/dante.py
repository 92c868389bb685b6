"""The documents in the wheel of dante-corpora: news (Porttinari) and theses (PetroGold), never the tweets.

The tweets (danteshots, dantestocks) name private people and are under the network's terms: they are not read.
The wheel is opened as a zip and nothing in it is run (PyPI dante-corpora 2.0.5).
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.data.repair import Word, join, restore

SOURCES: dict[str, str] = {"porttinari": "CC BY 4.0", "petrogold": "CC BY-SA 4.0"}
"""Corpus inside the wheel -> licence of its texts."""

_SENTENCE_ID = re.compile(r"^(?P<document>.+?)(?:_SENT|-)(?P<number>\d+)$")
_ENDS_SENTENCE = re.compile(r"[.!?:;…][\"'”’)\]]*$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A CoNLL-U sentence: where it stands, its text as stored, its token lines."""

    document: str
    number: int
    text: str
    rows: list[str]


def documents(wheel: Path, corpus: str) -> Iterator[tuple[str, str]]:
    """(document id, text) of one corpus of the wheel, sentences grouped by document and in order."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(f"dante/data/{corpus}/annotated.conllu").decode("utf-8")
    grouped: dict[str, dict[int, str]] = {}
    for sentence in parse(content):
        text = repaired(sentence) if corpus == "porttinari" else sentence.text
        grouped.setdefault(sentence.document, {})[sentence.number] = text
    for document, sentences in grouped.items():
        yield document, flow([sentences[number] for number in sorted(sentences)])


def parse(content: str) -> Iterator[Sentence]:
    """The sentences of a CoNLL-U file."""
    for block in content.split("\n\n"):
        lines = block.strip().splitlines()
        rows = [line for line in lines if not line.startswith("#")]
        comments = dict(line[2:].split(" = ", 1) for line in lines if line.startswith("# ") and " = " in line)
        found = _SENTENCE_ID.match(comments.get("sent_id", ""))
        if found is not None and "text" in comments:
            yield Sentence(found["document"], int(found["number"]), comments["text"].strip(), rows)


def repaired(sentence: Sentence) -> str:
    """The sentence as it was printed: contractions, enclitic hyphens, spaces around punctuation."""
    words, contracted = surface(sentence.rows)
    return join(restore(words, contracted=contracted))


def flow(sentences: list[str]) -> str:
    """Sentences as a running text: a space between two, a line of its own for a heading."""
    text = ""
    for sentence in sentences:
        if text:
            text += " " if _ENDS_SENTENCE.search(text[-6:]) and _ENDS_SENTENCE.search(sentence[-6:]) else "\n"
        text += sentence
    return text


def surface(rows: list[str]) -> tuple[list[Word], bool]:
    """(tokens as written, whether contractions are marked): a range such as `9-10 na` stands for its words.

    Where contractions are marked the forms are right already.
    """
    words: list[Word] = []
    inside, contracted = 0, False
    for row in rows:
        number, form, _, upos, _, feats, *_ = row.split("\t")
        first, _, last = number.partition("-")
        if last:
            words.append(Word(form))
            inside, contracted = int(last), True
        elif first.isdigit() and int(first) > inside:
            words.append(Word(form, upos, feats))
    return words, contracted
