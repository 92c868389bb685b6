"""`data fetch`: the texts of a source become JSONL beside a LICENCA.md.

A source is where its raw data come from, how they are written as JSONL, and its licence.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ptbr_slm.data.sources import dante, machado
from ptbr_slm.errors import SlmError, named_instead
from ptbr_slm.storage.atomic import atomic_folder, may_replace
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import read_manifest, sha256_file, write_manifest

_KIND = "fetched-data"
_TIMEOUT_S = 900


class Origin(Protocol):
    """Where the raw data of a source come from."""

    def obtain(self, scratch: Path) -> Path:
        """The raw file or folder, put into `scratch` or already on this machine. Raises E_FETCH."""

    def pins(self) -> Mapping[str, str]:
        """What is written into the manifest: a folder made from another version is fetched again."""


@dataclass(frozen=True, slots=True)
class PinnedWheel:
    """A wheel of the package index, which pip downloads: the user's mirrors and proxies work."""

    requirement: str
    sha256: str

    def obtain(self, scratch: Path) -> Path:
        """The wheel. Raises E_FETCH, also for one that is not what these texts were checked with."""
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
            *("--disable-pip-version-check", "--no-input", "--dest", str(scratch), self.requirement),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise _not_fetched("o download passou de 15 minutos", self.requirement) from error
        wheels = sorted(scratch.glob("*.whl"))
        if done.returncode or not wheels:
            raise _not_fetched(_reason(done.stderr), self.requirement)
        found = sha256_file(wheels[0])
        if found != self.sha256:
            raise _not_fetched(
                f"o arquivo baixado tem outro sha256 ({found[:12]}…, esperado {self.sha256[:12]}…)",
                wheels[0].name,
            )
        return wheels[0]

    def pins(self) -> Mapping[str, str]:
        """The requirement and the sha256."""
        return {"wheel": self.requirement, "wheel_sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class LocalData:
    """Data that other software has put on this machine."""

    find: Callable[[], Path]

    def obtain(self, scratch: Path) -> Path:
        """Where they are. Raises E_FETCH where they are not."""
        return self.find()

    def pins(self) -> Mapping[str, str]:
        """None: whatever is found is used."""
        return {}


@dataclass(frozen=True, slots=True)
class Source:
    """A corpus by name."""

    origin: Origin
    write_texts: Callable[[Path, Path], None]
    """(raw data, file to write): JSON lines with `text`, `source` and `license`."""
    licence: str
    """LICENCA.md."""


SOURCES: dict[str, Source] = {
    "dante": Source(PinnedWheel(dante.WHEEL, dante.WHEEL_SHA256), dante.write_texts, dante.LICENCE),
    "machado": Source(LocalData(machado.find), machado.write_texts, machado.LICENCE),
}
"""What `fetch` knows."""


def fetch(name: str, out: Path) -> Path:
    """Put the corpus `name` into the folder `out` and return its JSONL file.

    A folder that already holds it, intact, is used as it is, so a second call needs no network.
    Raises E_USAGE, E_FETCH, E_EXISTS, E_DISK_FULL or E_PERMISSION.
    """
    source = SOURCES.get(name)
    if source is None:
        raise SlmError(
            "E_USAGE",
            f"não conheço o conjunto de dados {name!r}.",
            where="ptbr-slm data fetch",
            hint="Use:  ptbr-slm data fetch " + "  ou  ".join(SOURCES),
        )
    texts = out / f"{name}.jsonl"
    if _is_fetched(out, name, source):
        return texts
    if not may_replace(out, _KIND):
        raise SlmError(
            "E_EXISTS",
            "o destino já existe e tem outras coisas: não vou substituí-lo.",
            where=out,
            hint="Escolha outra pasta em --output.",
        )
    with _scratch(out) as scratch:
        raw = source.origin.obtain(scratch)
        with atomic_folder(out) as folder:
            source.write_texts(raw, folder / texts.name)
            (folder / "LICENCA.md").write_text(source.licence, encoding="utf-8")
            write_manifest(folder, _KIND, name=name, **source.origin.pins())
    return texts


def _is_fetched(out: Path, name: str, source: Source) -> bool:
    if not (out / MANIFEST).is_file():
        return False
    try:
        manifest = read_manifest(out)
    except SlmError:
        return False  # damaged: fetched again, over itself
    made_from = {"name": name, **source.origin.pins()}
    return manifest.kind == _KIND and all(manifest.extra.get(key) == made_from[key] for key in made_from)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A temporary folder that errors do not name: they name `out`."""
    with (
        tempfile.TemporaryDirectory(prefix="ptbr-slm-fetch-") as temporary,
        named_instead(Path(temporary), out),
    ):
        yield Path(temporary)


def _reason(stderr: str) -> str:
    """The line of pip's stderr that says why."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else "pip não disse por quê"
    return next((line for line in lines if line.startswith("ERROR:")), last).removeprefix("ERROR: ")[:200]


def _not_fetched(reason: str, where: str) -> SlmError:
    return SlmError(
        "E_FETCH",
        f"não consegui baixar os textos: {reason}.",
        where=where,
        hint="Confira a internet e o proxy (pip config list); sem rede, use textos seus em .txt ou .jsonl.",
    )
