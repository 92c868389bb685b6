"""The results of an evaluation on disk, item by item, so that two models can be compared later.

    FOLDER/
      resultados.json        what was measured, of which model, with which version of what
      items/TASK.jsonl       a line an item: id, sha256, values by metric, answer, expected
      items/bits-NAME.jsonl  a line a document: id, sha256, bits, bytes, tokens
      manifest.json          by which the folder is known as ours and may be replaced

The folder is written at once or not at all. resultados.json names the sha256 and the number of lines of each
file of items, and `read_results` checks both; the manifest is not needed to read it. Figures that are not
finite are written as null.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.eval.statistics import Interval
from ptbr_slm.eval.tasks.metrics import ItemResult, TaskScore
from ptbr_slm.storage.atomic import atomic_folder, may_replace
from ptbr_slm.storage.manifest import write_manifest
from ptbr_slm.text import quoted
from ptbr_slm.version import __version__

SCHEMA = 1
KIND = "evaluation"
NAME = "resultados.json"
_ITEMS = "items"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which model was measured."""

    name: str
    identity: str
    """`Subject.identity`."""
    parameters: int | None
    context: int
    """Tokens that it holds."""


@dataclass(frozen=True, slots=True)
class Part:
    """Items of a task that are also reported by themselves: those whose ids are `NAME-...`."""

    name: str
    title: str
    size: int
    """Items of the task that belong to it."""

    def holds(self, id: str) -> bool:
        """Whether an item belongs to it."""
        return id.startswith(f"{self.name}-")


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What was measured by one task."""

    name: str
    title: str
    version: str
    """Of the task's definition (`metadata.version`)."""
    protocol: str
    """How it is asked and judged, one Portuguese sentence."""
    task_sha256: str
    """Of the task's file."""
    data_sha256: str
    """Of the rows."""
    of: int
    """Items that the task has; more than `items` where a limit or the time ended it."""
    scores: tuple[TaskScore, ...]
    items: tuple[ItemResult, ...]
    parts: tuple[Part, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What a reader of the score should know, as JSON: chance, licence, source, published scores, ..."""


@dataclass(frozen=True, slots=True)
class DocumentBits:
    """What one document of a text cost, or a piece of one."""

    id: str
    """`DOCUMENT` or `DOCUMENT.PIECE`."""
    sha256: str
    """Of the text that was scored."""
    bits: float
    bytes: int
    """UTF-8, of what was scored."""
    tokens: int
    """Targets that count."""
    beginning: str = ""
    """The first characters, for people."""


@dataclass(frozen=True, slots=True)
class BitsRecord:
    """Bits per byte of one held-out text."""

    name: str
    source: str
    """Where the text was read, for people."""
    text_sha256: str
    """Of the documents as they were scored, in their order: where it agrees, the text is the same."""
    seq_len: int
    overlap: int
    """Tokens that a window shares with the one before it."""
    targets: int
    bytes: int
    value: float
    """Bits per UTF-8 byte."""
    interval: Interval | None
    """95 %, over documents; None where there is one unit only."""
    median_tokens: int
    """Of a document: short ones measure short context only."""
    documents: tuple[DocumentBits, ...]
    notes: tuple[str, ...] = ()
    """What a reader should know, Portuguese sentences."""

    @property
    def units(self) -> list[int]:
        """The unit of the interval that each of `documents` belongs to, from 0: pieces of one document are no
        units of their own, unless there is one document only.
        """
        names = [document.id.split(".")[0] for document in self.documents]
        if len({*names}) < 2:
            return list(range(len(names)))
        order = {name: place for place, name in enumerate(dict.fromkeys(names))}
        return [order[name] for name in names]


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was asked for and not measured, and why."""

    name: str
    code: str
    """Of the `SlmError`."""
    message: str


@dataclass(frozen=True, slots=True)
class Results:
    """All that was measured of a model."""

    model: ModelFacts
    bits: tuple[BitsRecord, ...]
    tasks: tuple[TaskRecord, ...]
    refused: tuple[Refusal, ...] = ()
    seconds: float = 0.0

    def task(self, name: str) -> TaskRecord | None:
        """The task of this name."""
        return next((task for task in self.tasks if task.name == name), None)

    def source(self, name: str) -> BitsRecord | None:
        """The held-out text of this name."""
        return next((one for one in self.bits if one.name == name), None)


def save_results(folder: Path, results: Results, more: Callable[[Path], None] = lambda folder: None) -> None:
    """Write a folder of results, in place of an older one.

    more: writes further files, such as a page, into the folder that it is given, before that takes its name.
    Raises E_EXISTS where something else is, E_DISK_FULL, E_PERMISSION or E_IO.
    """
    if not may_replace(folder, KIND):
        raise SlmError(
            "E_EXISTS",
            "já existe algo que não são resultados do ptbr-slm eval.",
            where=folder,
            hint=f"Escolha outra pasta:  -o {quoted(f'{folder}-2')}",
        )
    with os_errors(folder), atomic_folder(folder) as new:
        write_results(new, results)
        more(new)
        write_manifest(new, KIND)


def write_results(folder: Path, results: Results) -> None:
    """Write resultados.json and the items into a folder that is not yet published."""
    (folder / _ITEMS).mkdir()
    names: set[str] = set()
    bits = [
        _without(record, "documents")
        | {"items": _write_lines(folder, f"bits-{record.name}", map(_document_json, record.documents), names)}
        for record in results.bits
    ]
    tasks = [
        _without(record, "items", "scores")
        | {
            "scores": {score.metric: _score_json(score) for score in record.scores},
            "items": _write_lines(folder, record.name, map(item_json, record.items), names),
        }
        for record in results.tasks
    ]
    body = {
        "schema": SCHEMA,
        "kind": KIND,
        "ptbr_slm": __version__,
        "model": dataclasses.asdict(results.model),
        "bits_per_byte": bits,
        "tasks": tasks,
        "refused": [dataclasses.asdict(one) for one in results.refused],
        "seconds": round(results.seconds, 3),
    }
    text = json.dumps(_finite(body), ensure_ascii=False, indent=2, allow_nan=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def item_json(result: ItemResult) -> dict[str, Any]:
    """An answer as JSON; what is empty is left out."""
    record = _without(result) | {"values": dict(result.values), "logprobs": list(result.logprobs)}
    return {key: value for key, value in record.items() if value != [] and (key, value) != ("cut", 0)}


def item_of(record: Mapping[str, Any]) -> ItemResult:
    """What `item_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    values = {str(metric): _number(value) for metric, value in record["values"].items()}
    return ItemResult(
        id=_text(record["id"]),
        sha256=_text(record["sha256"]),
        values=values,
        answer=_label(record["answer"]),
        expected=_label(record["expected"]),
        cut=int(record.get("cut", 0)),
        logprobs=tuple(map(_number, record.get("logprobs", ()))),
    )


def bits_json(record: BitsRecord) -> dict[str, Any]:
    """The bits per byte of a text as one JSON object, documents and all."""
    fields = _without(record, "documents") | {"documents": list(map(_document_json, record.documents))}
    return {key: _finite(value) for key, value in fields.items()}


def bits_of(record: Mapping[str, Any]) -> BitsRecord:
    """What `bits_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    documents = (DocumentBits(**{**line, "bits": _number(line["bits"])}) for line in record["documents"])
    found = {
        "value": _number(record["value"]),
        "interval": _interval_of(record["interval"]),
        "notes": tuple(record["notes"]),
        "documents": tuple(documents),
    }
    return BitsRecord(**{**record, **found})


def read_results(path: Path) -> Results:
    """Read a folder of results, or its resultados.json, and check it against its sums.

    Raises E_NOT_FOUND, E_SCHEMA where a newer version wrote it, E_RESULTS where it is not whole.
    """
    file = path / NAME if path.is_dir() else path
    with os_errors(file):
        content = file.read_bytes()
    try:
        body = json.loads(content)
        if not isinstance(body, dict) or body.get("kind") != KIND:
            raise ValueError("não é um arquivo de resultados")
        if int(body["schema"]) > SCHEMA:
            raise SlmError(
                "E_SCHEMA",
                f"feito por uma versão mais nova do ptbr-slm (schema {body['schema']} > {SCHEMA}).",
                where=file,
                hint="Atualize com:  pip install -U ptbr-slm",
            )
        return Results(
            model=ModelFacts(**body["model"]),
            bits=tuple(_bits_of(file.parent, record) for record in body["bits_per_byte"]),
            tasks=tuple(_task_of(file.parent, record) for record in body["tasks"]),
            refused=tuple(Refusal(**record) for record in body.get("refused", [])),
            seconds=_number(body.get("seconds", 0.0)),
        )
    except KeyError as error:
        raise _broken(file, f"falta a chave {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(file, str(error)) from error


def _write_lines(
    folder: Path, name: str, records: Iterator[dict[str, Any]], names: set[str]
) -> dict[str, Any]:
    """Write a file of items; where it lies, and what it must agree with."""
    stem = re.sub(r"[^\w.-]+", "_", name).strip(".") or "tarefa"
    while stem in names:
        stem += "_"
    names.add(stem)
    lines = [_dump(record) for record in records]
    content = b"".join(lines)
    (folder / _ITEMS / f"{stem}.jsonl").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return {"file": f"{_ITEMS}/{stem}.jsonl", "sha256": digest, "lines": len(lines)}


def _read_lines(folder: Path, entry: Mapping[str, Any]) -> list[Any]:
    """The items of a file, once it agrees. Raises E_RESULTS, E_NOT_FOUND."""
    name = _text(entry["file"])
    file = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise _broken(folder / NAME, f"aponta para fora da pasta ({name})")
    with os_errors(file):
        content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise _broken(file, "o sha256 não confere com resultados.json")
    return [json.loads(line) for line in content.splitlines()]


def _bits_of(folder: Path, record: Mapping[str, Any]) -> BitsRecord:
    fields = {key: value for key, value in record.items() if key != "items"}
    return bits_of({**fields, "documents": _read_lines(folder, record["items"])})


def _task_of(folder: Path, record: Mapping[str, Any]) -> TaskRecord:
    fields = {key: value for key, value in record.items() if key != "items"}
    scores = record["scores"].items()
    fields["scores"] = tuple(
        TaskScore(metric, _number(score["value"]), _interval_of(score["interval"]), score.get("baseline"))
        for metric, score in scores
    )
    fields["parts"] = tuple(Part(**part) for part in record["parts"])
    return TaskRecord(**fields, items=tuple(map(item_of, _read_lines(folder, record["items"]))))


def _without(record: object, *keys: str) -> dict[str, Any]:
    """A dataclass as JSON without some of its fields, which are not copied either."""
    assert dataclasses.is_dataclass(record)
    fields = [one.name for one in dataclasses.fields(record) if one.name not in keys]
    return {name: _plain(getattr(record, name)) for name in fields}


def _plain(value: object) -> Any:
    if isinstance(value, Interval):
        return [value.low, value.high]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _document_json(document: DocumentBits) -> dict[str, Any]:
    return dataclasses.asdict(document)


def _score_json(score: TaskScore) -> dict[str, Any]:
    return {"value": score.value, "interval": _plain(score.interval), "baseline": score.baseline}


def _interval_of(value: Sequence[float] | None) -> Interval | None:
    return None if value is None else Interval(_number(value[0]), _number(value[1]))


def _dump(record: dict[str, Any]) -> bytes:
    text = json.dumps(_finite(record), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _finite(value: Any) -> Any:
    """JSON with null for NaN and infinity, which it does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _number(value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"era esperado um número, e veio {value!r:.60}")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"era esperado um texto, e veio {value!r:.60}")
    return value


def _label(value: object) -> str | int:
    if not isinstance(value, str | int):
        raise TypeError(f"era esperada uma resposta, e veio {value!r:.60}")
    return value


def _broken(where: Path, why: str) -> SlmError:
    return SlmError(
        "E_RESULTS",
        f"os resultados estão quebrados: {why}.",
        where=where,
        hint="Use uma cópia íntegra da pasta, ou repita:  ptbr-slm eval MODELO -o PASTA",
    )
