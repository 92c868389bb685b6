"""The answers that a model has given, kept, so that none is asked for twice.

A file for each model, task file, data and version of the protocol, in `eval` below the user's cache and not
in the folder of results: `eval` with another output folder, another list of tasks or a larger `--limit` then
finds them too. The first line says what the answers are of; each further line holds a batch of answers, and
is written when the batch is done. A line that a kill cut in half is cut off when the file is opened again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.eval.results import BitsRecord, bits_json, bits_of, item_json, item_of
from ptbr_slm.eval.tasks.metrics import ItemResult
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.system import cache_folder

PROTOCOL = 1
"""Raised by whoever changes how items are put to a model or judged: older answers are then of no use."""


@dataclass(frozen=True, slots=True)
class AnswersKey:
    """What answers are of: where one of these differs, so may the answers."""

    subject: str
    """`Subject.identity`."""
    task: str
    task_sha256: str
    data_sha256: str
    protocol: int = PROTOCOL

    @property
    def file(self) -> Path:
        """Below the cache: a folder for each subject."""
        folder = hashlib.sha256(self.subject.encode()).hexdigest()[:16]
        digest = hashlib.sha256(repr(dataclasses.astuple(self)).encode()).hexdigest()[:16]
        return Path(folder, f"{self.task}-{digest}.jsonl")


class Answers:
    """The known answers to one task, by item; new ones are appended to the file.

    Where the file cannot be written, `failure` says why, and the answers live in memory only.
    """

    def __init__(self, key: AnswersKey, root: Path | None) -> None:
        """root: the folder that holds the files; None keeps nothing on the disk, and knows nothing."""
        self._known: dict[tuple[str, str], ItemResult] = {}
        self._path = None if root is None else root / key.file
        self.failure: SlmError | None = None
        self._attempt(lambda path: self._open(path, key))

    def __len__(self) -> int:
        return len(self._known)

    def get(self, id: str, sha256: str) -> ItemResult | None:
        """The answer to the item of this id and content, where it is known."""
        return self._known.get((id, sha256))

    def add(self, results: Sequence[ItemResult]) -> None:
        """Keep the answers of a batch."""
        for result in results:
            self._known[result.id, result.sha256] = result
        line = _dump({"answers": [item_json(result) for result in results]})
        self._attempt(lambda path: _append(path, line))

    def _open(self, path: Path, key: AnswersKey) -> None:
        header = _dump({"kind": "eval-answers", **dataclasses.asdict(key)})
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        whole = lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines
        if not whole or whole[0] != header:  # of something else, whatever its name: begin anew
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(header)
            return
        kept = len(header)
        for line in whole[1:]:
            try:
                results = [item_of(record) for record in json.loads(line)["answers"]]
            except (ValueError, KeyError, TypeError, AttributeError):
                break
            self._known |= {(result.id, result.sha256): result for result in results}
            kept += len(line)
        if kept < sum(map(len, lines)):
            os.truncate(path, kept)

    def _attempt(self, action: Callable[[Path], None]) -> None:
        if self._path is None:
            return
        try:
            with os_errors(self._path):
                action(self._path)
        except SlmError as error:
            self.failure, self._path = error, None


def known_bits(key: AnswersKey, root: Path | None) -> BitsRecord | None:
    """What a text was measured to cost, where that is kept."""
    if root is None or not (root / key.file).is_file():
        return None
    try:
        kept = json.loads((root / key.file).read_bytes())
        if kept["key"] != dataclasses.asdict(key):
            return None
        return bits_of(kept["record"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_bits(key: AnswersKey, root: Path | None, record: BitsRecord) -> None:
    """Keep it, where that can be done."""
    if root is not None:
        with suppress(SlmError):
            write_json(root / key.file, {"key": dataclasses.asdict(key), "record": bits_json(record)})


def _append(path: Path, line: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(line)


def _dump(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def answers_root() -> Path:
    """`eval` in the user's cache for this package."""
    return cache_folder() / "eval"
