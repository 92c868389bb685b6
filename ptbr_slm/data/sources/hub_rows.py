"""Rows of the hub as rows of our shards: the columns, the filter of `--where`, and the end of a budget."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ptbr_slm.data.sources.origin import fetch_error
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
    """Of each document's address; where there is none, the id stands for it."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """More columns that are kept -> their Arrow types."""
    licence: str = ""
    """Of each document."""

    def read(self, where: str) -> list[str]:
        """The columns that are looked at, the filter's included."""
        wanted = [self.text, self.id, self.url, *self.attributes, condition(where)[0] if where else ""]
        return list(dict.fromkeys(name for name in wanted if name))

    def schema(self) -> pa.Schema:
        """Of the shards: `text`, `id`, `source`, `license`, and the attributes."""
        import pyarrow as pa

        kept = [(name, pa.type_for_alias(kind)) for name, kind in self.attributes.items()]
        return pa.schema([*((name, pa.string()) for name in ("text", "id", "source", "license")), *kept])

    def rows(self, batch: pa.RecordBatch, name: str, where: str) -> pa.Table:
        """A batch of the hub's rows as ours: those without text, or that the filter refuses, left out.

        name: of the source, for documents without an address. Raises E_FETCH, or E_USAGE for the filter.
        """
        import pyarrow as pa
        from pyarrow import compute

        if self.text not in batch.schema.names:
            raise fetch_error(f"os arquivos não têm mais a coluna {self.text}", name)
        keep = compute.greater(compute.binary_length(batch.column(self.text).cast(pa.string())), 0)
        if where:
            keep = compute.and_kleene(keep, _agrees(batch, where))
        batch = batch.filter(keep)

        def column(column_name: str, kind: pa.DataType) -> pa.Array:
            if column_name in batch.schema.names:
                return batch.column(column_name).cast(kind)
            return pa.nulls(batch.num_rows, kind)

        schema = self.schema()
        ids = column(self.id, pa.string())
        named = compute.binary_join_element_wise(pa.scalar(f"{name}:"), ids, "")
        sources = compute.coalesce(column(self.url, pa.string()), named, pa.scalar(name))
        licences = pa.array([self.licence] * batch.num_rows, pa.string())
        values = [column(self.text, pa.string()), ids, sources, licences]
        values += [column(attribute, schema.field(attribute).type) for attribute in self.attributes]
        return pa.Table.from_arrays(values, schema=schema)


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


def condition(text: str) -> tuple[str, str, str]:
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


def _agrees(batch: pa.RecordBatch, text: str) -> pa.Array:
    """Which rows the condition keeps. Raises E_USAGE for a column that is not there or no such value."""
    import pyarrow as pa
    from pyarrow import compute

    name, operator, value = condition(text)
    functions = {
        ">=": compute.greater_equal,
        "<=": compute.less_equal,
        ">": compute.greater,
        "<": compute.less,
        "=": compute.equal,
        "==": compute.equal,
        "!=": compute.not_equal,
    }
    problem = f"não há uma coluna {name!r}"
    if name in batch.schema.names:
        kind = batch.schema.field(name).type
        try:
            return functions[operator](batch.column(name), pa.scalar(value).cast(kind))
        except (pa.ArrowException, TypeError):
            problem = f"a coluna {name!r} não se compara com {value!r}"
    raise SlmError(
        "E_USAGE",
        f"{problem}.",
        where="--where",
        hint="As colunas deste conjunto:  " + ", ".join(batch.schema.names),
    )
