"""Parquet files of the hub become Parquet shards of ours, up to a token budget or a disk limit.

A chunk of row groups (`remote_parquet`) is fetched into a file that grows, in which a killed call goes on;
then it becomes one shard. Chunks depend on the hub's files only, so the shards' bytes do not depend on where
an earlier call stopped.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptbr_slm.data.sources.hub_rows import HubColumns, RowFilter, up_to
from ptbr_slm.data.sources.origin import (
    Status,
    Task,
    fetch_error,
    finish,
    locked,
    read_state,
    write_state,
)
from ptbr_slm.data.sources.remote_parquet import BATCH_ROWS, Corrupt, RemoteParquet, Window
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import atomic_file
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.text import human_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from ptbr_slm.data.sources.http import HttpClient
    from ptbr_slm.data.sources.hub import Hub, HubFile

_SPARE_BYTES = 64 << 20
"""Of the disk, left free."""
_GROWTH = 1.2
"""A shard against its chunk, at most: both are compressed."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished file of the output."""

    file: str
    size: int
    sha256: str
    documents: int
    text_bytes: int
    """UTF-8 bytes of the texts."""
    source: str
    """Path of the hub's file."""
    first_group: int
    last_group: int
    cut: bool
    """Whether the token budget ended before the chunk did."""
    dropped: dict[str, int]
    """Reason -> documents that the preset dropped."""


@dataclass(frozen=True, slots=True)
class HubParquet:
    """The Parquet files in a folder of a dataset of the hub."""

    repo: str
    folder: str
    revision: str = "main"
    """A commit, or a branch or tag, whose commit the first call writes down."""
    columns: HubColumns = field(default_factory=HubColumns)

    def pins(self) -> Mapping[str, str]:
        """Repository, folder and revision."""
        return {"repo": self.repo, "path": self.folder, "revision": self.revision}

    def bring(self, task: Task) -> Path:
        """The folder of shards. Raises E_FETCH, E_DISK_FULL, E_USAGE, E_LOCKED or E_DEPENDENCY."""
        from ptbr_slm.data.sources.http import Changed, HttpClient
        from ptbr_slm.data.sources.hub import Hub, endpoint, hub_token

        options = task.options
        where = endpoint(options.mirror)
        http = HttpClient(hub_token(), where, options.policy, options.note)
        with locked(task):
            work = _Work.resume(self, task, Hub(http, where))
            try:
                stopped = work.run()
            except Changed as error:
                raise fetch_error("o arquivo do servidor não é o que o commit anuncia", str(error)) from error
            work.finish(stopped)
        return task.out


@dataclass(slots=True)
class _Work:
    """One call: what there is already, and what is added."""

    origin: HubParquet
    task: Task
    http: HttpClient
    hub: Hub
    commit: str
    files: list[HubFile]
    shards: list[Shard]
    keep: RowFilter
    received: int = 0
    position: int = 0
    """Bytes of the hub's files up to the chunk that comes next."""

    @classmethod
    def resume(cls, origin: HubParquet, task: Task, hub: Hub) -> _Work:
        """Begin, or go on from the state of a killed call, or from a finished folder that wants more."""
        from ptbr_slm.data.sources.hub import HubFile

        keep = RowFilter(task.options.where, task.options.preset)
        made_from = {"name": task.name, **_filters(task), **origin.pins()}
        state = _earlier(task)
        same = all(state.get(key) == value for key, value in made_from.items())
        if not same and state.get("shards"):
            raise SlmError(
                "E_EXISTS",
                "a pasta tem textos de outra fonte, revisão ou filtro: não vou misturá-los.",
                where=task.out,
                hint="Escolha outra pasta em --output, ou repita o comando que a começou.",
            )
        if not same:
            commit = hub.commit(origin.repo, origin.revision)
            listed = hub.files(origin.repo, commit, origin.folder)
            files = [file for file in listed if file.path.endswith(".parquet")]
            if not files:
                raise fetch_error(
                    "a pasta do conjunto não tem arquivos .parquet", f"{origin.repo}/{origin.folder}"
                )
            listing = [asdict(file) for file in files]
            state = {**made_from, "commit": commit, "hub_files": listing, "shards": []}
        work = cls(
            origin,
            task,
            hub.http,
            hub,
            state["commit"],
            [HubFile(**file) for file in state["hub_files"]],
            _intact([Shard(**shard) for shard in state["shards"]], task.out),
            keep,
        )
        work.save()
        with os_errors(task.out):
            (task.out / MANIFEST).unlink(missing_ok=True)
        return work

    @property
    def text_bytes(self) -> int:
        """Of all shards."""
        return sum(shard.text_bytes for shard in self.shards)

    def state(self) -> dict[str, Any]:
        """What a later call needs."""
        return {
            "name": self.task.name,
            **_filters(self.task),
            **self.origin.pins(),
            "commit": self.commit,
            "hub_files": [asdict(file) for file in self.files],
            "shards": [asdict(shard) for shard in self.shards],
        }

    def save(self) -> None:
        """Write the state."""
        write_state(self.task.work, self.state())

    def run(self) -> str:
        """Write shards until something ends it: `tokens`, `max_disk` or `end`. Raises E_DISK_FULL, too."""
        wanted = self.task.options.text_bytes
        before = 0
        for file in self.files:
            begin, before = before, before + file.size
            if self.shards and file.path < self.shards[-1].source:
                continue  # files are in the order of their paths, so this one is finished
            done = [shard for shard in self.shards if shard.source == file.path]
            if wanted is not None and self.text_bytes >= wanted:
                return "tokens"
            remote = RemoteParquet.open(self.http, self.hub.remote(self.origin.repo, self.commit, file))
            first = 0 if not done else done[-1].last_group + 1
            for groups in remote.chunks(first):
                if wanted is not None and self.text_bytes >= wanted:
                    return "tokens"
                room = None if wanted is None or self.keep.is_active else wanted - self.text_bytes
                if not self._fits(remote.bytes_of(remote.enough(groups, room))):
                    return "max_disk"
                self.position = begin + remote.span(groups[0])[0]
                self._add(file, remote, groups, wanted)
            self.position = before
            self.report(0, 0)
        return "tokens" if wanted is not None and self.text_bytes >= wanted else "end"

    def finish(self, stopped: str) -> None:
        """Remove what is unfinished and write the manifest, which makes the folder a whole one."""
        task = self.task
        if not self.shards:
            raise fetch_error(
                "nenhum texto coube ou passou no filtro",
                task.out,
                "Aumente --max-disk, ou mude o filtro de --where.",
            )
        documents = sum(shard.documents for shard in self.shards)
        dropped: Counter[str] = Counter()
        for shard in self.shards:
            dropped.update(shard.dropped)
        totals = {"documents": documents, "text_bytes": self.text_bytes, "stopped": stopped}
        totals |= {"dropped": dict(sorted(dropped.items()))}
        files = {shard.file: (shard.size, shard.sha256) for shard in self.shards}
        finish(task, files, self.state() | totals)

    def _fits(self, chunk: int) -> bool:
        """Whether a chunk and its shard fit below the limit; E_DISK_FULL for a disk that is too full."""
        need = round(chunk * (1 + _GROWTH))
        limit = self.task.options.max_disk
        used = sum(shard.size for shard in self.shards)
        if limit is not None and used + need > limit:
            return False
        with os_errors(self.task.out):
            free = shutil.disk_usage(self.task.out).free
        part = self.task.work / "chunk.part"
        already = part.stat().st_size if part.exists() else 0
        if free < need - already + _SPARE_BYTES:
            raise SlmError(
                "E_DISK_FULL",
                f"só há {human_bytes(free)} livres, e o próximo pedaço precisa de {human_bytes(need)}; "
                "o que já foi baixado está inteiro.",
                where=self.task.out,
                hint="Libere espaço e repita o mesmo comando, ou peça menos com --tokens ou --max-disk.",
            )
        return True

    def _add(self, file: HubFile, remote: RemoteParquet, groups: range, wanted: int | None) -> None:
        """One more shard. A chunk whose bytes cannot be decoded is fetched once more."""
        from pyarrow import ArrowException

        chunk = _Chunk(self, remote, groups, self._part(file, groups))
        for again in (False, True):
            try:
                shard = chunk.write_shard(file, wanted)
                break
            except (ArrowException, Corrupt) as error:
                chunk.part.unlink(missing_ok=True)
                if again:
                    raise fetch_error(
                        "os bytes recebidos não são Parquet íntegro, duas vezes", file.path
                    ) from error
                self.task.options.note("Um pedaço chegou danificado: baixo de novo.")
        if shard is not None:
            self.shards.append(shard)
            self.save()
        chunk.part.unlink(missing_ok=True)

    def _part(self, file: HubFile, groups: range) -> Path:
        """The growing file of a chunk; one of another chunk is removed."""
        key = f"{file.path} {groups.start} {groups.stop}\n"
        part, owner = self.task.work / "chunk.part", self.task.work / "chunk.owner"
        with os_errors(self.task.work):
            if not owner.exists() or owner.read_text() != key:
                part.unlink(missing_ok=True)
                owner.write_text(key)
        return part

    def report(self, received: int, chunk_text: int) -> None:
        """Tell the progress: bytes that have just come, and the text of the unfinished shard."""
        self.received += received
        options = self.task.options
        text = self.text_bytes + chunk_text
        share = self.position / max(sum(file.size for file in self.files), 1)
        if options.text_bytes:
            share = max(share, text / options.text_bytes)
        if options.max_disk:
            share = max(share, sum(shard.size for shard in self.shards) / options.max_disk)
        options.progress(Status(min(1.0, share), self.received, text))


@dataclass(slots=True)
class _Chunk:
    """Row groups that become one shard."""

    work: _Work
    remote: RemoteParquet
    groups: range
    part: Path
    written: int = 0
    """UTF-8 bytes of text in the shard so far."""

    def write_shard(self, file: HubFile, wanted: int | None) -> Shard | None:
        """The shard, ended by the document that reaches the budget; None where no document is left."""
        from pyarrow import parquet

        task = self.work.task
        path = task.out / f"{task.name}-{len(self.work.shards):05d}.parquet"
        room = None if wanted is None else wanted - self.work.text_bytes
        schema = self.work.origin.columns.schema()
        documents = self.written = 0
        keep = self.work.keep
        keep.dropped.clear()
        cut = False
        with (
            atomic_file(path) as temporary,
            os_errors(path),
            parquet.ParquetWriter(
                temporary, schema, compression="zstd", use_dictionary=["license"]
            ) as output,
        ):
            for batch in self._batches(room):
                table, size = up_to(batch, None if room is None else room - self.written)
                output.write_table(table, row_group_size=BATCH_ROWS)
                documents += table.num_rows
                self.written += size
                self.work.report(0, self.written)
                if cut := room is not None and self.written >= room:
                    break
        if not documents:
            path.unlink()
            return None
        return Shard(
            path.name,
            path.stat().st_size,
            sha256_file(path),
            documents,
            self.written,
            file.path,
            self.groups.start,
            self.groups.stop - 1,
            cut,
            dict(sorted(keep.dropped.items())),
        )

    def _batches(self, room: int | None) -> Iterator[pa.Table]:
        """The rows as they are written, fetched as far ahead as the budget is likely to need."""
        origin, keep = self.work.origin, self.work.keep
        for group in self.groups:
            self._fetch_ahead(group, None if room is None else room - self.written)
            for batch in self.remote.batches(group, self._window(), origin.columns.read(keep)):
                yield keep.cleaned(origin.columns.rows(batch, keep))

    def _fetch_ahead(self, group: int, room: int | None) -> None:
        """Make the part hold this row group, and those after it that the budget will need by their sizes."""
        last = self.remote.enough(range(group, self.groups.stop), room)[-1]
        start, _ = self.remote.span(self.groups.start)
        _, stop = self.remote.span(last)
        have = self.part.stat().st_size if self.part.exists() else 0
        if have < self.remote.span(group)[1] - start:
            self.work.http.download(
                self.remote.file,
                self.part,
                start=start,
                stop=stop,
                progress=lambda count: self.work.report(count, self.written),
            )

    def _window(self) -> Window:
        return Window(self.part, self.remote.span(self.groups.start)[0], self.remote.file.size)


def _filters(task: Task) -> dict[str, str]:
    """What decides which rows are written."""
    return {"where": task.options.where, "preset": task.options.preset}


def _earlier(task: Task) -> dict[str, Any]:
    """The state of a killed call, else of a finished folder, damaged or not; empty where there is neither."""
    if state := read_state(task.work):
        return state
    try:
        manifest = json.loads((task.out / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _intact(shards: list[Shard], out: Path) -> list[Shard]:
    """The shards before the first that is cut short, damaged or missing; it and the rest are made again."""
    good: list[Shard] = []
    for shard in shards:
        path = out / shard.file
        if shard.cut or not path.is_file() or sha256_file(path) != shard.sha256:
            break
        good.append(shard)
    for shard in shards[len(good) :]:
        with os_errors(out):
            (out / shard.file).unlink(missing_ok=True)
    return good
