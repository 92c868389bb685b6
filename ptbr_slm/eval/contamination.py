"""Whether a held-out text was trained on: its documents are looked for in the prepared data of the run.

A document was seen where half of its words or more are in runs that it shares with one training document, as
`ptbr_slm.data.decontamination` finds them (13 words, one of which may differ; short ones as a whole). The
text of the treebanks Porttinari and PetroGold, say, is in the corpus of `quickstart` too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.data.decontamination.evaluation_sets import EvaluationItem
from ptbr_slm.data.decontamination.overlaps import SHORTEST_ITEM, EvaluationIndex
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.word_hashes import normalized_words
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.bits_sources import HeldOutText
from ptbr_slm.text import human_bytes, number
from ptbr_slm.tokenizer import Tokenizer

SEARCHED = 16 << 20
"""Bytes of training text searched at most, in documents spread evenly."""
_SHARE = 0.5
"""Of a document's words, from which on it counts as seen."""


@dataclass(frozen=True, slots=True)
class SeenInTraining:
    """What of a text is in the training data."""

    documents: tuple[int, ...]
    """Places of the documents that were seen."""
    checked: int
    """Documents long enough to be recognised."""
    searched: int
    """Bytes of training text."""
    of: int
    """Bytes that the training text has."""

    def note(self, text: HeldOutText) -> str:
        """A Portuguese sentence; empty where nothing was found in all of the data."""
        part = (
            ""
            if self.searched >= self.of
            else f" (procurado em {human_bytes(self.searched)} de {human_bytes(self.of)})"
        )
        if self.documents:
            share = 100 * len(self.documents) / max(1, self.checked)
            return (
                f"CONTAMINADO: {number(len(self.documents))} de {number(self.checked)} {text.kind} "
                f"({number(share)} %) estavam no treino{part}"
            )
        return f"nenhum dos {text.kind} foi achado no treino{part}" if part else ""


def seen_in_training(
    data: Path,
    text: HeldOutText,
    *,
    most: int = SEARCHED,
    advance: Callable[[float], None] = lambda share: None,
) -> SeenInTraining:
    """Look for the documents of a text in the train split of prepared data.

    Raises what `PreparedData.open` raises.
    """
    items = [EvaluationItem(str(place), document) for place, document in enumerate(text.documents)]
    index = EvaluationIndex(items)
    words = {int(item.source): len(normalized_words(item.text).split()) for item in index.items}
    split = PreparedData.open(data, verify=False).split("train")
    tokenizer = Tokenizer.load(data)
    edges = split.document_offsets()
    step = max(1, -(-split.bytes // most))
    seen: set[int] = set()
    searched = 0
    for place in range(0, split.documents, step):
        trained = tokenizer.decode(split.read(int(edges[place]), int(edges[place + 1])).tolist())
        searched += len(trained.encode())
        shared: Counter[int] = Counter()
        for overlap in index.search(trained):
            shared[int(overlap.item)] += overlap.words
        seen |= {item for item, count in shared.items() if count >= _SHARE * words[item]}
        advance((place + step) / split.documents)
        if searched >= most:
            break
    checked = sum(count >= SHORTEST_ITEM for count in words.values())
    return SeenInTraining(tuple(sorted(seen)), checked, searched, split.bytes)


def contamination_note(data: Path | None, text: HeldOutText) -> str:
    """What a reader must know of a text that training may have seen; empty where there is nothing to say.

    data: the prepared data that the model was trained on, None where they are not known.
    """
    if data is not None and text.held_out_of is not None and data.resolve() == text.held_out_of.resolve():
        return ""  # near copies never fall on both sides of the split
    if data is None:
        return "não se sabe em que textos o modelo foi treinado: pode ter visto este"
    try:
        return seen_in_training(data, text).note(text)
    except SlmError:
        return "os dados do treino não estão aqui: não foi conferido se este texto estava neles"
