"""The files that an input names: itself, what a pattern matches, or every file below a folder, sorted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ptbr_slm.data.document import Skipped
from ptbr_slm.data.read.compressed import COMPRESSIONS
from ptbr_slm.errors import SlmError, os_errors

Format = Literal["text", "jsonl", "json", "csv", "html", "mediawiki", "parquet", "zip", "tar", "stdin"]

FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".html": "html",
    ".xml": "mediawiki",
    ".parquet": "parquet",
    ".zip": "zip",
    ".tar": "tar",
}
"""Ending of a file's name -> how it is read."""
ROW_FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
"""The same for files that are read as rows with all their fields (`reader.read_rows`)."""
_ALIASES = {
    ".markdown": ".md",
    ".ndjson": ".jsonl",
    ".tsv": ".csv",
    ".htm": ".html",
    ".tgz": ".tar.gz",
    ".tbz2": ".tar.bz2",
    ".txz": ".tar.xz",
}
_WHOLE_FILES = (".parquet", ".zip")
"""These compress themselves, and are read from the end: not out of a compressed stream."""
_ABOUT = ("licenca", "license", "licence", "readme", "changelog", "contributing", "copying")
"""Markdown files of these names tell of a folder and are not its text."""

_HUB_CACHE = re.compile(r"(?:^|/)datasets--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})/(.+)")
"""A file in the cache of huggingface_hub (its docs, "Understand caching"): owner, name, commit, path."""

STDIN = Path("-")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to read."""

    path: Path
    """`-` is the standard input."""
    format: Format
    named: bool
    """The user named this very file: that it cannot be read is an error, and not a file to pass over."""

    @property
    def name(self) -> str:
        """What its documents are told to come from: its path, or the name that the hub has for it."""
        found = _HUB_CACHE.search(self.path.as_posix())
        if found is None:
            return str(self.path)
        return f"hf://datasets/{found[1]}/{found[2]}@{found[3]}/{found[4]}"


def format_of(path: Path | str, formats: Mapping[str, Format] = FORMATS) -> Format | None:
    """How a file of this name is read; None for a file that is not."""
    name = os.fspath(path).lower()
    compressed = False
    for ending, full in (*_ALIASES.items(), *dict.fromkeys(COMPRESSIONS, "").items(), *_ALIASES.items()):
        if name.endswith(ending):
            compressed = compressed or ending in COMPRESSIONS
            name = name.removesuffix(ending) + full
    if compressed and name.endswith(_WHOLE_FILES):
        return None
    return next((format for ending, format in formats.items() if name.endswith(ending)), None)


def list_files(
    inputs: Sequence[Path], formats: Mapping[str, Format] = FORMATS
) -> Iterator[InputFile | Skipped]:
    """Every file that `inputs` names; folders are walked, their hidden files left out.

    An input is a file, a folder, a pattern (`textos/**/*.txt`) where no file has that name, or `-`. Links to
    folders are followed, after the rest; a folder is walked once, by whatever names it is reached.
    formats: the types of files wanted, `FORMATS` or `ROW_FORMATS`.
    Raises E_NOT_FOUND for a missing input, E_PERMISSION for a named folder that may not be read and
    E_DATA_FORMAT for a named file of another type. Inside a folder, such a file is `Skipped` as
    `unknown_format`, and what cannot be opened (no permission, a link to nothing) as `unreadable`.
    """
    for given in inputs:
        if given == STDIN:
            yield InputFile(given, "stdin", named=True)
        elif given.is_dir():
            with os_errors(given), os.scandir(given):  # may it be read at all?
                pass
            for found in walk(given):
                yield found if isinstance(found, Skipped) else _classified(found, formats)
        elif given.exists():
            format = format_of(given, formats)
            if format is None:
                raise _unknown(given, formats)
            yield InputFile(given, format, named=True)
        else:
            yield from _matching(given, formats)


def input_files(inputs: Sequence[Path]) -> Iterator[InputFile]:
    """The files alone. Raises what `list_files` raises."""
    return (found for found in list_files(inputs) if isinstance(found, InputFile))


def total_bytes(inputs: Sequence[Path]) -> int:
    """Bytes of all files that `inputs` names, on disk. Raises what `list_files` raises."""
    return sum(file.path.stat().st_size for file in input_files(inputs) if file.path != STDIN)


def walk(folder: Path) -> Iterator[Path | Skipped]:
    """Files below `folder`, sorted, hidden files and folders left out; links to folders come last."""
    queue, visited = [folder], set[tuple[int, int]]()
    errors: list[OSError] = []
    while queue:
        links: list[Path] = []
        for parent, folders, names in os.walk(queue.pop(0), onerror=errors.append):
            current = Path(parent)
            identity = (current.stat().st_dev, current.stat().st_ino)
            if identity in visited:  # two links to one folder, or one to a folder above
                folders.clear()
                continue
            visited.add(identity)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [current / name for name in folders if (current / name).is_symlink()]
            for path in (current / name for name in sorted(names) if not name.startswith(".")):
                if os.access(path, os.R_OK) and path.is_file():
                    yield path
                else:  # no permission, a link to nothing or to itself, a pipe, a socket
                    yield Skipped("unreadable", str(path))
        queue += links
    for error in errors:
        yield Skipped("unreadable", str(error.filename))


def _matching(pattern: Path, formats: Mapping[str, Format]) -> Iterator[InputFile | Skipped]:
    """What a pattern matches, sorted. Raises E_NOT_FOUND where that is nothing."""
    found: list[Path] = []
    if any(character in str(pattern) for character in "*?["):
        found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    if not found:
        raise SlmError(
            "E_NOT_FOUND",
            "a entrada não existe.",
            where=pattern,
            hint="Confira o caminho (ls) e repita o comando.",
        )
    for path in found:
        if path.is_file():
            yield _classified(path, formats) if os.access(path, os.R_OK) else Skipped("unreadable", str(path))
        elif not path.is_dir():
            yield Skipped("unreadable", str(path))


def _classified(path: Path, formats: Mapping[str, Format]) -> InputFile | Skipped:
    format = format_of(path, formats)
    if format is None or is_about(path.name):
        return Skipped("unknown_format", str(path))
    return InputFile(path, format, named=False)


def is_about(name: str) -> bool:
    """Whether a Markdown file of this name tells of the folder it is in: LICENCA.md, README.md."""
    lower = name.lower()
    return lower.endswith((".md", ".markdown")) and lower.startswith(_ABOUT)


def _unknown(path: Path, formats: Mapping[str, Format]) -> SlmError:
    what = "texto" if formats is FORMATS else "conversas"
    return SlmError(
        "E_DATA_FORMAT",
        f"não sei ler arquivos {path.suffix or 'sem extensão'} como {what}.",
        where=path,
        hint=f"Use {', '.join(formats)}, ou uma pasta com eles.",
    )
