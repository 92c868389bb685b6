"""What is evaluated: anything that can score continuations and continue prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import TokenPrompt
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
        """A sha256 over weights and tokenizer; subjects of the same identity give the same answers."""

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
        self.model = Model(path, device) if model is None else model
        self.path = path if model is not None else self.model.path
        engine = self.model.engine
        facts = (engine.name, engine.device, engine.precision)
        self.identity = identity_of(self.path, *facts) if model is None else ""

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
        kept = max(1, self.context - max_new_tokens)
        ids = [tokenizer.encode(prompt) for prompt in prompts]
        found = self.model.generate(
            [TokenPrompt(tuple(each[-kept:])) for each in ids],
            temperature=0.0,
            max_new_tokens=max_new_tokens,
            stop=list(until),
        )
        return [Continuation(text, max(0, len(each) - kept)) for text, each in zip(found, ids, strict=True)]

    def close(self) -> None:
        """Free the memory."""
        self.model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_CONTENT = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "*.safetensors",
    "*.onnx",
    "*.onnx.data",
)
"""Files of a model folder that its answers depend on. The manifest is none: a copy may come without it."""


def identity_of(path: Path, *facts: str, hashes: Mapping[str, str] = MappingProxyType({})) -> str:
    """sha256 over the content of a model folder, under its files' names, and `facts`.

    facts: engine, device and precision. hashes: sha256 of files by name, where it is known already: these
    files are not read.
    """
    files = sorted({file for pattern in _CONTENT for file in path.glob(pattern) if file.is_file()})
    parts = [*facts, *(f"{file.name} {hashes.get(file.name) or sha256_file(file)}" for file in files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
