"""`Model`: a model to generate with; `load`, `generate` and `stream` of the package itself."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Unpack, overload

import numpy as np
import numpy.typing as npt

from ptbr_slm.chat import ChatFormat, is_tuned
from ptbr_slm.demo import model_path
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.batch import BatchFigures, BatchLimits
from ptbr_slm.runtime.engine_loop import Call, EngineLoop
from ptbr_slm.runtime.load import open_engine
from ptbr_slm.runtime.pace import GRAIN
from ptbr_slm.runtime.prompt import (
    ChatPrompt,
    Messages,
    Prompt,
    UntunedModelWarning,
    chat_options,
    encode_prompt,
    untuned_warning,
)
from ptbr_slm.runtime.protocol import (
    PREFILL_CHUNK,
    Engine,
    Floats,
    check_ids,
    check_length,
    closed_error,
)
from ptbr_slm.runtime.results import GenerationChunk, GenerationResult
from ptbr_slm.runtime.sampling.params import SamplingOptions, sampling_params
from ptbr_slm.runtime.scoring import ContinuationScore, EncodedRequest, Request, Scorer
from ptbr_slm.runtime.sequence import Cancel, SequenceState, make_sequences
from ptbr_slm.storage.model_folder import ModelFolder, check_vocabulary
from ptbr_slm.system import memory_bytes

_Key = tuple[Path, str, int]

_last: tuple[_Key, Model] | None = None
_last_lock = Lock()


class Model:
    """Generates text from prompts. Safe to share between threads: their texts run in one batch.

    Sampling options are the fields of `SamplingParams` (`max_new_tokens=`, `temperature=`, `seed=`, ...);
    `cancel=` takes a `Cancel` with which any thread may end the texts. Completion i of a prompt (`n=`) has
    the seed `seed` + i, so that it can be had again alone.
    """

    def __init__(self, path: Path | str, device: str = "auto", *, limits: BatchLimits | None = None) -> None:
        """Open an export or a model folder; device `auto`, `cpu` or `cuda`. Raises as `open_engine`.

        limits: how much it takes on at once; without them 16 texts at a time and any number waiting. Where
        they set no `kv_bytes`, keys and values have a quarter of the machine's memory.
        """
        folder = ModelFolder.of(path)
        engine = open_engine(folder, device)
        check_vocabulary(engine.config, engine.tokenizer, folder.path)
        self._hold(engine, folder.path, limits)

    @classmethod
    def over(cls, engine: Engine, path: Path, *, limits: BatchLimits | None = None) -> Model:
        """Over an engine that is open already. path: what messages call it."""
        model = cls.__new__(cls)
        model._hold(engine, path, limits)
        return model

    def _hold(self, engine: Engine, path: Path, limits: BatchLimits | None) -> None:
        self.path = path
        self._engine: Engine | None = engine
        limits = limits or BatchLimits()
        if limits.kv_bytes is None:
            limits = replace(limits, kv_bytes=_quarter_of_memory(engine))
        self._loop = EngineLoop(engine, limits)
        self._warned = False
        """Whether it was told that the model is not tuned."""

    @property
    def engine(self) -> Engine:
        """The engine below. Raises E_CLOSED after `close`.

        Its slots belong to the texts that run: step it directly only while none does.
        """
        if self._engine is None:
            raise closed_error()
        return self._engine

    @overload  # a str is a Sequence[str] too: the first signature that fits counts
    def generate(  # type: ignore[overload-overlap]
        self, prompt: Prompt, *, cancel: Cancel | None = ..., **sampling: Unpack[SamplingOptions]
    ) -> str: ...
    @overload
    def generate(
        self, prompt: Sequence[Prompt], *, cancel: Cancel | None = ..., **sampling: Unpack[SamplingOptions]
    ) -> list[str]: ...
    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        cancel: Cancel | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str | list[str]:
        """Continuations, without the prompts: text for text, list for list (generated as one batch).

        With `n` above 1 always a list: the completions of the first prompt, then those of the next.
        """
        texts = [result.text for result in self._results(prompt, cancel, sampling)]
        return texts[0] if _asks_for_one(prompt, sampling) else texts

    @overload
    def generate_detailed(  # type: ignore[overload-overlap]
        self, prompt: Prompt, *, cancel: Cancel | None = ..., **sampling: Unpack[SamplingOptions]
    ) -> GenerationResult: ...
    @overload
    def generate_detailed(
        self, prompt: Sequence[Prompt], *, cancel: Cancel | None = ..., **sampling: Unpack[SamplingOptions]
    ) -> list[GenerationResult]: ...
    def generate_detailed(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        cancel: Cancel | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> GenerationResult | list[GenerationResult]:
        """As `generate`, with tokens, finish reason, seed, speed and what else was asked for."""
        results = self._results(prompt, cancel, sampling)
        return results[0] if _asks_for_one(prompt, sampling) else results

    def stream(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        cancel: Cancel | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Generator[GenerationChunk]:
        """Chunks as they are generated, of all prompts (`chunk.row`) and completions (`chunk.completion`).

        What is wrong with the arguments is raised here, before the first chunk is asked for; nothing runs
        until then. Closing the iterator ends the texts.
        """
        return self._read(self._sequences(prompt, cancel, sampling))

    def submit(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        cancel: Cancel | None = None,
        tenant: str = "",
        wake_interval_s: float = 0.0,
        **sampling: Unpack[SamplingOptions],
    ) -> Call:
        """As `stream`, queued at once: read it with `next_chunk` in threads, or with `async for`.

        tenant: whose request it is; beginnings of texts are reused among one tenant's only, so that
        `reused_tokens` tells nobody what another has asked. wake_interval_s: a coroutine that reads is woken
        once in so many seconds and finds several chunks; the first and the last of a text come at once.
        Whoever submits must `close` the call, or read it to its end. Raises E_BUSY where the queue is full,
        E_CLOSED after `close` or `drain`.
        """
        sequences = self._sequences(prompt, cancel, sampling, tenant)
        return self._loop.submit(sequences, wake_interval_s=wake_interval_s)

    def load_figures(self) -> BatchFigures:
        """What runs and waits now, and the totals since the model was opened; from any thread."""
        return self._loop.figures()

    def drain(self, timeout_s: float) -> bool:
        """Refuse new texts from now on (E_CLOSED), and wait for those that run; True when all have ended."""
        return self._loop.drain(timeout_s)

    def chat(
        self, messages: Messages, *, cancel: Cancel | None = None, **sampling: Unpack[SamplingOptions]
    ) -> str:
        """The model's answer to a conversation: `[{"role": "user", "content": "Oi!"}]` (see `ChatPrompt`).

        The conversation is in the form of the folder's template, and the answer ends where that form ends it.
        Sampling options start from `CHAT_SAMPLING`. A model that has a template and has not learnt it answers
        as it can, with one `UntunedModelWarning`. Raises E_MESSAGES, E_CHAT_TEMPLATE, E_PROMPT_TOO_LONG.

        For conversations in a batch: `generate([ChatPrompt(...), ...])`, with its own defaults of sampling.
        """
        return self.generate(self._chat_prompt(messages), cancel=cancel, **chat_options(sampling))

    def chat_detailed(
        self, messages: Messages, *, cancel: Cancel | None = None, **sampling: Unpack[SamplingOptions]
    ) -> GenerationResult:
        """As `chat`, with the figures of `generate_detailed`, and `dropped_messages` of what did not fit."""
        return self.generate_detailed(self._chat_prompt(messages), cancel=cancel, **chat_options(sampling))

    def chat_stream(
        self, messages: Messages, *, cancel: Cancel | None = None, **sampling: Unpack[SamplingOptions]
    ) -> Generator[GenerationChunk]:
        """As `chat`, chunk by chunk (see `stream`)."""
        return self.stream(self._chat_prompt(messages), cancel=cancel, **chat_options(sampling))

    @cached_property
    def chat_format(self) -> ChatFormat:
        """How the folder's template turns a conversation into ids. Raises E_CHAT_TEMPLATE without one."""
        return ChatFormat.of(ModelFolder.of(self.path))

    @cached_property
    def is_tuned(self) -> bool:
        """Whether the model has learnt to converse: it ends a text as the template ends a turn.

        True where the template does not tell. Raises E_CHAT_TEMPLATE where the folder has none.
        """
        chat_format = self.chat_format
        try:
            return is_tuned(self.engine.config, chat_format)
        except SlmError:
            return True

    def score(self, prompt: str, continuations: Sequence[str]) -> list[ContinuationScore]:
        """How probable each continuation is after the prompt, which may be empty: see `runtime.scoring`.

        Raises E_PROMPT for an empty continuation, E_PROMPT_TOO_LONG for one longer than the context.
        """
        return self.score_batch([(prompt, continuations)])[0]

    def score_batch(
        self,
        requests: Sequence[Request | EncodedRequest],
        *,
        cancel: Cancel | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[ContinuationScore]]:
        """As `score`, of many prompts and their continuations, in the same order.

        cancel: once it is cancelled, the list ends with what was scored so far. progress: called with the
        number of requests done.
        """
        return list(self.score_each(requests, cancel=cancel, progress=progress))

    def score_each(
        self,
        requests: Iterable[Request | EncodedRequest],
        *,
        cancel: Cancel | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Generator[list[ContinuationScore]]:
        """As `score_batch`, of requests that are read as they are needed: memory does not grow with them."""
        return Scorer(self.engine, self._loop.turn).score(requests, cancel, progress)

    def logprobs(self, tokens: Sequence[int]) -> npt.NDArray[np.float64]:
        """(T - 1,) log probability in nats of each of T token ids but the first, given those before it.

        T is at most the context and 1; raises E_PROMPT_TOO_LONG beyond.
        """
        return Scorer(self.engine, self._loop.turn).logprobs(tokens)

    def logits(self, tokens: Sequence[int]) -> Floats:
        """float32 (T, V) logits at every position of token ids."""
        engine = self.engine
        check_ids(engine.config, tokens)
        check_length(len(tokens), engine.config.max_seq_len)
        parts = []
        with self._loop.turn():
            slot = engine.open_slot()
        try:
            start = 0
            while start < len(tokens):
                with self._loop.turn() as generating:
                    piece = tokens[start : start + (GRAIN if generating else PREFILL_CHUNK)]
                    parts.append(engine.extend(slot, piece))
                start += len(piece)
        finally:
            engine.close_slot(slot)
        return np.concatenate(parts)

    def forget(self) -> None:
        """Drop the cached prefixes of past texts (`reused_tokens`)."""
        self._loop.forget()

    def describe(self) -> dict[str, Any]:
        """Facts of the opened model: sizes in bytes, context in tokens."""
        engine = self.engine
        return {
            "path": str(self.path),
            "engine": engine.name,
            "device": engine.device,
            "precision": engine.precision,
            "parameters": engine.config.num_parameters,
            "context": engine.config.max_seq_len,
            "vocab_size": engine.config.vocab_size,
            **engine.describe(),
        }

    def close(self) -> None:
        """Free the memory. Streams still open end with E_CLOSED; calling it twice is fine."""
        if self._engine is not None:
            self._engine = None
            self._loop.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chat_prompt(self, messages: Messages) -> ChatPrompt:
        """The prompt of `chat`. Warns once where the model is not tuned."""
        if not self.is_tuned and not self._warned:
            self._warned = True
            warnings.warn(untuned_warning(self.path), UntunedModelWarning, stacklevel=3)
        return ChatPrompt(messages)

    def _sequences(
        self,
        prompt: Prompt | Sequence[Prompt],
        cancel: Cancel | None,
        sampling: SamplingOptions,
        tenant: str = "",
    ) -> list[SequenceState]:
        engine = self.engine
        params = sampling_params(sampling)
        prompts: Sequence[object] = [prompt]
        if isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes | bytearray):
            prompts = prompt
        states = [
            encode_prompt(engine, each, lambda: self.chat_format, params.max_new_tokens) for each in prompts
        ]
        for state in states:
            state.tenant = tenant
        return make_sequences(engine, states, params, cancel)

    def _results(
        self, prompt: Prompt | Sequence[Prompt], cancel: Cancel | None, sampling: SamplingOptions
    ) -> list[GenerationResult]:
        """In the order of the prompts, then of their completions."""
        found: dict[tuple[int, int], GenerationResult] = {}
        for chunk in self.stream(prompt, cancel=cancel, **sampling):
            if chunk.result is not None:
                found[chunk.row, chunk.completion] = chunk.result
        return [found[key] for key in sorted(found)]

    def _read(self, sequences: Sequence[SequenceState]) -> Generator[GenerationChunk]:
        call = self._loop.submit(sequences)
        try:
            while (chunk := call.next_chunk()) is not None:
                yield chunk
        finally:
            call.close()


def _asks_for_one(prompt: Prompt | Sequence[Prompt], sampling: SamplingOptions) -> bool:
    return isinstance(prompt, Prompt) and sampling.get("n", 1) == 1


def load(path: Path | str, device: str = "auto") -> Model:
    """Open an export or a model folder. device: `auto`, `cpu` or `cuda`."""
    return Model(path, device)


@overload
def generate(  # type: ignore[overload-overlap]
    prompt: str, *, model: Path | str, device: str = ..., **sampling: Unpack[SamplingOptions]
) -> str: ...
@overload
def generate(
    prompt: Sequence[str], *, model: Path | str, device: str = ..., **sampling: Unpack[SamplingOptions]
) -> list[str]: ...
def generate(
    prompt: str | Sequence[str],
    *,
    model: Path | str,
    device: str = "auto",
    **sampling: Unpack[SamplingOptions],
) -> str | list[str]:
    """Continue a prompt, or a list of them in one batch, with the model in the folder `model`.

    Sampling options are the fields of `SamplingParams`. The last model used stays open, so repeated calls
    do not load it again; it is opened anew when its files change.
    """
    return _cached(model, device).generate(prompt, **sampling)


def stream(
    prompt: str | Sequence[str],
    *,
    model: Path | str,
    device: str = "auto",
    **sampling: Unpack[SamplingOptions],
) -> Generator[GenerationChunk]:
    """As `generate`, chunk by chunk as the tokens come."""
    return _cached(model, device).stream(prompt, **sampling)


def _cached(path: Path | str, device: str) -> Model:
    """The last model, while path, device and files are the same. Streams of the model before go on."""
    global _last
    folder = model_path(path).resolve()
    key = (folder, device, _stamp(folder))
    with _last_lock:
        if _last is None or _last[0] != key:
            _forget_last()  # the old one is freed before the new one is loaded
            _last = (key, Model(folder, device))
        return _last[1]


def _forget_last() -> None:
    """Let the last model go, and wait until its thread has freed it, unless someone else still reads it."""
    global _last
    if _last is None:
        return
    loop = weakref.ref(_last[1]._loop)
    thread = _last[1]._loop.thread
    _last = None
    if loop() is None and thread is not None:
        thread.join()


def _quarter_of_memory(engine: Engine) -> int | None:
    """Bytes for keys and values; no limit on a device, or where the system does not tell its memory."""
    total = memory_bytes() if engine.device == "cpu" else None
    return None if total is None else total // 4


def _stamp(folder: Path) -> int:
    """Newest change of the files that name the folder's content, in ns."""
    times = [
        (folder / name).stat().st_mtime_ns
        for name in ("manifest.json", "config.json")
        if (folder / name).exists()
    ]
    return max(times, default=0)
