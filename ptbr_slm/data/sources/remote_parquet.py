"""A Parquet file on a server, read row group by row group: its footer, its ranges, and what a range holds.

A row group is a range of bytes of its file (parquet-format, `ColumnMetaData.total_compressed_size`), so a
part of a 5 GB file can be had without the rest. Row groups that lie together are fetched as one range, a
chunk of about `CHUNK_BYTES`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptbr_slm.data.sources.origin import fetch_error

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

    from ptbr_slm.data.sources.http import HttpClient, RemoteFile

CHUNK_BYTES = 64 << 20
TAIL_BYTES = 1 << 20
"""Read from the end of a file first: its footer, if that is no longer."""
BATCH_ROWS = 1024


@dataclass(slots=True)
class RemoteParquet:
    """A Parquet file on a server whose footer has been read."""

    file: RemoteFile
    footer: parquet.FileMetaData

    @classmethod
    def open(cls, http: HttpClient, file: RemoteFile) -> RemoteParquet:
        """Read the footer: the last 1 MiB, and more where the footer is longer. Raises E_FETCH."""
        import pyarrow as pa
        from pyarrow import parquet

        start = max(0, file.size - TAIL_BYTES)
        tail = http.read(file, start, file.size)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] != b"PAR1" or length > file.size:
            raise fetch_error("o arquivo não é Parquet", file.url)
        if length > len(tail):
            tail = http.read(file, file.size - length, start) + tail
        try:
            # a Parquet file may be read from its footer alone, behind the first magic number
            footer = parquet.read_metadata(pa.BufferReader(b"PAR1" + tail[-length:]))
        except pa.ArrowException as error:
            raise fetch_error("o rodapé do arquivo Parquet está danificado", file.url) from error
        return cls(file, footer)

    def chunks(self, first: int) -> Iterator[range]:
        """Ranges of row groups of about `CHUNK_BYTES`, from the group `first` on, which begins one."""
        start, size = first, 0
        for group in range(first, self.footer.num_row_groups):
            begin, end = self.span(group)
            size += end - begin
            if size >= CHUNK_BYTES:
                yield range(start, group + 1)
                start, size = group + 1, 0
        if start < self.footer.num_row_groups:
            yield range(start, self.footer.num_row_groups)

    def enough(self, groups: range, text_bytes: int | None) -> range:
        """The first of `groups`, as many as are likely to hold so much text; all for None. At least one."""
        total = 0
        for group in groups:
            total += self.text_bytes_of(group)
            if text_bytes is not None and total >= text_bytes * 1.1:
                return range(groups.start, group + 1)
        return groups

    def bytes_of(self, groups: range) -> int:
        """Bytes of the range of a chunk."""
        return self.span(groups[-1])[1] - self.span(groups[0])[0]

    def span(self, group: int) -> tuple[int, int]:
        """(first, one past the last) byte of a row group."""
        row_group = self.footer.row_group(group)
        columns = [row_group.column(index) for index in range(row_group.num_columns)]
        starts = [
            min(column.dictionary_page_offset or column.data_page_offset, column.data_page_offset)
            for column in columns
        ]
        stops = [start + column.total_compressed_size for start, column in zip(starts, columns, strict=True)]
        return min(starts), max(stops)

    def text_bytes_of(self, group: int) -> int:
        """Bytes of a row group before compression: a little more than its text."""
        return int(self.footer.row_group(group).total_byte_size)

    def batches(self, group: int, window: Window, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a row group that lies in `window`. Raises Corrupt or pyarrow.ArrowException."""
        from pyarrow import parquet

        names = set(self.footer.schema.to_arrow_schema().names)
        with window:
            file = parquet.ParquetFile(
                window, metadata=self.footer, pre_buffer=False, page_checksum_verification=True
            )
            try:
                yield from file.iter_batches(
                    batch_size=BATCH_ROWS,
                    row_groups=[group],
                    columns=[name for name in columns if name in names],
                )
            except OSError as error:  # pyarrow's own, of a page that does not decompress
                raise Corrupt from error


class Corrupt(Exception):
    """Bytes that are no row group."""


class Window(io.RawIOBase):
    """The bytes of a large file that a local part holds, at their places in it."""

    def __init__(self, part: Path, start: int, size: int) -> None:
        super().__init__()
        self._part, self._start, self._size, self._position = part.open("rb"), start, size, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place in the large file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The place in the large file."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Bytes at the place. Raises OSError before the part."""
        if self._position < self._start:
            raise OSError("outside the part")
        self._part.seek(self._position - self._start)
        content = self._part.read(size)
        self._position += len(content)
        return content

    def close(self) -> None:
        """Close the part."""
        self._part.close()
        super().close()
