"""An export folder on disk: its manifest, checked in full, and what it says about the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.onnx.graph_file import check_graph_file
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import Manifest, check_regular_files, read_manifest, sha256_file

GRAPH = "model.onnx"
_HINT = "Use uma cópia íntegra do export, ou exporte de novo:  ptbr-slm export MODELO -o PASTA"


class ExportFolder:
    """A folder that `ptbr-slm export` wrote. Everything but the weights' hash is checked on opening."""

    def __init__(self, path: Path) -> None:
        """Raises E_MANIFEST, E_SCHEMA or E_MODEL_INVALID."""
        self.path = path
        check_regular_files(path, "E_MANIFEST")
        if not (path / MANIFEST).exists():
            raise SlmError("E_MANIFEST", "falta o manifest.json do export.", where=path, hint=_HINT)
        self.manifest = read_manifest(path, hashes=False)
        if self.manifest.kind != "export" or GRAPH not in self.manifest.files:
            raise SlmError(
                "E_MANIFEST", f"a pasta é de outro tipo ({self.manifest.kind}).", where=path, hint=_HINT
            )
        self._weights = check_graph_file(self.graph)
        unlisted = sorted(self._weights - self.manifest.files.keys())
        if unlisted:
            raise SlmError("E_MANIFEST", f"{unlisted[0]} não está no manifesto.", where=path, hint=_HINT)
        _check_hashes(path, self.manifest, self.manifest.files.keys() - self._weights)

    @property
    def graph(self) -> Path:
        """The model.onnx."""
        return self.path / GRAPH

    @property
    def facts(self) -> dict[str, Any]:
        """What the exporter recorded: target, precision, what was measured."""
        return self.manifest.extra

    @property
    def file_bytes(self) -> int:
        """Size of the graph and its weights."""
        return sum(int(self.manifest.files[name]["size"]) for name in {GRAPH, *self._weights})

    @contextmanager
    def weights_checked(self) -> Iterator[None]:
        """Check the weights' sha256 while the block runs, on another thread; raises E_MANIFEST at its end.

        Opening an 85m takes no longer for it: the session is built meanwhile.
        """
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(_check_hashes, self.path, self.manifest, self._weights)
            try:
                yield
            finally:
                pending.result()  # a damaged file is the better explanation of whatever the block raised


def _check_hashes(folder: Path, manifest: Manifest, names: Iterable[str]) -> None:
    for name in sorted(names):
        if sha256_file(folder / name) != manifest.files[name]["sha256"]:
            raise SlmError(
                "E_MANIFEST",
                f"{name} está corrompido (o sha256 não confere).",
                where=folder / name,
                hint=_HINT,
            )
