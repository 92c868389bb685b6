"""The file of `/salvar`: a conversation a line, in the `messages` format of JSON Lines that `tune` reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from ptbr_slm.chat import parse_messages
from ptbr_slm.errors import SlmError, os_errors

_LONGEST_LINE = 1 << 24
"""Bytes of a first line that are looked at."""


class ConversationFile:
    """Saves one conversation. Saved again, it replaces itself; what else the file holds stays."""

    def __init__(self) -> None:
        self.path: Path | None = None
        """Where it was saved last."""
        self._start = 0
        self._line = b""

    def save(self, path: Path, conversation: dict[str, Any]) -> None:
        """Write the conversation as the last line of the file, which may exist if it holds conversations.

        Raises E_EXISTS for a file that holds anything else, E_NOT_FOUND, E_PERMISSION, E_DISK_FULL, E_IO.
        """
        line = json.dumps(conversation, ensure_ascii=False).encode() + b"\n"
        with os_errors(path):
            if path.exists():
                _refuse_foreign(path)
            else:
                path.open("xb").close()
            with path.open("r+b") as file:
                start = self._start if self._is_last(path, file) else _end(file)
                file.seek(start)
                file.write(line)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        self.path, self._start, self._line = path, start, line

    def _is_last(self, path: Path, file: BinaryIO) -> bool:
        """Whether the file still ends with what was saved last."""
        if path != self.path:
            return False
        file.seek(self._start)
        return file.read(len(self._line) + 1) == self._line


def _end(file: BinaryIO) -> int:
    """Where a new line begins; ends the last line where its end is missing."""
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            size += file.write(b"\n")
    return size


def _refuse_foreign(path: Path) -> None:
    """Raise E_EXISTS for what is not a file of conversations, nor empty."""
    if path.is_file():
        with path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
        if not first:
            return
        try:
            row = json.loads(first)
            parse_messages(row["messages"] if isinstance(row, dict) else None)
            return
        except (ValueError, KeyError, SlmError):
            pass
    raise SlmError(
        "E_EXISTS",
        "já existe e não é um arquivo de conversas (JSON Lines com messages): não mexo nele.",
        where=path,
        hint="Escolha outro nome, por exemplo:  /salvar conversa.jsonl",
    )
