"""Compares tokenizers on the same texts: tokens per word, and UTF-8 bytes per token.

Fewer tokens per word ("fertility": Rust et al., 2021, arXiv:2012.15613) mean more text in the same context
and fewer steps to write it. Bytes per token says the same without asking what a word is.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ptbr_slm.privacy import keep_matplotlib_out_of_home
from ptbr_slm.text import number
from ptbr_slm.tokenizer.foreign import TextEncoder
from ptbr_slm.tokenizer.sample import pieces

_BATCH_CHARACTERS = 1 << 18


@dataclass(slots=True)
class Fertility:
    """What a tokenizer made of the texts."""

    name: str
    vocab_size: int
    tokens: int = 0
    unknown: int = 0
    """Tokens that stand for text outside the vocabulary: the text is lost, so the counts flatter."""
    words: int = 0
    """Pieces between white space."""
    bytes: int = 0
    """UTF-8 bytes of the texts."""

    @property
    def tokens_per_word(self) -> float:
        """Lower is better."""
        return self.tokens / max(self.words, 1)

    @property
    def bytes_per_token(self) -> float:
        """Higher is better."""
        return self.bytes / max(self.tokens, 1)


def compare(texts: Iterable[str], encoders: Mapping[str, TextEncoder]) -> list[Fertility]:
    """Count `texts`, read once, with each of `encoders` (name -> tokenizer), in their order.

    Special tokens are not counted. Memory holds a batch of texts.
    """
    counts = [Fertility(name, encoder.vocab_size) for name, encoder in encoders.items()]
    words = size = 0

    def counted() -> Iterator[str]:
        nonlocal words, size
        for text in texts:
            words += len(text.split())
            size += len(text.encode("utf-8", "surrogatepass"))
            yield text

    for batch in _batches(counted()):
        for count, encoder in zip(counts, encoders.values(), strict=True):
            encoded = encoder.encode_batch(batch)
            count.tokens += sum(map(len, encoded))
            if encoder.unknown_id is not None:
                count.unknown += sum(ids.count(encoder.unknown_id) for ids in encoded)
    for count in counts:
        count.words, count.bytes = words, size
    return counts


def plot(counts: Sequence[Fertility]) -> str:
    """Tokens per word and bytes per token as bars, an SVG; the first tokenizer stands out."""
    keep_matplotlib_out_of_home()
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.4 + 0.4 * len(counts)), layout="constrained")
    FigureCanvasSVG(figure)
    names = [count.name.replace("$", r"\$") for count in counts]  # a pair of $ would be a formula
    colours = ["#0b5394" if place == 0 else "#b9c6d3" for place in range(len(counts))]
    axes = figure.subplots(1, 2, sharey=True)
    for panel, label, values in (
        (axes[0], "tokens por palavra (menos é melhor)", [count.tokens_per_word for count in counts]),
        (axes[1], "bytes por token (mais é melhor)", [count.bytes_per_token for count in counts]),
    ):
        bars = panel.barh(range(len(counts)), values, color=colours)
        panel.bar_label(bars, [number(value, 2) for value in values], padding=3)
        panel.set_yticks(range(len(counts)), names)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}".replace(".", ","))
        panel.set_xlabel(label)
        panel.margins(x=0.15)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "ptbr-slm"}):  # else the ids inside differ from run to run
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts, long ones in pieces, so that no encoder meets a text without end."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        for piece in pieces(text):
            batch.append(piece)
            characters += len(piece)
            if characters >= _BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch
