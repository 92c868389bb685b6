"""Which of two models is better, by paired tests on the items that both were asked.

Two intervals that overlap say "equal" far too often, since both models find the same items hard. So items are
paired, by id and by the sha256 of what was asked: right and wrong by McNemar's test, other values and the
bits of documents by exchange. The p-values are adjusted for the number of tests in one comparison by Holm's
method: the tasks and texts are one family, and the parts of each task, which only say where a difference
lies, are another.

A score of another version of a task, by another definition, or on another text is no pair, and is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.grammar import suite
from ptbr_slm.eval.results import BitsRecord, DocumentBits, ModelFacts, Part, Results, TaskRecord
from ptbr_slm.eval.statistics import PairedDifference, holm, mcnemar, paired_bootstrap, unit_sums
from ptbr_slm.eval.tasks.metrics import ItemResult

LEVEL = 0.05
"""Of the adjusted p-value, from which on a difference may be chance."""
_EXAMPLES = 3
"""Items shown for each side."""
BITS = "bits_per_byte"
"""The metric of held-out texts."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """How the items of two results fit together."""

    pairs: int
    only_a: int
    """Items that B was not asked."""
    only_b: int
    changed: int
    """Items with the same id and another content; they are in `only_a` and `only_b` too."""

    @property
    def is_whole(self) -> bool:
        """Whether every item has its pair."""
        return not self.only_a and not self.only_b


@dataclass(frozen=True, slots=True)
class Example:
    """An item on which the two models differ much."""

    id: str
    text: str
    """What is known of the item; empty where the results do not hold it."""
    a: str
    """What A made of it."""
    b: str


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was measured of both."""

    name: str
    title: str
    metric: str
    """`acc`, `f1`, ..., or `bits_per_byte`."""
    a: float
    """A's score on the pairs alone."""
    b: float
    paired: PairedDifference
    """In the unit of the score; of perplexities, in nats an item."""
    p_adjusted: float
    """By Holm, over the family that the line is in."""
    pairing: Pairing
    parts: tuple[Line, ...] = ()
    a_better: tuple[Example, ...] = ()
    """Items on which A is better by most."""
    b_better: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def better(self) -> str | None:
        """`A`, `B`, or None where the difference may be chance."""
        if self.p_adjusted >= LEVEL:
            return None
        gain = -self.paired.difference if self.metric == BITS else self.paired.difference
        return "B" if gain > 0 else "A"


@dataclass(frozen=True, slots=True)
class NotCompared:
    """Something that one of the two measured, or both and not alike."""

    name: str
    reason: str
    """A Portuguese clause."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models side by side."""

    a: ModelFacts
    b: ModelFacts
    lines: tuple[Line, ...]
    not_compared: tuple[NotCompared, ...]


def compare(a: Results, b: Results) -> Comparison:
    """Compare two models. Raises E_COMPARE where they have nothing in common that can be paired."""
    found = [
        *(_text_line(name, a.source(name), b.source(name)) for name in _names(a.bits, b.bits)),
        *(_task_line(name, a.task(name), b.task(name)) for name in _names(a.tasks, b.tasks)),
    ]
    lines = [one for one in found if isinstance(one, Line)]
    apart = [one for one in found if isinstance(one, NotCompared)]
    if not lines:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in apart)
        raise SlmError(
            "E_COMPARE",
            f"os dois resultados não têm nada que se possa comparar{f' ({reasons})' if reasons else ''}.",
            where=f"{a.model.name} e {b.model.name}",
            hint="Avalie os dois com as mesmas opções:  ptbr-slm eval MODELO -o PASTA",
        )
    return Comparison(a.model, b.model, _adjusted(lines), tuple(apart))


def _adjusted(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The lines as one family; the parts of each as another."""
    p_values = holm([line.paired.p_value for line in lines])
    return tuple(
        replace(line, p_adjusted=p_value, parts=_adjusted(line.parts))
        for line, p_value in zip(lines, p_values, strict=True)
    )


class _Named(Protocol):
    @property
    def name(self) -> str: ...


def _names(a: Iterable[_Named], b: Iterable[_Named]) -> list[str]:
    """All names, A's first."""
    return list(dict.fromkeys(one.name for one in (*a, *b)))


def _task_line(name: str, a: TaskRecord | None, b: TaskRecord | None) -> Line | NotCompared:
    if a is None or b is None:
        return NotCompared(name, f"só foi medida em {'B' if a is None else 'A'}")
    if a.version != b.version:
        return NotCompared(name, f"versão {a.version} da tarefa em A e {b.version} em B")
    if a.task_sha256 != b.task_sha256:
        what = "outro protocolo" if a.protocol != b.protocol else "outra definição da tarefa"
        return NotCompared(name, f"{what} em A e em B, com a mesma versão {a.version}")
    metric = _headline(a)
    if metric != _headline(b):
        return NotCompared(name, "outra medida em A e em B")
    pairs, pairing = _pair(a.items, b.items)
    if not pairs:
        what = "os dados são outros" if a.data_sha256 != b.data_sha256 else "os itens são outros"
        return NotCompared(name, f"nenhum item em comum: {what}")
    numbers = [pair for pair in pairs if all(math.isfinite(item.values[metric]) for item in pair)]
    if not numbers:
        return NotCompared(name, "os valores não são números (NaN)")
    line = _items_line(name, a.title, metric, numbers, pairing)
    parts = []
    for part in a.parts:
        chosen = [pair for pair in numbers if part.holds(pair[0].id)]
        if chosen:
            parts.append(_part_line(part, metric, chosen))
    notes = _pairing_notes(pairing, "itens")
    if a.data_sha256 != b.data_sha256:
        notes = ("o arquivo de dados mudou entre A e B; contam os itens iguais", *notes)
    if len(numbers) < len(pairs):
        notes = (*notes, f"{len(pairs) - len(numbers)} itens sem um número em A ou B ficaram de fora")
    return replace(line, parts=tuple(parts), notes=notes)


def _part_line(part: Part, metric: str, pairs: Sequence[tuple[ItemResult, ItemResult]]) -> Line:
    line = _items_line(part.name, part.title, metric, pairs, Pairing(len(pairs), 0, 0, 0))
    return replace(line, a_better=(), b_better=())


def _headline(record: TaskRecord) -> str:
    """The metric that is compared: the first; macro F1 is no mean over items, its right and wrong are."""
    names = [score.metric for score in record.scores] or list(record.items[0].values) if record.items else []
    return names[0] if names else ""


def _items_line(
    name: str, title: str, metric: str, pairs: Sequence[tuple[ItemResult, ItemResult]], pairing: Pairing
) -> Line:
    first = np.array([one.values[metric] for one, _ in pairs])
    second = np.array([two.values[metric] for _, two in pairs])
    values = {*np.unique(first).tolist(), *np.unique(second).tolist()}
    binary = values <= {0.0, 1.0}
    paired = mcnemar(first == 1, second == 1) if binary else paired_bootstrap(first, second)
    a_better, b_better = _item_examples(metric, pairs)
    return Line(
        name=name,
        title=title,
        metric="acc" if metric == "f1_macro" else metric,
        a=float(first.mean()),
        b=float(second.mean()),
        paired=paired,
        p_adjusted=paired.p_value,
        pairing=pairing,
        a_better=a_better,
        b_better=b_better,
    )


def _text_line(name: str, a: BitsRecord | None, b: BitsRecord | None) -> Line | NotCompared:
    if a is None or b is None:
        return NotCompared(name, f"só foi medido em {'B' if a is None else 'A'}")
    pairs, pairing = _pair(a.documents, b.documents)
    if a.text_sha256 != b.text_sha256:
        return NotCompared(name, f"o texto não é o mesmo: {pairing.pairs} documentos em comum")
    if any(one.bytes != two.bytes for one, two in pairs):
        return NotCompared(name, "A e B contaram outros bytes do mesmo texto (um deles em um servidor)")
    sums = unit_sums(a.units, [(one.bits, two.bits, one.bytes) for one, two in pairs])
    first, second, sizes = sums.T
    paired = paired_bootstrap(first, second, sizes)
    notes = _pairing_notes(pairing, "documentos")
    if a.seq_len != b.seq_len:
        notes = (*notes, f"janelas de {a.seq_len} tokens em A e de {b.seq_len} em B")
    if len(sizes) < 6:
        notes = (*notes, f"com {len(sizes)} documentos nenhuma diferença pode deixar de parecer acaso")
    gains = np.array([(one.bits - two.bits) / math.sqrt(one.bytes) for one, two in pairs])  # not the shortest
    a_better, b_better = (
        tuple(_document_example(*pairs[place]) for place in chosen) for chosen in _extremes(gains)
    )
    return Line(
        name=name,
        title=name,
        metric=BITS,
        a=float(first.sum() / sizes.sum()),
        b=float(second.sum() / sizes.sum()),
        paired=paired,
        p_adjusted=paired.p_value,
        pairing=pairing,
        a_better=a_better,
        b_better=b_better,
        notes=notes,
    )


class _Unit(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def sha256(self) -> str: ...


_U = TypeVar("_U", bound=_Unit)


def _pair(a: Sequence[_U], b: Sequence[_U]) -> tuple[list[tuple[_U, _U]], Pairing]:
    """Items with the same id and content; the n-th of equal ones with the n-th."""
    first, second = dict(_keyed(a)), dict(_keyed(b))
    pairs = [(one, second[key]) for key, one in first.items() if key in second]
    left_a = {key[0] for key in first.keys() - second.keys()}
    left_b = {key[0] for key in second.keys() - first.keys()}
    pairing = Pairing(len(pairs), len(a) - len(pairs), len(b) - len(pairs), len(left_a & left_b))
    return pairs, pairing


def _keyed(units: Sequence[_U]) -> Iterator[tuple[tuple[str, str, int], _U]]:
    seen: dict[tuple[str, str], int] = {}
    for unit in units:
        count = seen[unit.id, unit.sha256] = seen.get((unit.id, unit.sha256), 0) + 1
        yield (unit.id, unit.sha256, count), unit


def _pairing_notes(pairing: Pairing, units: str) -> tuple[str, ...]:
    notes = []
    if pairing.changed:
        notes.append(f"{pairing.changed} {units} mudaram de conteúdo e ficaram de fora")
    only = [(pairing.only_a - pairing.changed, "A"), (pairing.only_b - pairing.changed, "B")]
    notes += [f"{count} {units} só em {side}" for count, side in only if count]
    return tuple(notes)


def _extremes(gains: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[list[int], list[int]]:
    """Places of the lowest (A is better) and of the highest gains, the largest first."""
    order = np.argsort(gains, kind="stable")
    lowest = [int(place) for place in order[:_EXAMPLES] if gains[place] < 0]
    return lowest, [int(place) for place in order[::-1][:_EXAMPLES] if gains[place] > 0]


def _item_examples(
    metric: str, pairs: Sequence[tuple[ItemResult, ItemResult]]
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Items that one has right and the other wrong, those of the largest change of margin first."""
    gains = []
    for one, two in pairs:
        won = two.values[metric] - one.values[metric]
        change = _margin(two) - _margin(one)
        gains.append(math.copysign(1.0 + abs(change), won) if won and math.isfinite(change) else won)
    a_better, b_better = _extremes(np.nan_to_num(np.array(gains)))
    return (
        tuple(_item_example(*pairs[place]) for place in a_better),
        tuple(_item_example(*pairs[place]) for place in b_better),
    )


def _margin(item: ItemResult) -> float:
    """Nats by which the right choice is before the others; 0 where nothing was chosen."""
    if not isinstance(item.expected, int) or len(item.logprobs) < 2 or item.expected >= len(item.logprobs):
        return 0.0
    others = [value for place, value in enumerate(item.logprobs) if place != item.expected]
    return item.logprobs[item.expected] - max(others)


def _item_example(one: ItemResult, two: ItemResult) -> Example:
    text = _grammar_text(one.id)
    if text:
        return Example(one.id, text, *(_decimal(_margin(item), "+.1f") + " nats" for item in (one, two)))
    if isinstance(one.expected, int):
        shown = [f"alternativa {item.answer + 1}" if isinstance(item.answer, int) else item.answer
                 for item in (one, two)]  # fmt: skip
        return Example(one.id, f"certa: alternativa {one.expected + 1}", *shown)
    answers = [
        str(item.answer) or ("certa" if max(item.values.values()) else "errada") for item in (one, two)
    ]
    return Example(one.id, f"certa: «{one.expected}»", *answers)


def _grammar_text(id: str) -> str:
    """The two sentences of a pair of the grammar suite of this package."""
    found = next((one for one in suite.load().phenomena if id.startswith(f"{one.name}-")), None)
    pair = next((pair for pair in found.pairs if pair.id == id), None) if found else None
    return "" if pair is None else f"{pair.good}  *{pair.bad}"


def _document_example(one: DocumentBits, two: DocumentBits) -> Example:
    values = (_decimal(document.bits / document.bytes, ".3f") for document in (one, two))
    return Example(one.id, one.beginning, *values)


def _decimal(value: float, form: str) -> str:
    return format(value, form).replace(".", ",")
