"""Small corpora in packages: a pinned wheel of the package index, or data that other software installed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ptbr_slm.data.sources.origin import KIND, Task, fetch_error
from ptbr_slm.errors import SlmError, named_instead
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.manifest import sha256_file, write_manifest

_TIMEOUT_S = 900


class RawData(Protocol):
    """The raw file or folder of a corpus."""

    def obtain(self, scratch: Path) -> Path:
        """Where it is: put into `scratch`, or already on this machine. Raises E_FETCH."""

    def pins(self) -> Mapping[str, str]:
        """See `Origin.pins`."""


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
class Converted:
    """Raw data that become one JSONL file."""

    raw: RawData
    write_texts: Callable[[Path, Path], None]
    """(raw data, file to write): JSON lines with `text`, `source` and `license`."""

    def pins(self) -> Mapping[str, str]:
        """Those of the raw data."""
        return self.raw.pins()

    def bring(self, task: Task) -> Path:
        """The JSONL file. Raises E_FETCH, E_DISK_FULL or E_PERMISSION."""
        with _scratch(task.out) as scratch:
            raw = self.raw.obtain(scratch)
            with atomic_folder(task.out) as folder:
                self.write_texts(raw, folder / f"{task.name}.jsonl")
                (folder / "LICENCA.md").write_text(task.licence, encoding="utf-8")
                write_manifest(folder, KIND, name=task.name, **self.pins())
        return task.out / f"{task.name}.jsonl"


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
    return fetch_error(
        reason,
        where,
        "Confira a internet e o proxy (pip config list); sem rede, use textos seus em .txt ou .jsonl.",
    )
