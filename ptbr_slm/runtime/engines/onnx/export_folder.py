"""An export folder on disk: its manifest and its graph file, checked before ONNX Runtime sees them.

A graph names the files of its weights. A hostile or broken one may name any file of the machine, so every
name is checked first: relative, inside the folder also after symbolic links, and long enough. Only the few
fields of the ONNX protobuf that lead to tensors are walked (onnx/onnx, onnx/onnx.proto), without the onnx
package.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import Manifest, check_regular_files, read_manifest, sha256_file

GRAPH = "model.onnx"
DRAFT_GRAPH = "draft.onnx"
_HINT = "Use uma cópia íntegra do export, ou exporte de novo:  ptbr-slm export MODELO -o PASTA"

_CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Message -> field number -> message of that field, wherever tensors can lie."""

_NAME = 8
"""Field of TensorProto."""
_EXTERNAL_DATA = 13
"""Field of TensorProto: repeated (key, value) pairs, location, offset and length among them."""

_MAX_DEPTH = 32
"""Subgraphs within subgraphs; ours has none."""


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
        if self.draft_graph is not None:
            self._weights |= check_graph_file(self.draft_graph)
        unlisted = sorted(self._weights - self.manifest.files.keys())
        if unlisted:
            raise SlmError("E_MANIFEST", f"{unlisted[0]} não está no manifesto.", where=path, hint=_HINT)
        _check_hashes(path, self.manifest, self.manifest.files.keys() - self._weights)

    @property
    def graph(self) -> Path:
        """The model.onnx."""
        return self.path / GRAPH

    @property
    def draft_graph(self) -> Path | None:
        """The draft.onnx, where a draft layer rides."""
        return self.path / DRAFT_GRAPH if DRAFT_GRAPH in self.manifest.files else None

    @property
    def draft_acceptance(self) -> float:
        """What the draft layer's training measured, from 0 to 1; half where it does not say."""
        told = self.facts.get("draft")
        found = told.get("acceptance") if isinstance(told, dict) else None
        return min(1.0, max(0.0, float(found))) if isinstance(found, int | float) else 0.5

    @property
    def facts(self) -> dict[str, Any]:
        """What the exporter recorded: target, precision, what was measured."""
        return self.manifest.extra

    @property
    def file_bytes(self) -> int:
        """Size of the graphs and their weights."""
        names = {GRAPH, *self._weights, *({DRAFT_GRAPH} & self.manifest.files.keys())}
        return sum(int(self.manifest.files[name]["size"]) for name in names)

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


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """Which bytes of which file one tensor is."""

    name: str
    location: str
    offset: int
    length: int | None


def check_graph_file(graph: Path) -> set[str]:
    """Names of the weight files of `graph`, all found beside it and whole.

    Raises E_MODEL_INVALID for what is not an ONNX file, and for a weight file that is absolute, outside the
    folder (`..`, symbolic link), missing or too short.
    """
    folder = graph.parent.resolve()
    _check_inside(graph, folder, graph)
    locations: set[str] = set()
    sizes: dict[str, int] = {}
    for tensor in external_tensors(graph):
        if tensor.location not in locations:
            sizes[tensor.location] = _weight_file_size(folder, tensor.location, graph)
            locations.add(tensor.location)
        end = tensor.offset + (tensor.length or 0)
        if tensor.offset < 0 or (tensor.length or 0) < 0 or end > sizes[tensor.location]:
            raise _invalid(
                f"{tensor.location} está truncado: tem {sizes[tensor.location]} bytes, e o grafo pede {end}.",
                folder / tensor.location,
            )
    return locations


def external_tensors(graph: Path) -> Iterator[ExternalTensor]:
    """Every tensor of the file that is stored outside it. Raises E_MODEL_INVALID."""
    with os_errors(graph), graph.open("rb") as file:
        if not graph.stat().st_size:
            raise _invalid("model.onnx está vazio.", graph)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as content:
            try:
                found = list(_walk(content, "model", 0))
                if not any(number == 7 for number, _ in _fields(content)):
                    raise ValueError("sem grafo")
            except (ValueError, IndexError, UnicodeDecodeError) as error:
                detail = str(error)
                error.__traceback__ = None  # its frames hold views that keep the map open
                raise _invalid(f"model.onnx não é um arquivo ONNX ({detail}).", graph) from None
    yield from found


def _walk(content: memoryview, message: str, depth: int) -> Iterator[ExternalTensor]:
    if depth > _MAX_DEPTH:
        raise ValueError("subgrafos demais, um dentro do outro")
    if message == "tensor":
        pairs = [dict(_fields(value)) for number, value in _fields(content) if number == _EXTERNAL_DATA]
        entries = {_text(pair.get(1)): _text(pair.get(2)) for pair in pairs}
        if len(entries) != len(pairs):
            raise ValueError("um tensor diz duas vezes onde está")  # which one counts is the reader's choice
        if entries:
            length = int(entries["length"]) if "length" in entries else None
            name = next((_text(value) for number, value in _fields(content) if number == _NAME), "")
            location, offset = entries.get("location", ""), int(entries.get("offset", "0"))
            yield ExternalTensor(name, location, offset, length)
        return
    children = _CHILDREN[message]
    for number, value in _fields(content):
        if number in children:
            yield from _walk(value, children[number], depth + 1)


def _fields(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, bytes) of the length-delimited fields of a protobuf message; others are skipped."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            _, at = _varint(content, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            size, at = _varint(content, at)
            if at + size > len(content):
                raise ValueError("campo maior que o arquivo")
            yield number, content[at : at + size]
            at += size
        else:
            raise ValueError(f"campo de tipo {wire}")
        if number == 0 or at > len(content):
            raise ValueError("campo inválido")


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("número sem fim")


def _text(value: memoryview | None) -> str:
    return "" if value is None else bytes(value).decode("utf-8")


def _weight_file_size(folder: Path, location: str, graph: Path) -> int:
    windows, posix = PureWindowsPath(location), PurePosixPath(location)
    outside = windows.is_absolute() or posix.is_absolute() or windows.drive or ".." in windows.parts
    if outside or not location or "\0" in location:
        raise _invalid(f"o grafo aponta para um arquivo fora da pasta ({location!r}).", graph)
    path = folder / location
    _check_inside(path, folder, graph)
    if not path.is_file():
        raise _invalid(f"falta o arquivo de pesos {location}.", path)
    return path.stat().st_size


def _check_inside(path: Path, folder: Path, graph: Path) -> None:
    if not path.resolve().is_relative_to(folder):
        raise _invalid(f"{path.name} é um atalho para um arquivo fora da pasta.", graph)


def _invalid(message: str, where: Path) -> SlmError:
    return SlmError("E_MODEL_INVALID", message, where=where, hint=_HINT)
