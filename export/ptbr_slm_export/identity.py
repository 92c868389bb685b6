"""Which model an export was made from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ptbr_slm.storage.manifest import sha256_file


def source_sha256(source: Path) -> str:
    """Identity of a model folder: sha256 over the hashes of its configuration, tokenizer and weights."""
    digest = hashlib.sha256()
    for path in (
        source / "config.json",
        source / "tokenizer.json",
        *sorted(source.glob("model*.safetensors")),
    ):
        if path.is_file():
            digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()
