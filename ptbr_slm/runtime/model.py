"""`Model`: an opened model to generate with. `ptbr_slm.load` returns it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, overload

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.generation.cancel import Cancel
from ptbr_slm.runtime.generation.request import make_rows
from ptbr_slm.runtime.generation.row import Row
from ptbr_slm.runtime.generation.scheduler import Call, Scheduler
from ptbr_slm.runtime.load import open_engine
from ptbr_slm.runtime.slots import closed_error
from ptbr_slm.runtime.types import Engine, Floats, GenerationChunk, GenerationResult, SamplingParams
from ptbr_slm.storage.model_folder import check_vocabulary

_CHARACTERS_A_TOKEN = 32
"""Far more than any text has (Portuguese: 4 to 5); what is longer is not encoded whole to be refused."""


class Model:
    """Generates text from prompts. Safe to share between threads: their texts run in one batch.

    Sampling options are the fields of `SamplingParams` (`max_new_tokens=`, `temperature=`, `seed=`, ...);
    `cancel=` takes a `Cancel` with which any thread may end the texts. Completion i of a prompt (`n=`) has
    the seed `seed` + i, so that it can be had again alone.
    """

    def __init__(self, path: Path | str, device: str = "auto") -> None:
        """Open an export or a model folder; device `auto`, `cpu` or `cuda`. Raises as `open_engine`."""
        self.path = Path(path)
        self._engine: Engine | None = open_engine(self.path, device)
        check_vocabulary(self._engine.config, self._engine.tokenizer, self.path)
        self._scheduler = Scheduler(self._engine)

    @property
    def engine(self) -> Engine:
        """The engine below. Raises E_CLOSED after `close`.

        Its slots belong to the texts that run: who steps it himself does so while none does.
        """
        if self._engine is None:
            raise closed_error()
        return self._engine

    @overload
    def generate(self, prompt: str, *, cancel: Cancel | None = ..., **sampling: Any) -> str: ...
    @overload
    def generate(
        self, prompt: Sequence[str], *, cancel: Cancel | None = ..., **sampling: Any
    ) -> list[str]: ...
    def generate(
        self, prompt: str | Sequence[str], *, cancel: Cancel | None = None, **sampling: Any
    ) -> str | list[str]:
        """Continuations, without the prompts: text for text, list for list (generated as one batch).

        With `n` above 1 always a list: the completions of the first prompt, then those of the next.
        """
        found: Any = self.generate_detailed(prompt, cancel=cancel, **sampling)
        return [result.text for result in found] if isinstance(found, list) else found.text

    @overload
    def generate_detailed(
        self, prompt: str, *, cancel: Cancel | None = ..., **sampling: Any
    ) -> GenerationResult: ...
    @overload
    def generate_detailed(
        self, prompt: Sequence[str], *, cancel: Cancel | None = ..., **sampling: Any
    ) -> list[GenerationResult]: ...
    def generate_detailed(
        self, prompt: str | Sequence[str], *, cancel: Cancel | None = None, **sampling: Any
    ) -> GenerationResult | list[GenerationResult]:
        """As `generate`, with tokens, finish reason, seed, speed and what else was asked for."""
        found: dict[tuple[int, int], GenerationResult] = {}
        for chunk in self.stream(prompt, cancel=cancel, **sampling):
            if chunk.result is not None:
                found[chunk.row, chunk.completion] = chunk.result
        results = [found[place] for place in sorted(found)]
        return results[0] if isinstance(prompt, str) and sampling.get("n", 1) == 1 else results

    def stream(
        self, prompt: str | Sequence[str], *, cancel: Cancel | None = None, **sampling: Any
    ) -> Iterator[GenerationChunk]:
        """Chunks as they are generated, of all prompts (`chunk.row`) and completions (`chunk.completion`).

        What is wrong with the arguments is raised here, before the first chunk is asked for; nothing runs
        until then. Closing the iterator ends the texts.
        """
        return self._read(self._rows(prompt, cancel, sampling))

    def submit(self, prompt: str | Sequence[str], *, cancel: Cancel | None = None, **sampling: Any) -> Call:
        """As `stream`, for callers with threads of their own: queued at once, read with `next_chunk`.

        Whoever submits must `close` the call, or read it to its end.
        """
        rows = self._rows(prompt, cancel, sampling)
        return self._scheduler.submit(rows)

    def logits(self, tokens: Sequence[int]) -> Floats:
        """float32 (T, V) logits at every position of token ids."""
        with self._scheduler.paused():
            return self.engine.logits(tokens)

    def forget(self) -> None:
        """Give up what is kept of past texts for others that begin alike (`reused_tokens`)."""
        self._scheduler.forget()

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
            self._scheduler.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, prompt: Any, cancel: Cancel | None, sampling: dict[str, Any]) -> list[Row]:
        engine = self.engine
        params = sampling_params(sampling)
        many = isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes | bytearray)
        ids = [_encode(engine, text) for text in (prompt if many else [prompt])]
        return make_rows(engine, ids, params, cancel)

    def _read(self, rows: Sequence[Row]) -> Iterator[GenerationChunk]:
        call = self._scheduler.submit(rows)
        try:
            while (chunk := call.next_chunk()) is not None:
                yield chunk
        finally:
            call.close()


def sampling_params(options: dict[str, Any]) -> SamplingParams:
    """`SamplingParams` from keyword options; `stop` may be one text. Raises E_SAMPLING."""
    options = dict(options)
    stop = options.get("stop") or ()
    options["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    unknown = sorted(set(options) - set(SamplingParams.__dataclass_fields__))
    if unknown:
        raise SlmError(
            "E_SAMPLING",
            f"opção de geração desconhecida: {', '.join(unknown)}.",
            where=unknown[0],
            hint=f"As opções são: {', '.join(SamplingParams.__dataclass_fields__)}.",
        )
    return SamplingParams(**options)


def check_prompt(text: Any) -> str:
    """A prompt that is text and not empty. Raises E_PROMPT."""
    if not isinstance(text, str):
        raise SlmError(
            "E_PROMPT",
            f"o texto inicial deve ser texto (str), e não {type(text).__name__}.",
            where="prompt",
            hint='Exemplo: ptbr_slm.generate("O Brasil é", model=PASTA)',
        )
    if not text:
        raise SlmError(
            "E_PROMPT",
            "o texto inicial está vazio.",
            where="prompt",
            hint='Escreva como o texto começa, por exemplo:  "O Brasil é"',
        )
    return text


def _encode(engine: Engine, text: Any) -> list[int]:
    """Ids of a prompt. Raises E_PROMPT or E_PROMPT_TOO_LONG; never cuts."""
    text = check_prompt(text)
    context = engine.config.max_seq_len
    beginning = text[: _CHARACTERS_A_TOKEN * context]
    ids = engine.tokenizer.encode(beginning)
    if len(beginning) < len(text):
        if len(ids) >= 2 * context:  # seconds for 2 MB otherwise, only to count them
            raise _too_long(f"cerca de {len(ids) * len(text) // len(beginning)}", context)
        ids = engine.tokenizer.encode(text)
    if len(ids) >= context:
        raise _too_long(str(len(ids)), context)
    return ids


def _too_long(count: str, context: int) -> SlmError:
    return SlmError(
        "E_PROMPT_TOO_LONG",
        f"o texto inicial tem {count} tokens; o contexto do modelo é de {context}, "
        "e a continuação precisa de pelo menos 1.",
        where="prompt",
        hint=f"Use no máximo {context - 1} tokens, por volta de {int((context - 1) / 1.5)} palavras.",
    )
