"""Where built TensorRT engines are stored: a folder for each combination of what an engine depends on.

An engine fits one model, one build of ONNX Runtime and TensorRT, one kind of card, one set of shapes. Each of
them is in the folder's name, so an engine is never opened for another; ONNX Runtime itself looks at less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.manifest import read_manifest, write_manifest
from ptbr_slm.system import cache_folder

Built = TypeVar("Built")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineKey:
    """What an engine depends on."""

    model_sha256: str
    """Of the graph and its weights together."""
    onnxruntime: str
    """Version."""
    tensorrt: tuple[int, int]
    capability: tuple[int, int]
    """Compute capability of the card: (7, 5) of a T4."""
    precision: str
    profiles: str
    """Digest of the shapes."""

    @property
    def folder_name(self) -> str:
        """As in `3f5a0c1d9b2e4f60-ort1.31.1-trt10.16-sm75-fp16-1a2b3c4d`."""
        major, minor = self.capability
        return "-".join(
            (
                self.model_sha256[:16],
                f"ort{self.onnxruntime}",
                f"trt{self.tensorrt[0]}.{self.tensorrt[1]}",
                f"sm{major}{minor}",
                self.precision,
                self.profiles,
            )
        )


def model_sha256(folder: Path) -> str:
    """Of an export's graph and weights, from its manifest (which was compared with the files). E_MANIFEST."""
    files = read_manifest(folder, hashes=False).files
    parts = sorted((name, entry["sha256"]) for name, entry in files.items() if name.startswith("model.onnx"))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def cache_root(environment: Mapping[str, str] | None = None) -> Path:
    """`tensorrt` in the user's cache."""
    return cache_folder(environment) / "tensorrt"


def reuse_or_build(
    folder: Path, open_in: Callable[[Path], Built], notify: Callable[[str], None] = lambda text: None
) -> Built:
    """What `open_in` makes of a folder of engines: the stored one, or a new one that it fills.

    open_in: opens the sessions, building the engines that it does not find in the folder it is given.
    A stored engine that does not open is thrown away and built again; a killed build leaves nothing behind.
    notify: receives in pt-BR why this takes minutes.
    """
    if folder.is_dir():
        try:
            return open_in(folder)
        except SlmError as error:
            if error.code != "E_MODEL_INVALID":  # too little memory, say: building anew would not help
                raise
            notify("O motor do TensorRT que estava guardado não abriu; ele será refeito.")
    notify(
        "Compilando o modelo para esta placa com o TensorRT: leva alguns minutos, e só na primeira vez "
        f"(fica em {folder})."
    )
    with atomic_folder(folder) as new:
        opened = open_in(new)
        write_manifest(new, "tensorrt-engines")  # so that they, and nothing else, may be thrown away
        return opened
