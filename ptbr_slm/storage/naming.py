"""What people and clients call a model: a name from its folder's path, and a fingerprint from its files."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder

_PLACES = re.compile(r"export(-.+)?|final|latest|checkpoints|step-\d+|modelos?|models?")
"""Names that say what a folder holds and not which model: `runs/meu/export` is `meu`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")


def name_of(path: Path) -> str:
    """What clients call the model in a folder: the last part of its path that names a model.

    Letters lose their accents, other characters that do not suit a URL become `-`. Without any such part:
    `ptbr-slm`.
    """
    parts = [part for part in path.resolve().parts if part != path.resolve().anchor]
    found = next((part for part in reversed(parts) if not _PLACES.fullmatch(part)), "")
    return _suited(found)[:64] or "ptbr-slm"


def names_of(paths: Sequence[Path]) -> list[str]:
    """As `name_of`, of models side by side: those of one name have their folder's behind it.

    `runs/meu/export-int8` and `runs/meu/export-fp32` are `meu/export-int8` and `meu/export-fp32`.
    """
    names = [name_of(path) for path in paths]
    return [
        name if names.count(name) == 1 else f"{name}/{_suited(path.resolve().name)}"[:64]
        for name, path in zip(names, paths, strict=True)
    ]


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that a client could not send, or that stands twice. Raises E_USAGE."""
    for name in names:
        if not _NAME.fullmatch(name):
            raise SlmError(
                "E_USAGE",
                f"{name!r} não serve como nome de modelo.",
                where="--name, --model",
                hint="Use letras sem acento, números e . _ - : /, até 64, começando por letra ou número.",
            )
        if names.count(name) > 1:
            raise SlmError(
                "E_USAGE",
                f"há dois modelos com o nome {name!r}.",
                where="--name, --model",
                hint="Dê outro nome a um deles:  --model OUTRO=PASTA",
            )


def fingerprint_of(folder: ModelFolder) -> str:
    """16 hex digits that change with any file that is served.

    From the hashes in the manifest, or from the files' own where there is none.
    """
    manifest = folder.manifest
    if manifest is None:
        return folder.sha256[:16]
    digest = hashlib.sha256()
    for name, facts in sorted(manifest.files.items()):
        digest.update(f"{name} {facts['sha256']}\n".encode())
    return digest.hexdigest()[:16]


def named(text: str) -> tuple[str, Path]:
    """(name, folder) of `NOME=PASTA`, as `--model` takes it. Raises E_USAGE."""
    name, equals, folder = text.partition("=")
    if not equals or not folder:
        raise SlmError(
            "E_USAGE",
            f"--model espera NOME=PASTA, e recebeu {text!r}.",
            where="--model",
            hint="Por exemplo:  --model conversa=runs/conversa/export",
        )
    return name, Path(folder)


def _suited(text: str) -> str:
    plain = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-._")
