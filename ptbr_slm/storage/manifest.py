"""manifest.json: the schema, the kind of folder, and size and sha256 of every file in it.

Written last, it is the commit point of a folder: without a manifest that agrees, the folder is not ours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.version import __version__

SCHEMA = 1
NAME = "manifest.json"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that was read and agreed with its folder."""

    kind: str
    """`model`, `checkpoint`, `export` or `prepared-data`."""
    files: dict[str, dict[str, Any]]
    """Relative POSIX path -> {"size": bytes, "sha256": hex}."""
    extra: dict[str, Any]
    """Whatever else the writer recorded: target, precision, measured parity, ..."""


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with os_errors(path), path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, kind: str, **extra: Any) -> None:
    """Hash every file below `folder` and write its manifest last."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256_file(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / NAME
    }
    body = {"schema": SCHEMA, "kind": kind, "ptbr_slm": __version__, "files": files, **extra}
    write_json(folder / NAME, body)


def amend_manifest(folder: Path, **extra: Any) -> None:
    """Record more in a manifest that was just written, of a folder that has not changed since."""
    write_json(folder / NAME, json.loads((folder / NAME).read_bytes()) | extra)


def read_manifest(
    folder: Path,
    *,
    code: str = "E_MANIFEST",
    hashes: bool = True,
    hash_of: Callable[[Path], str] = sha256_file,
) -> Manifest:
    """Read and check a folder's manifest: schema, every file's size, and (unless `hashes=False`) its sha256.

    hash_of: gives a file's hex sha256, for a caller that needs it elsewhere too.
    Raises `code` (say E_CHECKPOINT_CORRUPT) where the folder does not agree, E_SCHEMA where it comes from a
    newer version, E_NOT_FOUND where there is no manifest.
    """
    body = _parse(folder / NAME, code)
    if body["schema"] > SCHEMA:
        raise SlmError(
            "E_SCHEMA",
            f"feito por uma versão mais nova do ptbr-slm (schema {body['schema']} > {SCHEMA}).",
            where=folder,
            hint="Atualize com:  pip install -U ptbr-slm",
        )
    for name, expected in body["files"].items():
        _check_file(folder, name, expected, code, hash_of if hashes else None)
    extra = {k: v for k, v in body.items() if k not in ("schema", "kind", "files")}
    return Manifest(kind=body["kind"], files=body["files"], extra=extra)


def check_regular_files(folder: Path, code: str) -> None:
    """Refuse a folder with anything but files and folders in it: reading a FIFO or device would never end."""
    with os_errors(folder):
        odd = [
            path
            for path in sorted(folder.iterdir())
            if path.exists() and not (path.is_file() or path.is_dir())
        ]
    if odd:
        raise SlmError(code, f"{odd[0].name} não é um arquivo comum.", where=odd[0], hint=_REDO)


def _parse(path: Path, code: str) -> dict[str, Any]:
    with os_errors(path):
        raw = path.read_bytes()
    try:
        body: dict[str, Any] = json.loads(raw)
        well_formed = (
            isinstance(body["schema"], int)
            and isinstance(body["kind"], str)
            and all(
                isinstance(f["size"], int) and isinstance(f["sha256"], str) for f in body["files"].values()
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        well_formed = False
    if not well_formed:
        raise SlmError(code, "o manifesto está quebrado.", where=path, hint=_REDO)
    return body


def _check_file(
    folder: Path, name: str, expected: dict[str, Any], code: str, hash_of: Callable[[Path], str] | None
) -> None:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise SlmError(code, f"o manifesto aponta para fora da pasta ({name}).", where=folder, hint=_REDO)
    if not path.is_file():
        raise SlmError(code, f"falta o arquivo {name}.", where=path, hint=_REDO)
    size = path.stat().st_size
    if size != expected["size"]:
        raise SlmError(
            code, f"{name} tem {size} bytes; o manifesto diz {expected['size']}.", where=path, hint=_REDO
        )
    if hash_of is not None and hash_of(path) != expected["sha256"]:
        raise SlmError(code, f"{name} está corrompido (o sha256 não confere).", where=path, hint=_REDO)


_REDO = "Use uma cópia íntegra da pasta, ou repita o comando que a criou."
