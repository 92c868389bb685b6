"""What is evaluated: anything that can score continuations and continue prompts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.scoring import ContinuationScore
from ptbr_slm.storage.manifest import sha256_file

Request = tuple[str, Sequence[str]]
"""A prompt and its continuations."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """A greedy continuation of a prompt."""

    text: str
    cut: int
    """Tokens at the prompt's beginning that the model's context did not hold."""


class Subject(Protocol):
    """A model under evaluation."""

    @property
    def name(self) -> str:
        """For people: the folder or the address."""

    @property
    def identity(self) -> str:
        """Two subjects of the same identity give the same answers: a sha256 over weights and tokenizer."""

    @property
    def parameters(self) -> int | None:
        """How many, where it is known."""

    @property
    def context(self) -> int:
        """Tokens that it holds."""

    def score(self, requests: Iterable[Request]) -> Iterator[list[ContinuationScore]]:
        """The scores of each request's continuations, in the order of the requests."""

    def continue_text(
        self, prompts: Sequence[str], until: Sequence[str], max_new_tokens: int
    ) -> list[Continuation]:
        """Greedy continuations, ended before the first of `until`."""


class LocalSubject:
    """A checkpoint, a model folder (ours or any Llama) or an ONNX export on this machine."""

    def __init__(self, path: Path, device: str = "auto", *, model: Model | None = None) -> None:
        """model: one that is open already, such as a model in training. Raises as `ptbr_slm.load`."""
        self.path = path
        self.model = Model(path, device) if model is None else model
        self.identity = _identity(path) if model is None else ""

    @property
    def name(self) -> str:
        """The folder, with its parent where it is only called `final` or `export`."""
        parts = self.path.resolve().parts
        return "/".join(parts[-2:]) if parts[-1] in ("final", "export") else parts[-1]

    @property
    def parameters(self) -> int:
        """Of the whole model, a tied embedding counted once."""
        return self.model.engine.config.num_parameters

    @property
    def context(self) -> int:
        """Tokens that the model was made for."""
        return self.model.engine.config.max_seq_len

    def score(self, requests: Iterable[Request]) -> Iterator[list[ContinuationScore]]:
        """As `Model.score_each`."""
        yield from self.model.score_each(requests)

    def continue_text(
        self, prompts: Sequence[str], until: Sequence[str], max_new_tokens: int
    ) -> list[Continuation]:
        """As `Model.generate` at temperature 0, in one batch; a prompt too long loses its beginning."""
        tokenizer = self.model.engine.tokenizer
        room = self.context - max_new_tokens
        texts, cuts = [], []
        for prompt in prompts:
            ids = tokenizer.encode(prompt)
            cuts.append(max(0, len(ids) - room))
            texts.append(tokenizer.decode(ids[-room:]) if len(ids) > room else prompt)
        found = self.model.generate(texts, temperature=0.0, max_new_tokens=max_new_tokens, stop=list(until))
        return [Continuation(text, cut) for text, cut in zip(found, cuts, strict=True)]

    def close(self) -> None:
        """Free the memory."""
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _identity(path: Path) -> str:
    """sha256 over weights and tokenizer: from the manifest's file where there is one (it lists them)."""
    manifest = path / "manifest.json"
    if manifest.is_file():
        return sha256_file(manifest)
    return sha256_file(path / "model.safetensors")
