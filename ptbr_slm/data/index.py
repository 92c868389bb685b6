"""index.json: what the prepared data are, with the size and sha256 of every file, and its own two sums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import write_json

NAME = "index.json"
SCHEMA = 1
KIND = "prepared-data"
SPLITS = ("train", "valid")
CONTENT = ("dtype", "vocab_size", "tokenizer_sha256", "bos_id", "eos_id", "splits")
"""The keys that make the identity of the data: the same tokens in the same order have the same `sha256`."""
REDO = "Prepare de novo com:  ptbr-slm data prepare TEXTOS -o PASTA --tokenizer tokenizer.json"


def write_index(folder: Path, body: dict[str, Any]) -> None:
    """Write `body` with its schema, kind, identity (`sha256`) and checksum (`index_sha256`) added."""
    full = {"schema": SCHEMA, "kind": KIND, **body, "sha256": _digest({key: body[key] for key in CONTENT})}
    write_json(folder / NAME, {**full, "index_sha256": _digest(full)})


def read_index(path: Path) -> dict[str, Any]:
    """The index at `path`, checked against its own sums. Raises E_NOT_FOUND, E_DATA_CORRUPT or E_SCHEMA."""
    with os_errors(path):
        raw = path.read_bytes()
    try:
        body = json.loads(raw)
        schema = body["schema"]
        if body["kind"] != KIND or not isinstance(schema, int):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise corrupt("o índice dos dados está quebrado.", path) from error
    if schema > SCHEMA:
        raise SlmError(
            "E_SCHEMA",
            f"dados feitos por uma versão mais nova do ptbr-slm (schema {schema} > {SCHEMA}).",
            where=path,
            hint="Atualize com:  pip install -U ptbr-slm",
        )
    if body.pop("index_sha256", None) != _digest(body):
        raise corrupt("o índice dos dados foi alterado (a soma não confere).", path)
    return body  # type: ignore[no-any-return]


def corrupt(message: str, where: Path | str) -> SlmError:
    """E_DATA_CORRUPT with the usual advice."""
    return SlmError("E_DATA_CORRUPT", message, where=where, hint=REDO)


def _digest(value: dict[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
