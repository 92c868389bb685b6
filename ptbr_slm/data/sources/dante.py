"""The documents in the wheel of dante-corpora: news (Porttinari) and theses (PetroGold), never the tweets.

The tweets (danteshots, dantestocks) name private people and are under the network's terms: they are not read.
The wheel is opened as a zip and nothing in it is run (PyPI dante-corpora 2.0.5).
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.data.sources.treebank import Word, detokenize, surface_forms

WHEEL = "dante-corpora==2.0.5"
WHEEL_SHA256 = "e050761fd00d09a99beabf81658419b284267341c96afd6dd1225468a9d73bb0"
CORPUS_LICENCES: dict[str, str] = {"porttinari": "CC BY 4.0", "petrogold": "CC BY-SA 4.0"}
"""Corpus inside the wheel -> licence of its texts."""

_SENTENCE_ID = re.compile(r"^(?P<document>.+?)(?:_SENT|-)(?P<number>\d+)$")
_ENDS_SENTENCE = re.compile(r"[.!?:;…][\"'”’)\]]*$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A CoNLL-U sentence: its document and number there, its text as stored, its token lines."""

    document: str
    number: int
    text: str
    rows: list[str]


def write_texts(wheel: Path, path: Path) -> None:
    """Write news and theses of the wheel as JSON lines with `text`, `source` and `license`."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for corpus, licence in CORPUS_LICENCES.items():
            for document, text in documents(wheel, corpus):
                line = {"text": text, "source": f"{corpus}:{document}", "license": licence}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def documents(wheel: Path, corpus: str) -> Iterator[tuple[str, str]]:
    """(document id, text) of one corpus of the wheel, sentences grouped by document and in order."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(f"dante/data/{corpus}/annotated.conllu").decode("utf-8")
    grouped: dict[str, dict[int, str]] = {}
    for sentence in parse_conllu(content):
        text = as_printed(sentence) if corpus == "porttinari" else sentence.text
        grouped.setdefault(sentence.document, {})[sentence.number] = text
    for document, sentences in grouped.items():
        yield document, join_sentences([sentences[number] for number in sorted(sentences)])


def parse_conllu(content: str) -> Iterator[Sentence]:
    """The sentences of a CoNLL-U file."""
    for block in content.split("\n\n"):
        lines = block.strip().splitlines()
        rows = [line for line in lines if not line.startswith("#")]
        comments = dict(line[2:].split(" = ", 1) for line in lines if line.startswith("# ") and " = " in line)
        found = _SENTENCE_ID.match(comments.get("sent_id", ""))
        if found is not None and "text" in comments:
            yield Sentence(found["document"], int(found["number"]), comments["text"].strip(), rows)


def as_printed(sentence: Sentence) -> str:
    """The sentence as it was printed: contractions, enclitic hyphens, spaces around punctuation."""
    words, contracted = conllu_words(sentence.rows)
    return detokenize(surface_forms(words, contracted=contracted))


def join_sentences(sentences: list[str]) -> str:
    """Sentences as a running text: a space between two, a line of its own for a heading."""
    text = ""
    for sentence in sentences:
        if text:
            text += " " if _ENDS_SENTENCE.search(text[-6:]) and _ENDS_SENTENCE.search(sentence[-6:]) else "\n"
        text += sentence
    return text


def conllu_words(rows: list[str]) -> tuple[list[Word], bool]:
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


LICENCE = """\
# De onde vêm estes textos

`dante.jsonl` foi feito por `ptbr-slm data fetch dante` a partir do pacote
[dante-corpora 2.0.5](https://pypi.org/project/dante-corpora/2.0.5/) (licença MIT, do projeto DANTE/POeTiSA).
Cada linha tem `text`, `source` (corpus e documento) e `license`.

| corpus | o que é | licença |
|---|---|---|
| Porttinari | frases de notícias da Folha de S.Paulo, do projeto POeTiSA (NILC/USP) | CC BY 4.0 |
| PetroGold | teses e monografias sobre petróleo e gás, da PUC-Rio | CC BY-SA 4.0 |

- CC BY 4.0: <https://creativecommons.org/licenses/by/4.0/deed.pt-br>
- CC BY-SA 4.0: <https://creativecommons.org/licenses/by-sa/4.0/deed.pt-br>; quem redistribui o texto do
  PetroGold, adaptado ou não, o faz sob a mesma licença.

O que mudamos: as frases foram juntadas por documento; no Porttinari, as contrações (`em a` -> `na`), os
hífens dos pronomes (`trata se` -> `trata-se`) e os espaços em volta da pontuação foram refeitos. Os tuítes
do pacote (DANTEStocks e DANTEShots) ficaram de fora, por privacidade.

Ao usar, cite os dois corpora e o pacote.
"""
