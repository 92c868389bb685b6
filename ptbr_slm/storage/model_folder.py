"""The model folder: a Hugging Face Llama folder plus our manifest. No torch here.

config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json  manifest.json
chat_template.jinja and other companions, where the model that a run began from had them

Folders from elsewhere have no manifest of ours and open all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ptbr_slm.config import ModelConfig, token_ids
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import write_bytes, write_json, write_text
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import check_regular_files, read_manifest, write_manifest
from ptbr_slm.tokenizer import Tokenizer

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
COMPANIONS = (
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""What a Llama folder may hold beside shape, weights and tokenizer.json. Other tools read it, so it travels
with the model: to exports, and through a training."""
_NOT_A_MODEL = "Aponte para uma pasta com config.json e model.safetensors, como RUN/final."


def write_model_files(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, npt.NDArray[np.float32]],
    tokenizer: Tokenizer,
    companions: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write the files of a model folder, without its manifest, into `folder` (inside `atomic_folder`).

    weights: Llama's names -> arrays, as `Llama.to_hf_weights` gives them. companions: files of the model that
    this one was made from, kept as they are (see `read_companions`); without, ours are written. Call
    `write_manifest` last.
    """
    write_json(folder / "config.json", config.to_hf())
    eos = config.eos_token_ids
    generation = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "do_sample": True,
        "temperature": 0.8,
        "top_p": 0.95,
    }
    write_json(folder / "generation_config.json", generation)
    write_text(folder / "tokenizer.json", tokenizer.to_json())
    names = tokenizer.hf_config(
        config.max_seq_len, bos=config.bos_token_id, eos=eos[0] if eos else None, pad=config.pad_token_id
    )
    write_json(folder / "tokenizer_config.json", names)
    for name, content in companions.items():
        write_bytes(folder / name, content)
    write_safetensors(folder / WEIGHTS, weights)


def read_companions(folder: Path) -> dict[str, bytes]:
    """The content of each of `COMPANIONS` that the folder has, by name."""
    found = {}
    for name in COMPANIONS:
        if (folder / name).is_file():
            with os_errors(folder / name):
                found[name] = (folder / name).read_bytes()
    return found


def write_safetensors(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays inside an `atomic_folder`. Raises E_DISK_FULL, E_PERMISSION or E_IO."""
    with os_errors(path):
        try:
            save_file(dict(arrays), path, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk arrives as this, with the errno in its text
            raise _save_error(error) from error


def seal_model_folder(folder: Path, **extra: Any) -> None:
    """Write the manifest of a finished model folder."""
    write_manifest(folder, "model", **extra)


def check_model_folder(folder: Path, *, code: str = "E_MODEL_INVALID") -> None:
    """Refuse what is not a model folder, or whose files differ from its manifest.

    Raises E_NOT_FOUND, E_PICKLE, `code` or E_SCHEMA.
    """
    if folder.is_file() and folder.suffix in (".pt", ".pth", ".bin", ".ckpt", ".pkl"):
        raise SlmError(
            "E_PICKLE",
            f"{folder.name} parece um arquivo pickle, que pode executar código ao ser aberto.",
            where=folder,
            hint="Converta para safetensors onde ele foi criado e aponte para a pasta do modelo.",
        )
    if not folder.exists():
        raise SlmError("E_NOT_FOUND", "a pasta do modelo não existe.", where=folder, hint=_NOT_A_MODEL)
    if folder.is_dir():
        check_regular_files(folder, code)
    if (folder / MANIFEST).exists():
        read_manifest(folder, code=code)
    if not (folder / "config.json").is_file():
        raise SlmError(
            "E_MODEL_INVALID",
            "a pasta não tem um modelo (falta config.json).",
            where=folder,
            hint=_NOT_A_MODEL,
        )


def read_config(folder: Path) -> ModelConfig:
    """The `ModelConfig` of a model folder. Raises E_MODEL_INVALID.

    Where generation_config.json names the tokens that end a text, it is believed, as transformers does: chat
    models end a turn with another token than a document; null means that none does. A head that is stored and
    differs from the embedding counts, whatever `tie_word_embeddings` says: also as in transformers 5
    (modeling_utils.py, `tie_weights`).
    """
    config = ModelConfig.from_hf(_read_json(folder / "config.json"), where=str(folder / "config.json"))
    if config.tie_embeddings and _has_own_head(folder):
        config = replace(config, tie_embeddings=False)
    path = folder / "generation_config.json"
    body = _read_json(path) if path.is_file() else {}
    if "eos_token_id" not in body:
        return config
    eos = body["eos_token_id"]
    try:
        return replace(config, eos_token_ids=token_ids(eos))
    except (TypeError, ValueError) as error:
        raise SlmError(
            "E_MODEL_INVALID", f"eos_token_id inválido ({eos!r}).", where=path, hint=_NOT_A_MODEL
        ) from error


def _has_own_head(folder: Path) -> bool:
    """Whether a head is stored beside the embedding, with other numbers."""
    try:
        weights = WeightReader(folder)
        return _HEAD in weights and _EMBEDDING in weights and not weights.same(_HEAD, _EMBEDDING)
    except SlmError:  # no weights, as in an export, or broken ones, which are told where they are read
        return False


def check_vocabulary(config: ModelConfig, tokenizer: Tokenizer, where: Path) -> None:
    """Refuse a tokenizer with more tokens than the embedding has rows. Raises E_TOKENIZER_MISMATCH."""
    rows, tokens = config.vocab_size, tokenizer.vocab_size
    if tokens <= rows:
        return
    names = [tokenizer.token_name(i) for i in range(rows, tokens)]
    told = ", ".join(f"{name!r} (id {rows + i})" for i, name in enumerate(names[:3]) if name is not None)
    added = all(rows + i in tokenizer.added_ids for i in range(len(names)))
    raise SlmError(
        "E_TOKENIZER_MISMATCH",
        f"o tokenizador tem {tokens} tokens, e o embedding do modelo só {rows} linhas"
        + (f": falta a de {told}" if told else "")
        + (f" e mais {len(names) - 3}." if len(names) > 3 else "."),
        where=where,
        hint="São tokens acrescentados depois do treino: tire-os de added_tokens no tokenizer.json, "
        f"ou aumente o modelo onde ele foi feito, com resize_token_embeddings({tokens})."
        if added
        else "Use o tokenizer.json com que este modelo foi treinado.",
    )


def read_chat_template(folder: Path) -> str | None:
    """The Jinja template that turns a conversation into a prompt, if the folder has one."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        with os_errors(file):
            return file.read_text(encoding="utf-8-sig", errors="replace")
    settings = folder / "tokenizer_config.json"
    found = _read_json(settings).get("chat_template") if settings.is_file() else None
    if isinstance(found, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    with os_errors(path):
        raw = path.read_bytes()
    try:
        body = json.loads(raw)
        if not isinstance(body, dict):
            raise ValueError("não é um objeto JSON")
    except (ValueError, RecursionError) as error:
        raise SlmError(
            "E_MODEL_INVALID", f"{path.name} quebrado ({error}).", where=path, hint=_NOT_A_MODEL
        ) from error
    return body


class WeightReader:
    """Lazy access to a folder's safetensors (one file, or shards with an index) as float32 arrays."""

    def __init__(self, folder: Path) -> None:
        """Open the headers. Raises E_PICKLE, E_NOT_FOUND or E_MODEL_INVALID."""
        self.folder = folder
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
        if (self.folder / WEIGHTS).is_file():
            return [self.folder / WEIGHTS]
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
        raise SlmError("E_MODEL_INVALID", "falta model.safetensors.", where=self.folder, hint=_NOT_A_MODEL)

    def _shards(self) -> list[Path]:
        """The files that the index names, all of them there and in this folder."""
        named = _read_json(self.folder / INDEX).get("weight_map")
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
                hint=_NOT_A_MODEL,
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


def _save_error(error: SafetensorError) -> OSError:
    import errno

    text = str(error)
    known = {"os error 28": errno.ENOSPC, "os error 13": errno.EACCES, "os error 30": errno.EROFS}
    return OSError(next((n for key, n in known.items() if key in text), errno.EIO), text)
