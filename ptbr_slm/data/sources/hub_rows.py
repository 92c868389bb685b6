"""Rows of the hub as rows of our shards: the columns, the filters of the user, and the end of a budget."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ptbr_slm.data.document import Document
from ptbr_slm.data.presets import preset
from ptbr_slm.data.sources.origin import fetch_error
from ptbr_slm.data.stages.stage import run
from ptbr_slm.errors import SlmError

if TYPE_CHECKING:
    import pyarrow as pa

_CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|==|=|!=|>|<)\s*(.+?)\s*")


@dataclass(frozen=True, slots=True)
class HubColumns:
    """What the columns of a dataset are, and which are kept."""

    text: str = "text"
    id: str = "id"
    url: str = "url"
    """Of each document's address; empty where there is none."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """More columns that are kept -> their Arrow types."""
    licence: str = ""
    """Of each document."""

    def read(self, keep: RowFilter) -> list[str]:
        """The columns that are looked at, the filter's included."""
        wanted = [self.text, self.id, self.url, *self.attributes, keep.column]
        return list(dict.fromkeys(name for name in wanted if name))

    def schema(self) -> pa.Schema:
        """Of the shards: `text`, `id`, `url`, `license`, and the attributes."""
        import pyarrow as pa

        kept = [(name, pa.type_for_alias(kind)) for name, kind in self.attributes.items()]
        return pa.schema([*((name, pa.string()) for name in ("text", "id", "url", "license")), *kept])

    def rows(self, batch: pa.RecordBatch, keep: RowFilter) -> pa.Table:
        """A batch of the hub's rows as ours: those without text, or that `keep` refuses, left out.

        Raises E_FETCH where the text's column is gone, or E_USAGE for a condition that does not fit.
        """
        import pyarrow as pa
        from pyarrow import compute

        if self.text not in batch.schema.names:
            raise fetch_error("os arquivos não têm mais a coluna do texto", self.text)
        has_text = compute.greater(compute.binary_length(batch.column(self.text).cast(pa.string())), 0)
        batch = batch.filter(compute.and_kleene(has_text, keep.agrees(batch)) if keep.where else has_text)

        def column(name: str, kind: pa.DataType) -> pa.Array:
            if name in batch.schema.names:
                return batch.column(name).cast(kind)
            return pa.nulls(batch.num_rows, kind)

        schema = self.schema()
        licences = pa.array([self.licence] * batch.num_rows, pa.string())
        values = [column(name, pa.string()) for name in (self.text, self.id, self.url)] + [licences]
        values += [column(name, schema.field(name).type) for name in self.attributes]
        return pa.Table.from_arrays(values, schema=schema)


class RowFilter:
    """What the user wants of a source: a condition on a column, and the stages of a preset."""

    def __init__(self, where: str = "", preset_name: str = "") -> None:
        """Raises E_USAGE for another condition than `COLUMN OP VALUE`, or E_CONFIG for an unknown preset."""
        self.where = where
        self.column, self._operator, self._value = _condition(where) if where else ("", "", "")
        found = preset(preset_name) if preset_name else None
        self._stages = (*found.cleaning, *found.tagging, *found.filtering) if found else ()
        self.dropped: Counter[str] = Counter()
        """Reason -> documents that the stages dropped since it was last cleared."""

    @property
    def is_active(self) -> bool:
        """Whether it may refuse a row."""
        return bool(self.where or self._stages)

    def agrees(self, batch: pa.RecordBatch) -> pa.Array:
        """Which rows the condition keeps. Raises E_USAGE for a column that is not there or no such value."""
        import pyarrow as pa
        from pyarrow import compute

        functions = {
            ">=": compute.greater_equal,
            "<=": compute.less_equal,
            ">": compute.greater,
            "<": compute.less,
            "=": compute.equal,
            "==": compute.equal,
            "!=": compute.not_equal,
        }
        problem = f"não há uma coluna {self.column!r}"
        if self.column in batch.schema.names:
            kind = batch.schema.field(self.column).type
            try:
                return functions[self._operator](batch.column(self.column), pa.scalar(self._value).cast(kind))
            except (pa.ArrowException, TypeError):
                problem = f"a coluna {self.column!r} não se compara com {self._value!r}"
        raise SlmError(
            "E_USAGE",
            f"{problem}.",
            where="--where",
            hint="As colunas deste conjunto:  " + ", ".join(batch.schema.names),
        )

    def cleaned(self, table: pa.Table) -> pa.Table:
        """The rows that the stages keep, with their texts as the stages left them."""
        import pyarrow as pa

        if not self._stages:
            return table
        texts: list[str] = []
        kept: list[int] = []
        for row, cell in enumerate(table.column("text").cast(pa.binary()).to_pylist()):
            try:
                answer = run(self._stages, Document(cell.decode("utf-8"), ""))
            except UnicodeDecodeError:
                self.dropped["not_utf8"] += 1
                continue
            if isinstance(answer, Document):
                texts.append(answer.text)
                kept.append(row)
            else:
                self.dropped[answer[2].reason] += 1
        taken = table.take(pa.array(kept, pa.int64()))
        return taken.set_column(0, table.schema.field("text"), pa.array(texts, pa.string()))


def up_to(table: pa.Table, room: int | None) -> tuple[pa.Table, int]:
    """(the first rows of a table up to the one that fills `room` bytes of text, the bytes they have)."""
    from pyarrow import compute

    lengths = compute.binary_length(table.column("text")).to_pylist()
    total = 0
    for count, length in enumerate(lengths, start=1):
        total += length
        if room is not None and total >= room:
            return table.slice(0, count), total
    return table, total


def _condition(text: str) -> tuple[str, str, str]:
    """(column, operator, value) of `COLUMN OP VALUE`. Raises E_USAGE."""
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise SlmError(
            "E_USAGE",
            f"não entendi o filtro {text!r}.",
            where="--where",
            hint='Escreva COLUNA OPERADOR VALOR, por exemplo:  --where "language_score>=0.95"',
        )
    return found[1], found[2], found[3]
