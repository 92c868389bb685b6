"""The weights of a model folder: safetensors, in one file or in shards with an index. No torch here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ptbr_slm.errors import SlmError, os_errors

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NOT_A_MODEL = "Aponte para uma pasta com config.json e model.safetensors, como RUN/final."


@dataclass(frozen=True, slots=True)
class Deferred:
    """An array that is made when it is wanted, so that of many one at a time is in memory."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[], npt.NDArray[Any]]


Array = npt.NDArray[Any] | Deferred

_KINDS = ("bool", "uint8", "int8", "int16", "uint16", "float16", "int32", "uint32", "float32", "float64",
          "int64", "uint64")  # fmt: skip
"""NumPy's names of the types that safetensors writes, in its order: the widest are first in a file."""
_CODES = {name: "BOOL" if name == "bool" else name[0].upper() + re.sub(r"\D", "", name) for name in _KINDS}


def whole(array: Array) -> npt.NDArray[Any]:
    """The array itself, made where it is deferred."""
    return array.make() if isinstance(array, Deferred) else array


def write_safetensors(
    path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write named arrays inside an `atomic_folder`, one after the other, with `metadata` in the header.

    The same bytes as the library's `save_file`, which takes two copies of all arrays to make them (format:
    huggingface/safetensors, README). Raises E_DISK_FULL, E_PERMISSION or E_IO.
    """
    order = sorted(arrays, key=lambda name: (-_KINDS.index(arrays[name].dtype.name), name))
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    end = 0
    for name in order:
        array, begin = arrays[name], end
        end = begin + array.dtype.itemsize * math.prod(array.shape)
        kind = _CODES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with os_errors(path), path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            array = whole(arrays[name])
            assert array.shape == arrays[name].shape and array.dtype == arrays[name].dtype
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def stored_arrays(path: Path) -> dict[str, Deferred]:
    """The arrays of a safetensors file, each read when it is wanted. Raises SafetensorError."""
    file: Any = safe_open(path, framework="np")
    found = {}
    for name in file.keys():  # noqa: SIM118 - a safe_open handle is not iterable
        part = file.get_slice(name)
        dtype = np.dtype(next(kind for kind, code in _CODES.items() if code == part.get_dtype()))
        found[name] = Deferred(tuple(part.get_shape()), dtype, partial(file.get_tensor, name))
    return found


def parse_json_object(content: bytes, file: Path) -> dict[str, Any]:
    """The object that a JSON file of a model folder holds. Raises E_MODEL_INVALID, which names the file."""
    try:
        body = json.loads(content)
        if not isinstance(body, dict):
            raise ValueError("não é um objeto JSON")
    except (ValueError, RecursionError) as error:
        raise SlmError(
            "E_MODEL_INVALID", f"{file.name} quebrado ({error}).", where=file, hint=NOT_A_MODEL
        ) from error
    return body


class WeightReader:
    """Lazy access to a folder's safetensors (one file, or shards with an index) as float32 arrays."""

    def __init__(self, folder: Path, file: str = WEIGHTS) -> None:
        """Open the headers. file: the name of the one with all weights. Raises E_PICKLE, E_NOT_FOUND or
        E_MODEL_INVALID.
        """
        self.folder, self._file = folder, file
        self._files: dict[str, Path] = {}
        for path in self._weight_files():
            with os_errors(path):
                for name in _open(path).keys():  # noqa: SIM118 - a safe_open handle is not iterable
                    self._files[name] = path

    def names(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """One tensor as float32, whatever it is stored as. Raises E_MODEL_INVALID for a missing name or
        another shape.
        """
        if name not in self._files:
            raise self._missing(name)
        path = self._files[name]
        with os_errors(path):
            array = _as_float32(path, name)
        if array.shape != shape:
            raise SlmError(
                "E_MODEL_INVALID",
                f"o tensor {name} tem forma {array.shape}; config.json pede {shape}.",
                where=path,
                hint="A pasta mistura arquivos de modelos diferentes: use uma cópia íntegra.",
            )
        return array

    def same(self, one: str, other: str) -> bool:
        """Whether two stored tensors hold the same numbers."""
        slices = [_open(self._files[name]).get_slice(name) for name in (one, other)]
        if slices[0].get_shape() != slices[1].get_shape():
            return False
        arrays = []
        for name in (one, other):
            with os_errors(self._files[name]):
                arrays.append(_as_float32(self._files[name], name))
        return np.array_equal(arrays[0], arrays[1])

    def _missing(self, name: str) -> SlmError:
        """What to say of a tensor that is not there: under another name, it may be."""
        stored = next((key for key in self.names() if key.endswith("." + name)), None)
        if stored is not None:
            prefix = stored.removesuffix(name)
            return SlmError(
                "E_MODEL_INVALID",
                f"os tensores têm o prefixo {prefix} no nome ({stored} em vez de {name}): foram gravados de "
                "dentro do que embrulha o modelo" + (", o torch.compile." if "_orig_mod" in prefix else "."),
                where=self._files[stored],
                hint="Grave o modelo de novo onde ele foi feito, desembrulhado:  "
                f"modelo{'._orig_mod' if '_orig_mod' in prefix else '.module'}.save_pretrained(PASTA)",
            )
        found = ", ".join(self.names()[:3]) or "nenhum"
        return SlmError(
            "E_MODEL_INVALID",
            f"falta o tensor {name}; os primeiros dos {len(self._files)} que há são {found}.",
            where=self.folder,
            hint="Use uma cópia íntegra da pasta de um LlamaForCausalLM.",
        )

    def _weight_files(self) -> list[Path]:
        if (self.folder / self._file).is_file():
            return [self.folder / self._file]
        if (self.folder / INDEX).is_file():
            return self._shards()
        shards = sorted(self.folder.glob("model-*-of-*.safetensors"))
        if shards:
            return shards
        if list(self.folder.glob("*.bin")) or list(self.folder.glob("*.pt")):
            raise SlmError(
                "E_PICKLE",
                "a pasta só tem pesos em pickle (.bin/.pt), que podem executar código ao serem abertos.",
                where=self.folder,
                hint="Baixe a versão safetensors do modelo.",
            )
        raise SlmError("E_MODEL_INVALID", f"falta {self._file}.", where=self.folder, hint=NOT_A_MODEL)

    def _shards(self) -> list[Path]:
        """The files that the index names, all of them there and in this folder."""
        file = self.folder / INDEX
        with os_errors(file):
            named = parse_json_object(file.read_bytes(), file).get("weight_map")
        names = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
        for name in names:
            if Path(name).name != name or not (self.folder / name).is_file():
                raise SlmError(
                    "E_MODEL_INVALID",
                    f"falta o arquivo de pesos {name}, que {INDEX} pede.",
                    where=self.folder,
                    hint="Baixe a pasta do modelo inteira.",
                )
        if not names:
            raise SlmError(
                "E_MODEL_INVALID",
                f"{INDEX} não diz onde estão os pesos.",
                where=self.folder,
                hint=NOT_A_MODEL,
            )
        return [self.folder / name for name in names]


def _as_float32(path: Path, name: str) -> npt.NDArray[np.float32]:
    file = _open(path)
    kind = file.get_slice(name).get_dtype()
    if kind == "BF16":
        return _read_bfloat16(path, name)
    if kind not in ("F16", "F32", "F64"):
        raise SlmError(
            "E_MODEL_INVALID",
            f"o tensor {name} está em {kind}; lemos F32, F16 e BF16.",
            where=path,
            hint="Use a versão não quantizada do modelo.",
        )
    return np.asarray(file.get_tensor(name)).astype(np.float32, copy=False)


def _read_bfloat16(path: Path, name: str) -> npt.NDArray[np.float32]:
    """NumPy has no bfloat16, but it is the upper half of a float32. `_open` has checked the header."""
    with path.open("rb") as raw:
        header_size = int.from_bytes(raw.read(8), "little")
        entry = json.loads(raw.read(header_size))[name]
        start, end = entry["data_offsets"]
        raw.seek(8 + header_size + start)
        halves = np.frombuffer(raw.read(end - start), dtype="<u2").reshape(entry["shape"])
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except SafetensorError as error:
        raise SlmError(
            "E_MODEL_INVALID",
            f"{path.name} está truncado ou não é safetensors ({error}).",
            where=path,
            hint="Use uma cópia íntegra da pasta.",
        ) from error
