"""The model folder: a Hugging Face Llama folder plus our manifest. No torch here.

config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json  manifest.json
chat_template.jinja and other companions, where the model that a run began from had them

Folders from elsewhere have no manifest of ours and open all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ptbr_slm.config import ModelConfig, token_ids
from ptbr_slm.demo import HIDDEN, MACHADO, model_path
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import write_bytes, write_json, write_text
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import (
    Manifest,
    check_regular_files,
    read_manifest,
    sha256_file,
    write_manifest,
)
from ptbr_slm.storage.weights import (
    EMBEDDING,
    HEAD,
    NOT_A_MODEL,
    WEIGHTS,
    Array,
    WeightReader,
    parse_json_object,
    write_safetensors,
)
from ptbr_slm.tokenizer import Tokenizer

COMPANIONS = (
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""What a Llama folder may hold beside shape, weights and tokenizer.json. Other tools read it, so it travels
with the model: to exports, and through a training."""
FURTHER_TEMPLATES = "additional_chat_templates"
"""The folder of the templates that have a name, which travel too."""
_KEPT = frozenset({"config.json", "tokenizer.json", *COMPANIONS})
"""Files that stay in memory once they are read: a few MB, against the weights' hundreds."""
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")


class ModelFolder:
    """A model folder, opened: each file is read at most once, when it is first asked for.

    Pass it on instead of its path. `check` compares the folder with its manifest, hashes included, and is
    what reads the weights' file from end to end; the tensors are read through `weights`.
    """

    def __init__(self, path: Path) -> None:
        """Read nothing yet: for a folder that is checked elsewhere, or later.

        path: or the name of a model that comes with the package (`ptbr_slm.demo`).
        """
        self.path = model_path(path)
        self._contents: dict[str, bytes | None] = {}
        self._hashes: dict[Path, str] = {}
        self._checked = False

    @classmethod
    def open(cls, path: Path, *, code: str = "E_MODEL_INVALID") -> ModelFolder:
        """A folder that agrees with its manifest, if it has one. Raises what `check` raises."""
        folder = cls(path)
        folder.check(code=code)
        return folder

    @classmethod
    def of(cls, source: Path | str | ModelFolder) -> ModelFolder:
        """`source` itself, or the folder at that path, of which nothing is read yet."""
        return source if isinstance(source, ModelFolder) else cls(Path(source))

    def check(self, *, code: str = "E_MODEL_INVALID") -> None:
        """Refuse what is not a model folder, or whose files differ from its manifest. Done once.

        Raises E_NOT_FOUND, E_PICKLE, `code` or E_SCHEMA.
        """
        if self._checked:
            return
        path = self.path
        if path.is_file() and path.suffix in _PICKLES:
            raise SlmError(
                "E_PICKLE",
                f"{path.name} parece um arquivo pickle, que pode executar código ao ser aberto.",
                where=path,
                hint="Converta para safetensors onde ele foi criado e aponte para a pasta do modelo.",
            )
        if not path.exists():
            raise SlmError(
                "E_NOT_FOUND",
                "a pasta do modelo não existe.",
                where=path,
                hint=f"{NOT_A_MODEL} Para gerar texto, há um modelo que vem com o pacote:  {MACHADO}",
            )
        if path.is_dir():
            check_regular_files(path, code)
        if (path / MANIFEST).exists():
            self.manifest = read_manifest(path, code=code, hash_of=self._sha256)
        if not (path / "config.json").is_file():
            raise SlmError(
                "E_MODEL_INVALID",
                "a pasta não tem um modelo (falta config.json).",
                where=path,
                hint=NOT_A_MODEL + (HIDDEN if str(path) == MACHADO else ""),
            )
        self._checked = True

    @cached_property
    def manifest(self) -> Manifest | None:
        """Our manifest, None in a folder from elsewhere. Before `check`, only the sizes are compared.

        Raises E_MANIFEST or E_SCHEMA.
        """
        return read_manifest(self.path, hashes=False) if (self.path / MANIFEST).exists() else None

    @cached_property
    def config(self) -> ModelConfig:
        """The model's shape. Raises E_MODEL_INVALID.

        Where generation_config.json names the tokens that end a text, it is believed, as transformers does:
        chat models end a turn with another token than a document; null means that none does. A head that is
        stored and differs from the embedding counts, whatever `tie_word_embeddings` says: also as in
        transformers 5 (modeling_utils.py, `tie_weights`).
        """
        file = self.path / "config.json"
        config = ModelConfig.from_hf(self.parse("config.json"), where=str(file))
        if config.tie_embeddings and self._has_own_head():
            config = replace(config, tie_embeddings=False)
        body = self.parse("generation_config.json") if self.read("generation_config.json") is not None else {}
        if "eos_token_id" not in body:
            return config
        eos = body["eos_token_id"]
        try:
            return replace(config, eos_token_ids=token_ids(eos))
        except (TypeError, ValueError) as error:
            raise SlmError(
                "E_MODEL_INVALID",
                f"eos_token_id inválido ({eos!r}).",
                where=self.path / "generation_config.json",
                hint=NOT_A_MODEL,
            ) from error

    @cached_property
    def weights(self) -> WeightReader:
        """The tensors by Llama's names. Raises E_PICKLE, E_NOT_FOUND or E_MODEL_INVALID."""
        return WeightReader(self.path)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer. Raises E_TOKENIZER_MISSING or E_TOKENIZER_INVALID."""
        file = self.path / "tokenizer.json"
        content = self.read("tokenizer.json")
        return Tokenizer.load(file) if content is None else Tokenizer.from_json(content, file)

    @property
    def companions(self) -> dict[str, bytes]:
        """The content of each of `COMPANIONS` that the folder has, and of each further template, by name."""
        found = {name: self.read(name) for name in (*COMPANIONS, *self._further_templates)}
        return {name: content for name, content in found.items() if content is not None}

    @property
    def chat_template(self) -> str | None:
        """The Jinja template that turns a conversation into a prompt, if the folder has one."""
        return self.chat_templates.get("default")

    @cached_property
    def chat_templates(self) -> dict[str, str]:
        """The folder's templates: `default`, and others by name, such as `tool_use`.

        Files count before tokenizer_config.json, as in transformers 5 (tokenization_utils_base.py,
        `_from_pretrained`).
        """
        settings = self.read("tokenizer_config.json")
        found = None if settings is None else self.parse("tokenizer_config.json").get("chat_template")
        entries = found if isinstance(found, list) else [{"name": "default", "template": found}]
        listed = [entry for entry in entries if isinstance(entry, dict)]
        named = {
            str(entry.get("name")): entry["template"]
            for entry in listed
            if isinstance(entry.get("template"), str)
        }
        for name in ("chat_template.jinja", *self._further_templates):
            content = self.read(name)
            if content is not None:
                text = content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
                named["default" if name == "chat_template.jinja" else Path(name).stem] = text
        return named

    @cached_property
    def _further_templates(self) -> list[str]:
        """Relative paths of the templates beside the default one."""
        files = sorted((self.path / FURTHER_TEMPLATES).glob("*.jinja"))
        return [f"{FURTHER_TEMPLATES}/{file.name}" for file in files]

    @cached_property
    def sha256(self) -> str:
        """Identity of the model: sha256 over the hashes of its configuration, tokenizer and weights."""
        digest = hashlib.sha256()
        names = ("config.json", "tokenizer.json")
        for path in (*(self.path / name for name in names), *sorted(self.path.glob("model*.safetensors"))):
            if path.is_file():
                digest.update(f"{path.name} {self._sha256(path)}\n".encode())
        return digest.hexdigest()

    def read(self, name: str) -> bytes | None:
        """The content of config.json, tokenizer.json or a companion; None where the folder has no such file.

        Raises E_PERMISSION or E_IO.
        """
        if name not in self._contents:
            file = self.path / name
            with os_errors(file):
                self._contents[name] = file.read_bytes() if file.is_file() else None
        return self._contents[name]

    def parse(self, name: str) -> dict[str, Any]:
        """The object that a JSON file of the folder holds. Raises E_MODEL_INVALID; E_NOT_FOUND without it."""
        content = self.read(name)
        file = self.path / name
        if content is None:
            with os_errors(file):
                content = file.read_bytes()  # raises: it is missing, or no file
        return parse_json_object(content, file)

    def _sha256(self, path: Path) -> str:
        """Hex sha256 of a file of this folder, worked out once."""
        if path not in self._hashes:
            content = self.read(path.name) if path.parent == self.path and path.name in _KEPT else None
            self._hashes[path] = sha256_file(path) if content is None else hashlib.sha256(content).hexdigest()
        return self._hashes[path]

    def _has_own_head(self) -> bool:
        """Whether a head is stored beside the embedding, with other numbers."""
        try:
            weights = self.weights
            return HEAD in weights and EMBEDDING in weights and not weights.same(HEAD, EMBEDDING)
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


def write_model_files(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Array],
    tokenizer: Tokenizer,
    companions: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write the files of a model folder, without its manifest, into `folder` (inside `atomic_folder`).

    weights: Llama's names -> arrays, such as `Llama.to_hf_weights`. companions: files of the model that this
    one was made from, kept as they are (see `ModelFolder.companions`); without, ours are written. Call
    `write_manifest` last.
    """
    write_json(folder / "config.json", config.to_hf())
    eos = config.eos_token_ids
    write_json(folder / "generation_config.json", generation_defaults(config))
    write_text(folder / "tokenizer.json", tokenizer.to_json())
    names = tokenizer.hf_config(
        config.max_seq_len, bos=config.bos_token_id, eos=eos[0] if eos else None, pad=config.pad_token_id
    )
    write_json(folder / "tokenizer_config.json", names)
    write_files(folder, companions)
    write_safetensors(folder / WEIGHTS, weights)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files by relative name, as `ModelFolder.companions` gives them. Raises E_DISK_FULL or E_IO."""
    for name, content in files.items():
        file = folder / name
        with os_errors(file):
            file.parent.mkdir(exist_ok=True)
        write_bytes(file, content)


def generation_defaults(config: ModelConfig) -> dict[str, Any]:
    """The `generation_config.json` of a model that came without one."""
    return {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "do_sample": True,
        "temperature": 0.8,
        "top_p": 0.95,
    }


def seal_model_folder(folder: Path, **extra: Any) -> None:
    """Write the manifest of a finished model folder."""
    write_manifest(folder, "model", **extra)
