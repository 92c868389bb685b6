"""`Benchmark`: the items of a task, or the pairs of the grammar suite, in the order in which they are asked.

The order is a fixed shuffle: files are often sorted by year, subject or difficulty, and whatever was asked
when the time is over, or `--limit` reached, is then a fair sample of the whole.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ptbr_slm.data.sources.hub_inputs import DownloadOptions
from ptbr_slm.errors import SlmError
from ptbr_slm.eval.grammar import suite
from ptbr_slm.eval.results import Part
from ptbr_slm.eval.tasks.catalogue import published_tasks, select_tasks
from ptbr_slm.eval.tasks.documents import is_here, load_task_data
from ptbr_slm.eval.tasks.items import Item, task_items
from ptbr_slm.eval.tasks.task import DatasetSpec, Metric, OutputType, Task, TaskFacts

GRAMMAR = {
    "gramatica": ("Gramática", ("neutro", "formal")),
    "gramatica_norma": ("Norma-padrão", ("norma-padrão",)),
}
"""Names of the grammar suite's halves -> title and registers. Forms on which the prescribed norm and
Brazilian usage differ are kept apart."""

_BATCH_ITEMS = 256
_BATCH_CHARACTERS = 16_384
"""Of a batch of items, some 4,000 tokens: a second of a small model on a CPU. An interruption loses at most
the batch under way."""
_SAME_SIZE = 0.01
"""Sources differ by an item or two about the size of a set: CALAME-PT has 2,075 or 2,076."""
_TEXTS_AT_ONCE = 16
"""Prompts that are continued as one batch."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A task with its items."""

    task: Task
    sha256: str
    """Of the task file."""
    data_sha256: str
    """Of the rows."""
    source: str
    """Where the rows were read, for people."""
    size: int
    """Items in all."""
    make: Callable[[Sequence[int]], Iterator[Item]]
    """Item numbers -> the items."""
    parts: tuple[Part, ...] = ()

    @property
    def title(self) -> str:
        """For tables."""
        return self.task.facts.title or self.task.name

    def order(self, limit: int | None = None) -> list[int]:
        """Numbers of the items in the order of asking, the first `limit` of them."""
        name = self.task.name

        def place(number: int) -> bytes:
            return hashlib.sha256(f"{name}:{number}".encode()).digest()

        return sorted(range(self.size), key=place)[:limit]

    def batches(self, numbers: Sequence[int]) -> Iterator[tuple[list[int], list[Item]]]:
        """Items in batches of about the same work, with their numbers. The same numbers make the same
        batches.

        Raises E_TASK for a broken row.
        """
        generates = self.task.output_type is OutputType.GENERATE_UNTIL
        most = _TEXTS_AT_ONCE if generates else _BATCH_ITEMS
        held: list[int] = []
        batch: list[Item] = []
        characters = 0
        for number, item in zip(numbers, self.make(numbers), strict=True):
            shared = _common(item.prompt, batch[0].prompt) if batch else 0
            size = len(item.prompt) - shared + sum(map(len, item.choices))
            if batch and (len(batch) == most or characters + size > _BATCH_CHARACTERS):
                yield held, batch
                held, batch, characters, size = [], [], 0, size + shared
            held.append(number)
            batch.append(item)
            characters += size
        if batch:
            yield held, batch


def _common(one: str, other: str) -> int:
    """Characters with which both begin."""
    lengths = range(1, min(len(one), len(other)) + 1)
    return bisect_right(lengths, False, key=lambda length: one[:length] != other[:length])


def task_benchmark(
    task: Task, folders: Sequence[Path] = (), download: DownloadOptions | None = None
) -> Benchmark:
    """A task over its data. folders, download: as `load_task_data`, which says what is raised.

    Published scores are left out where the data is not of the published size: they are of other items.
    """
    data = load_task_data(task, folders, download=download)
    facts = task.facts
    if facts.items and abs(len(data.rows) - facts.items) > facts.items * _SAME_SIZE:
        task = replace(task, facts=replace(facts, published={}))
    return Benchmark(
        task=task,
        sha256=task.sha256,
        data_sha256=data.sha256,
        source=data.source,
        size=len(data.rows),
        make=lambda numbers: task_items(task, data.rows, data.fewshot_rows, numbers),
    )


def grammar_benchmark(name: str = "gramatica") -> Benchmark:
    """A half of the package's grammar suite (`GRAMMAR`): which sentence of a pair is likelier, as a whole.

    Ids are `PHENOMENON-NUMBER`. Which of the two comes first is drawn by the id, so that no rule for equal
    scores is of use.
    """
    found = suite.load()
    title, registers = GRAMMAR[name]
    phenomena = found.in_registers(registers)
    pairs = [pair for phenomenon in phenomena for pair in phenomenon.pairs]
    sums = "".join(phenomenon.sha256 for phenomenon in phenomena)
    task = Task(
        name=name,
        file=Path("ptbr_slm/eval/grammar"),
        dataset=DatasetSpec("json"),
        split="test",
        output_type=OutputType.MULTIPLE_CHOICE,
        doc_to_text="",
        doc_to_target=0,
        doc_to_choice=None,
        metrics=(Metric("acc"),),
        facts=TaskFacts(
            version=found.version,
            licence=found.licence,
            source="ptbr-slm",
            title=title,
            protocol="pares mínimos: a frase certa tem a maior log-verossimilhança somada",
            chance=0.5,
        ),
        target_delimiter="",
    )
    return Benchmark(
        task=task,
        sha256=hashlib.sha256(found.version.encode()).hexdigest(),
        data_sha256=hashlib.sha256(sums.encode()).hexdigest(),
        source=f"suíte de gramática {found.version}",
        size=len(pairs),
        make=lambda numbers: (_pair_item(pairs[number]) for number in numbers),
        parts=tuple(Part(one.name, one.title, len(one.pairs)) for one in phenomena),
    )


def _pair_item(pair: suite.Pair) -> Item:
    digest = hashlib.sha256(f"{pair.id}\x1f{pair.good}\x1f{pair.bad}".encode())
    right = digest.digest()[-1] % 2
    sentences = (pair.good, pair.bad) if right == 0 else (pair.bad, pair.good)
    return Item(
        id=pair.id,
        sha256=digest.hexdigest()[:16],
        prompt="",
        choices=sentences,
        labels=sentences,
        answers=(right,),
    )


def select_benchmarks(
    names: Sequence[str],
    folders: Sequence[Path] = (),
    *,
    accept_licence: bool = False,
    download: DownloadOptions | None = None,
) -> list[Benchmark]:
    """What these names (of tasks, tags, files, or of `GRAMMAR`) stand for, in their order, each once.

    Without names: the grammar suite and the tasks whose data is in `folders`, the current folder or the hub's
    cache. accept_licence: as `select_tasks`. download: how to bring data of the hub; None for none. Of a tag,
    tasks whose data cannot be had are left out, and its `note` is told; nothing is downloaded after that.
    Raises E_TASK for a name that is none, and as `select_tasks` and `task_benchmark`.
    """
    if not names:
        halves = [grammar_benchmark(name) for name in GRAMMAR]
        at_hand = [
            task
            for task in published_tasks()
            if is_here(task, folders) and (accept_licence or not task.facts.non_commercial)
        ]
        return [*(half for half in halves if half.size), *(task_benchmark(task, folders) for task in at_hand)]
    chosen: dict[str, Benchmark] = {}
    extra = [folder for folder in folders if folder.is_dir()]
    note = DownloadOptions().note if download is None else download.note
    missing: SlmError | None = None
    for name in names:
        if name in GRAMMAR:
            chosen.setdefault(name, grammar_benchmark(name))
            continue
        absent: list[str] = []
        found = select_tasks([name], extra, accept_licence=accept_licence, note=note)
        for task in found:
            try:
                chosen.setdefault(task.name, task_benchmark(task, folders, None if missing else download))
            except SlmError as error:
                if error.code != "E_TASK_DATA" or len(found) == 1:
                    raise
                missing = error
                absent.append(task.name)
        if absent:
            note(f"{name}: sem {', '.join(absent)}, cujos dados não estão aqui.")
    if missing is not None and not chosen:
        raise missing
    return list(chosen.values())
