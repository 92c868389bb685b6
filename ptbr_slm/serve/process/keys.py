"""API keys from a file or the environment; never from the command line, which all users of a machine see."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors

VARIABLE = "PTBR_SLM_API_KEY"

_NEW_KEY = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


def read_keys(file: Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of the file (one a line, `#` begins a comment) and that of the variable, each once.

    Raises E_NOT_FOUND, E_PERMISSION, E_USAGE for a file without any or a key that no header can carry.
    """
    found = [environment.get(VARIABLE, "").strip()]
    if file is not None:
        with os_errors(file):
            text = file.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines()]
        listed = [line for line in lines if line and not line.startswith("#")]
        if not listed:
            raise SlmError(
                "E_USAGE",
                "o arquivo de chaves não tem nenhuma chave.",
                where=file,
                hint=f"Ponha uma chave por linha. Para criar uma:  {_NEW_KEY}",
            )
        found += listed
    keys = tuple(dict.fromkeys(filter(None, found)))
    for key in keys:
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise SlmError(
                "E_USAGE",
                "uma das chaves tem espaço, acento ou caractere de controle, que um cabeçalho não leva.",
                where=file if key in found[1:] and file else VARIABLE,
                hint=f"Use letras, números e - _ . Para criar uma chave:  {_NEW_KEY}",
            )
    return keys


def readable_by_others(file: Path) -> bool:
    """Whether other users of this machine may read it (never so on Windows, where the mode does not tell)."""
    return os.name == "posix" and bool(file.stat().st_mode & 0o077)
