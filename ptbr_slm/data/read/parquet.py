"""The `text` column of a Parquet file, row by row: a row that is not text loses itself alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.errors import missing_extra, os_errors

_BATCH_ROWS = 256


def text_cells(path: Path, counts: DocumentCounts) -> Iterator[tuple[bytes | None, str]]:
    """(bytes of the text, source) of every row; None where the row holds no text.

    Strings are taken as bytes, as pyarrow does not check that they are UTF-8 before it makes a `str` of
    them; columns without a string annotation (BINARY) hold the same bytes. A row group that cannot be read
    is counted in `counts` with its rows, and the next one is read.
    Raises E_NOT_FOUND, E_PERMISSION, or E_DEPENDENCY without pyarrow.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("pyarrow") from error
    corrupt = (pa.ArrowException, UnicodeDecodeError, OSError)
    with os_errors(path):
        raw = path.open("rb")
    size = path.stat().st_size
    with raw:
        try:
            file = parquet.ParquetFile(raw, pre_buffer=False)
            rows, groups = file.metadata.num_rows, file.num_row_groups
            has_text = "text" in file.schema_arrow.names
        except corrupt:
            counts.drop("corrupt_file", f"{path}:1")
            return
        if not has_text:
            counts.drop("no_text", str(path), rows)
            counts.input_bytes += size
            return
        if not rows:
            counts.drop("empty", str(path))
        first = 0
        for group in range(groups):
            row, stop = first, first + file.metadata.row_group(group).num_rows
            try:
                for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group], columns=["text"]):
                    for value in _as_bytes(batch.column(0)):
                        row += 1
                        yield value, f"{path}:{row}"
                    counts.input_bytes += size * batch.num_rows // rows
            except corrupt:
                counts.drop("corrupt_rows", f"{path}:{row + 1}", stop - row)
            first = stop


def _as_bytes(column: Any) -> Iterator[bytes | None]:
    """The values of an Arrow array as bytes, None for what is neither string nor binary."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind):
        column = column.cast(pa.binary())
    elif pa.types.is_large_string(kind):
        column = column.cast(pa.large_binary())
    elif pa.types.is_string_view(kind):
        column = column.cast(pa.binary_view())
    for value in column:
        found = value.as_py()
        yield found if isinstance(found, bytes) else None
