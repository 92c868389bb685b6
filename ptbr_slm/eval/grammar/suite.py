"""The published pairs: package data, read and checked against their sums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from ptbr_slm.errors import SlmError


@dataclass(frozen=True, slots=True)
class Pair:
    """A minimal pair. `contrast`: pairs of one phenomenon with the same number swap the same two forms."""

    id: str
    contrast: int
    good: str
    bad: str


@dataclass(frozen=True, slots=True)
class PhenomenonPairs:
    """A phenomenon as published; the texts are Portuguese. `register`: neutro, formal or norma-padrão."""

    name: str
    title: str
    register: str
    rule: str
    source: str
    caveat: str
    sha256: str
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Suite:
    """All phenomena of a version of the suite."""

    version: str
    licence: str
    phenomena: tuple[PhenomenonPairs, ...]

    def __getitem__(self, name: str) -> PhenomenonPairs:
        """The phenomenon of this name. Raises KeyError."""
        for one in self.phenomena:
            if one.name == name:
                return one
        raise KeyError(name)

    def in_registers(self, registers: Sequence[str]) -> tuple[PhenomenonPairs, ...]:
        """The phenomena of some registers, in order."""
        return tuple(one for one in self.phenomena if one.register in registers)


@cache
def load() -> Suite:
    """The suite of this package. Raises E_DATA_CORRUPT where a file is not what index.json says."""
    folder = files("ptbr_slm.eval.grammar") / "data" / "pairs"
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return Suite(
        version=str(index["version"]),
        licence=str(index["licence"]),
        phenomena=tuple(_read(folder, entry) for entry in index["phenomena"]),
    )


def _read(folder: Traversable, entry: dict[str, str]) -> PhenomenonPairs:
    name = entry["name"]
    content = (folder / f"{name}.jsonl").read_bytes()
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise SlmError(
            "E_DATA_CORRUPT",
            "um arquivo da suíte de gramática foi alterado (a soma não confere).",
            where=f"{name}.jsonl",
            hint="Instale o pacote de novo.",
        )
    rows = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    texts = {key: entry[key] for key in ("name", "title", "register", "rule", "source", "caveat", "sha256")}
    pairs = tuple(Pair(row["id"], row["contrast"], row["sentence_good"], row["sentence_bad"]) for row in rows)
    return PhenomenonPairs(**texts, pairs=pairs)
