"""A file at a URL, fetched whole: one with a pinned sha256, or the newest of a series with checksums."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ptbr_slm.data.sources.origin import (
    Status,
    Task,
    fetch_error,
    finish,
    locked,
    read_state,
    write_state,
)
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.text import human_bytes

if TYPE_CHECKING:
    from ptbr_slm.data.sources.http import HttpClient, RemoteFile

_BLOCK = 1 << 20
_SPARE_BYTES = 64 << 20
_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256"}
"""Hexadecimal digits of a checksum -> what it is."""


@dataclass(frozen=True, slots=True)
class UrlFile:
    """One file. `{date}` in its URL stands for the date that the list of checksums names."""

    url: str
    checksum: str = ""
    """Hexadecimal sha256 of a file that never changes."""
    checksums: str = ""
    """URL of lines `DIGEST  NAME`, as sha1sum writes them, for a file of a series."""

    def pins(self) -> Mapping[str, str]:
        """The URL and, where it is pinned, the sha256."""
        return {"url": self.url, "checksum": self.checksum}

    def bring(self, task: Task) -> Path:
        """The file. Raises E_FETCH, E_DISK_FULL, E_USAGE for a limit that it exceeds, or E_LOCKED."""
        from ptbr_slm.data.sources.http import Changed, HttpClient

        http = HttpClient(policy=task.options.policy, note=task.options.note)
        with locked(task):
            for again in (False, True):
                try:
                    state = self._resume(http, task)
                    part = self._download(http, task, state)
                    break
                except (Changed, _WrongChecksum) as error:
                    shutil.rmtree(task.work / "part", ignore_errors=True)
                    (task.work / "part").unlink(missing_ok=True)
                    write_state(task.work, {})
                    if again:
                        raise fetch_error(_WHY[type(error).__name__], self.url) from error
                    task.options.note(f"{_WHY[type(error).__name__].capitalize()}: recomeço.")
            path: Path = task.out / str(state["file"])
            with os_errors(path):
                part.replace(path)
            finish(task, {path.name: (path.stat().st_size, sha256_file(path))}, {**state, "stopped": "end"})
        return path

    def _resume(self, http: HttpClient, task: Task) -> dict[str, Any]:
        """What is being fetched: as an earlier call found it, or asked for now."""
        made_from = {"name": task.name, **self.pins()}
        state = read_state(task.work)
        if all(state.get(key) == value for key, value in made_from.items()):
            return state
        url, digest = _mirrored(self.url, task.options.mirror), self.checksum
        if self.checksums:
            date, digest = self._newest(http, _mirrored(self.checksums, task.options.mirror))
            url = url.replace("{date}", date)
        remote = http.head(url)
        state = {
            **made_from,
            "from": url,
            "file": Path(urlsplit(url).path).name,
            "size": remote.size,
            "digest": digest,
            "identity": remote.identity,
        }
        write_state(task.work, state)
        (task.work / "part").unlink(missing_ok=True)
        return state

    def _newest(self, http: HttpClient, url: str) -> tuple[str, str]:
        """(date, digest) of the file in the list of checksums. Raises E_FETCH where it is not there."""
        name = re.escape(urlsplit(self.url).path.rpartition("/")[2]).replace(r"\{date\}", r"(\d{8})")
        found = re.search(rf"^([0-9a-f]{{32,64}}) [ *]{name}$", http.get(url).text, re.MULTILINE)
        if found is None:
            raise fetch_error("a lista de somas de verificação não tem o arquivo", url)
        return found[2], found[1]

    def _download(self, http: HttpClient, task: Task, state: Mapping[str, Any]) -> Path:
        """The part, whole and checked. Raises Changed, _WrongChecksum or E_FETCH."""
        from ptbr_slm.data.sources.http import RemoteFile

        remote = RemoteFile(state["from"], state["size"], identity=state["identity"])
        part: Path = task.work / "part"
        _check_room(task, remote, part)
        begun = received = part.stat().st_size if part.exists() else 0

        def progress(count: int) -> None:
            nonlocal received
            received += count
            task.options.progress(Status(received / max(remote.size, 1), received - begun, 0))

        http.download(remote, part, progress=progress)
        if state["digest"] and _digest(part, _ALGORITHMS[len(state["digest"])]) != state["digest"]:
            raise _WrongChecksum
        return part


class _WrongChecksum(Exception):
    """The whole file is not the one that was announced."""


_WHY = {
    "Changed": "o arquivo mudou no servidor durante o download",
    "_WrongChecksum": "o arquivo baixado não confere com a soma de verificação",
}
"""Exception -> its words."""


def _check_room(task: Task, remote: RemoteFile, part: Path) -> None:
    limit = task.options.max_disk
    if limit is not None and remote.size > limit:
        raise SlmError(
            "E_USAGE",
            f"o arquivo tem {human_bytes(remote.size)}, mais que o limite, e vem inteiro ou não vem.",
            where="--max-disk",
            hint=f"Use --max-disk {remote.size} ou mais, ou outra fonte:  ptbr-slm data fetch --list",
        )
    with os_errors(task.out):
        free = shutil.disk_usage(task.out).free
    need = remote.size - (part.stat().st_size if part.exists() else 0)
    if free < need + _SPARE_BYTES:
        raise SlmError(
            "E_DISK_FULL",
            f"só há {human_bytes(free)} livres, e faltam {human_bytes(need)}.",
            where=task.out,
            hint="Libere espaço (veja com: df -h) e repita o mesmo comando.",
        )


def _mirrored(url: str, mirror: str) -> str:
    """The URL on a mirror that keeps the same paths: scheme and host are replaced."""
    if not mirror:
        return url
    parts = urlsplit(url)
    return mirror.rstrip("/") + url.removeprefix(f"{parts.scheme}://{parts.netloc}")


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with os_errors(path), path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
