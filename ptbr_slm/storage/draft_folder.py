"""The draft layer of a model on disk: `ptbr-slm draft` writes it, `export` and the engines read it. No torch.

    MODEL/draft/  config.json  draft.safetensors  manifest.json (kind "draft": of which model, how good)

Matrices are (out, in) as PyTorch's Linear keeps them; C is the model's hidden size, I the layer's own
intermediate size, K the number of tokens that it can guess:

    fuse (C, 2C)   the model's state and the chosen token's embedding, each normalised, to one stream
    gate_up (2I, C)   down (C, I)   SwiGLU added to it
    head (K, C)   tokens (K,)   scores of the ids in `tokens`
    state_norm  token_norm  feed_forward_norm  norm   gains of RMSNorm, (C,) each
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import atomic_folder, may_replace, write_json
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import Manifest, read_manifest, write_manifest
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.weights import WeightReader, parse_json_object, write_safetensors
from ptbr_slm.text import quoted

FOLDER = "draft"
"""Its place in a model's folder."""
CONFIG, WEIGHTS = "config.json", "draft.safetensors"
TOKENS = "tokens"

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftConfig:
    """The shape of a draft layer."""

    hidden_size: int
    """The model's, C."""
    intermediate_size: int
    """Of its own feed-forward, I."""
    head_tokens: int
    """Tokens that it can guess, K."""
    vocab_size: int
    """The model's, V."""
    norm_eps: float

    def __post_init__(self) -> None:
        sizes = (self.hidden_size, self.intermediate_size, self.head_tokens, self.vocab_size)
        if (
            not all(isinstance(size, int) and size > 0 for size in sizes)
            or self.head_tokens > self.vocab_size
        ):
            raise ValueError(f"{sizes}")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Each float tensor's name and shape."""
        hidden, wide = self.hidden_size, self.intermediate_size
        return {
            "fuse": (hidden, 2 * hidden),
            "gate_up": (2 * wide, hidden),
            "down": (hidden, wide),
            "head": (self.head_tokens, hidden),
            "state_norm": (hidden,),
            "token_norm": (hidden,),
            "feed_forward_norm": (hidden,),
            "norm": (hidden,),
        }

    @property
    def num_parameters(self) -> int:
        """Floats in all."""
        return int(sum(np.prod(shape) for shape in self.shapes.values()))


class DraftFolder:
    """A draft layer that was trained with one model, and is of use to that model only."""

    def __init__(self, path: Path) -> None:
        """Raises E_DRAFT for what is not a whole draft layer, E_NOT_FOUND, E_SCHEMA, E_PERMISSION or E_IO."""
        self.path = path
        file = path / CONFIG
        if not file.is_file() or not (path / MANIFEST).is_file():
            raise SlmError(
                "E_NOT_FOUND",
                f"a pasta não tem uma camada de rascunho (falta {CONFIG} ou {MANIFEST}).",
                where=path,
                hint=TRAIN_ONE,
            )
        self.manifest: Manifest = read_manifest(path, code="E_DRAFT")
        with os_errors(file):
            content = file.read_bytes()
        try:
            body = parse_json_object(content, file)
            self.config = DraftConfig(**body)
            self._weights = WeightReader(path, WEIGHTS)
        except (TypeError, ValueError) as error:
            raise broken(f"{CONFIG} tem um valor inválido ({error})", file) from error
        except SlmError as error:
            if error.code != "E_MODEL_INVALID":
                raise
            raise broken(error.message.rstrip("."), Path(error.where)) from error

    @property
    def facts(self) -> dict[str, Any]:
        """What its training recorded: `model_sha256`, `acceptance`, `steps`, ..."""
        return self.manifest.extra

    @property
    def sha256(self) -> str:
        """Identity of the layer: that of its weights."""
        return str(self.manifest.files.get(WEIGHTS, {}).get("sha256"))

    def read(self, name: str, shape: tuple[int, ...]) -> Floats:
        """One float tensor. Raises E_DRAFT for a missing one, or one of another shape."""
        try:
            return self._weights.read(name, shape)
        except SlmError as error:
            if error.code != "E_MODEL_INVALID":
                raise
            raise broken(error.message.rstrip("."), self.path / WEIGHTS) from error

    @cached_property
    def tokens(self) -> Ids:
        """(K,) the ids that it can guess, rising. Raises E_DRAFT."""
        # Stored as float32, which holds every id below 2**24, so that one reader serves all tensors.
        ids = self.read(TOKENS, (self.config.head_tokens,)).astype(np.int64)
        if ids[0] < 0 or ids[-1] >= self.config.vocab_size or np.any(np.diff(ids) <= 0):
            raise broken("os tokens não são ids do vocabulário, em ordem", self.path / WEIGHTS)
        return ids

    def check_model(self, model: ModelFolder) -> None:
        """Refuse another model than the one it was trained with. Raises E_DRAFT."""
        if self.facts.get("model_sha256") != model.sha256:
            raise SlmError(
                "E_DRAFT",
                "esta camada de rascunho foi treinada com outro modelo, ou o modelo mudou desde então.",
                where=self.path,
                hint=f"Treine-a de novo:  ptbr-slm draft {quoted(model.path)} --data DADOS",
            )


def draft_of(model: ModelFolder) -> DraftFolder | None:
    """The draft layer in a model's folder, None where there is none. Raises E_DRAFT for one of another model,
    and what `DraftFolder` raises.
    """
    if not (model.path / FOLDER / MANIFEST).is_file():
        return None
    found = DraftFolder(model.path / FOLDER)
    found.check_model(model)
    return found


def write_draft(
    path: Path, config: DraftConfig, weights: Mapping[str, Floats], tokens: Ids, facts: Mapping[str, Any]
) -> None:
    """Write a draft layer, replacing an earlier one. facts: of its manifest, `model_sha256` among them.

    Raises what `atomic_folder` raises; call `require_replaceable_draft` before the work.
    """
    with atomic_folder(path) as folder:
        write_json(folder / CONFIG, asdict(config))
        write_safetensors(folder / WEIGHTS, {**weights, TOKENS: tokens.astype(np.float32)})
        write_manifest(folder, "draft", **facts)


def require_replaceable_draft(path: Path) -> None:
    """Refuse to write where something else lies. Raises E_EXISTS."""
    if not may_replace(path, "draft"):
        raise SlmError(
            "E_EXISTS",
            "o destino já existe e não é uma camada de rascunho: não vamos apagá-lo.",
            where=path,
            hint="Escolha outra pasta com -o.",
        )


def broken(message: str, where: Path) -> SlmError:
    """E_DRAFT with the usual advice."""
    return SlmError("E_DRAFT", f"{message}.", where=where, hint=TRAIN_ONE)


TRAIN_ONE = "Treine uma com:  ptbr-slm draft MODELO --data DADOS"
