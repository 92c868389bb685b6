"""The text column of a Parquet file, row by row: a row that is not text loses itself alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Protocol

from ptbr_slm.data.document import Document, Skipped
from ptbr_slm.data.read.formats import Found, Row, Rows, checked
from ptbr_slm.errors import missing_extra

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 256
_NAMED_FIELDS = ("id", "url", "license", "licence", "licenca")
_PARAGRAPHS = "\n\n"


class ReadPosition(Protocol):
    """Where the reader says how far it is."""

    bytes: int


def read_parquet(raw: BinaryIO, name: str, text_field: str, position: ReadPosition) -> Found:
    """The text of every row of the column `text_field`, which may be inside a struct or a list of strings.

    Strings are taken as bytes, as pyarrow does not check that they are UTF-8 before it makes a `str` of
    them; columns without a string annotation (BINARY) hold the same bytes. A row group that cannot be read
    is skipped with its rows, and the next one is read. Raises E_DEPENDENCY without pyarrow.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow") from error
    errors = (pa.ArrowException, UnicodeDecodeError, OSError)
    size = raw.seek(0, 2)
    try:
        file = parquet.ParquetFile(raw, pre_buffer=False)
        rows, groups, schema = file.metadata.num_rows, file.num_row_groups, file.schema_arrow
    except errors:
        yield Skipped("corrupt_file", f"{name}:1")
        return
    path = text_path(schema, text_field)
    if path is None:
        yield Skipped("no_text", name, max(rows, 1))
        return
    if not rows:
        yield Skipped("empty", name)
    named = [field for field in _NAMED_FIELDS if field in schema.names]
    first = 0
    for group in range(groups):
        row, stop = first, first + file.metadata.row_group(group).num_rows
        try:
            columns = [".".join(path), *named]
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=columns):
                fields = [batch.column(batch.schema.names.index(field)) for field in named]
                for at, cell in enumerate(cells(batch.column(batch.schema.names.index(path[0])), path[1:])):
                    row += 1
                    values = dict(zip(named, (column[at].as_py() for column in fields), strict=True))
                    yield _document(cell, f"{name}:{row}", values)
                position.bytes += size * batch.num_rows // rows
        except errors:
            yield Skipped("corrupt_rows", f"{name}:{row + 1}", stop - row)
        first = stop


def parquet_rows(raw: BinaryIO, name: str, position: ReadPosition) -> Rows:
    """Every row with all its columns as Python values: lists, dictionaries, strings, numbers.

    A row group that cannot be read is skipped with its rows, and the next one is read; so are rows with text
    that is not UTF-8. Raises E_DEPENDENCY without pyarrow.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow") from error
    errors = (pa.ArrowException, UnicodeDecodeError, OSError)
    size = raw.seek(0, 2)
    try:
        file = parquet.ParquetFile(raw, pre_buffer=False)
        total, groups = file.metadata.num_rows, file.num_row_groups
    except errors:
        yield Skipped("corrupt_file", f"{name}:1")
        return
    if not total:
        yield Skipped("empty", name)
    first = 0
    for group in range(groups):
        row, stop = first, first + file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
                for fields in _values(batch):
                    row += 1
                    yield (
                        Skipped("not_utf8", f"{name}:{row}")
                        if fields is None
                        else Row(fields, f"{name}:{row}")
                    )
                position.bytes += size * batch.num_rows // total
        except errors:
            yield Skipped("corrupt_rows", f"{name}:{row + 1}", stop - row)
        first = stop


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, object] | None]:
    """The rows of a batch; None for one with text that is not UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # raised before the first row comes out
        for at in range(batch.num_rows):
            try:
                yield batch.slice(at, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _document(cell: bytes | None, source: str, fields: dict[str, object]) -> Document | Skipped:
    if cell is None:
        return Skipped("no_text", source)
    try:
        return checked(cell.decode("utf-8"), source, fields)
    except UnicodeDecodeError:
        return Skipped("not_utf8", source)


def text_path(schema: pa.Schema, text_field: str) -> list[str] | None:
    """Where the text is: `["text"]`, or `["document", "text"]` inside a struct; None for nowhere.

    `text_field` may be such a path itself, `document.text`; a column of that very name comes first.
    """
    if text_field in schema.names:
        return [text_field]
    for field in schema:
        inside = _inside(field, text_field.rpartition(".")[2])
        if inside is not None and ("." not in text_field or ".".join(inside) == text_field):
            return inside
    return None


def _inside(field: pa.Field, wanted: str) -> list[str] | None:
    import pyarrow as pa

    if field.name == wanted:
        return [field.name]
    if pa.types.is_struct(field.type):
        for child in field.type:
            found = _inside(child, wanted)
            if found is not None:
                return [field.name, *found]
    return None


def cells(column: pa.Array, path: list[str]) -> Iterator[bytes | None]:
    """The text at `path` inside each value of an Arrow array as bytes, None where there is none."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_struct(kind):
        inside = path[0] if path else next((child.name for child in kind), "")
        missing = column.is_null()
        for empty, cell in zip(missing, cells(column.field(inside), path[1:]), strict=True):
            yield None if empty.as_py() else cell
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        for value in column:
            parts = None if value.values is None else list(cells(value.values, path))
            yield None if parts is None or None in parts else _PARAGRAPHS.encode().join(filter(None, parts))
    else:
        for value in _as_binary(column):
            found = value.as_py()
            yield found if isinstance(found, bytes) else None


def _as_binary(column: pa.Array) -> pa.Array:
    """Strings of every kind as the bytes they are, unchecked."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_string(kind):
        return column.cast(pa.binary())
    if pa.types.is_large_string(kind):
        return column.cast(pa.large_binary())
    if pa.types.is_string_view(kind):
        return column.cast(pa.binary_view())
    return column
