"""From what the page or its API sends to a growing text: the one file that runs the model. No Gradio here."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Protocol

from ptbr_slm.app.figures import CHAT_ENDINGS, Progress
from ptbr_slm.app.language import Language
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import ChatPrompt, Messages, Prompt
from ptbr_slm.runtime.results import GenerationChunk

SHOW_EVERY_S = 0.05
"""Each update carries the whole text; nobody sees more than twenty a second."""

MAX_WAITING = 16
"""Visitors who wait while the model's slots are taken; the next one is told to come back."""

MAX_SEED = 1_000_000
"""Seeds we draw stay below this: short enough to be typed again."""


class Chunks(Protocol):
    """A text on its way: a `Call`, or what a server puts around one."""

    def __aiter__(self) -> AsyncIterator[GenerationChunk]:
        """The chunks as they come."""
        ...

    def close(self) -> None:
        """End the text; from any thread."""
        ...


class Writer:
    """Continues texts and conversations with one model, several at once in its batch."""

    def __init__(self, model: Model, submit: Callable[..., Chunks] | None = None) -> None:
        """submit: as `Model.submit`, where that of the model is not wanted."""
        self.model = model
        self._submit: Callable[..., Chunks] = submit or model.submit
        self._tokenizer = model.engine.tokenizer
        self._context = int(model.describe()["context"])
        self._running: set[Chunks] = set()

    @property
    def slots(self) -> int:
        """Texts that the model writes at the same time."""
        return self.model.load_figures().slots

    async def write(
        self,
        prompt: Any,
        max_new_tokens: Any,
        temperature: Any,
        top_p: Any,
        top_k: Any,
        repetition_penalty: Any,
        seed: Any,
        *,
        language: Language = "pt",
    ) -> AsyncGenerator[tuple[str, str]]:
        """Yield (prompt and continuation so far, status line); closing the iterator ends the text.

        The values are as they came over the wire: what is not a text or not in range raises the SlmError of
        `Model.submit` (E_PROMPT, E_PROMPT_TOO_LONG, E_SAMPLING). No seed (None, "") draws one.
        """
        self.check(prompt)
        started = time.perf_counter()
        options = sampling(max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
        progress = Progress(started, self._context, options["seed"], language=language)
        progress.prompt_tokens = len(await asyncio.to_thread(self._tokenizer.encode, prompt))
        async with aclosing(self._text(prompt, options, progress)) as texts:
            async for text, line in texts:
                yield prompt + text, line

    async def answer(
        self, messages: Messages, *values: Any, language: Language = "pt"
    ) -> AsyncGenerator[tuple[str, str]]:
        """Yield (answer so far, status line) to a conversation: the text of `Model.chat` with these values.

        values: as those of `write`. Raises what `Model.submit` raises for a `ChatPrompt`.
        """
        started = time.perf_counter()
        options = sampling(*values)
        progress = Progress(started, self._context, options["seed"], endings=CHAT_ENDINGS, language=language)
        async with aclosing(self._text(ChatPrompt(messages), options, progress)) as texts:
            async for shown in texts:
                yield shown

    async def chunks(self, prompt: Prompt, options: dict[str, Any]) -> AsyncGenerator[GenerationChunk]:
        """What `Model.submit` gives for a prompt, as it comes; closing the iterator ends it."""
        call = await self._begin(prompt, options)
        self._running.add(call)
        try:
            async for chunk in call:
                yield chunk
        finally:
            self._running.discard(call)
            call.close()

    def close(self) -> None:
        """End all texts within a token; from any thread: the server is going down."""
        for call in list(self._running):
            call.close()

    async def _text(
        self, prompt: Prompt, options: dict[str, Any], progress: Progress
    ) -> AsyncGenerator[tuple[str, str]]:
        text, shown = "", 0.0
        async with aclosing(self.chunks(prompt, options)) as chunks:
            async for chunk in chunks:
                if chunk.token >= 0:
                    progress.token(chunk.at, chunk.finish_reason)
                progress.ending = chunk.finish_reason
                text += chunk.text
                if chunk.result is not None:
                    progress.prompt_tokens = chunk.result.prompt_tokens
                    progress.dropped_messages = chunk.result.dropped_messages
                now = time.perf_counter()
                if chunk.finish_reason or now - shown >= SHOW_EVERY_S:
                    shown = now
                    yield text, progress.line()

    async def _begin(self, prompt: Prompt, options: dict[str, Any]) -> Chunks:
        """Queue the text, in a thread: a long prompt takes a while to encode, and other texts go on."""
        task = asyncio.ensure_future(asyncio.to_thread(self._submit, prompt, **options))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_close_unread)
            raise

    def check(self, prompt: Any) -> None:
        """Refuse what is no text, and, before 2 MB of it are tokenized, what cannot fit.

        No token stands for more than `longest` bytes; NFC shortens a text to a third at most (Hangul jamo).
        """
        if not isinstance(prompt, str):
            raise SlmError(
                "E_PROMPT",
                f"o texto inicial deve ser texto, e não {type(prompt).__name__}.",
                where="prompt",
                hint="Mande um texto só.",
            )
        longest = int(self._tokenizer.byte_lengths.max())
        if len(prompt) > 3 * longest * self._context:
            raise SlmError(
                "E_PROMPT_TOO_LONG",
                f"o texto tem {len(prompt)} caracteres, muito mais do que cabe no contexto do modelo "
                f"({self._context} tokens).",
                where="prompt",
                hint="Use um texto menor.",
            )


def _close_unread(task: asyncio.Future[Chunks]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def sampling(
    max_new_tokens: Any, temperature: Any, top_p: Any, top_k: Any, repetition_penalty: Any, seed: Any
) -> dict[str, Any]:
    """Options of `Model.submit` from what came over the wire, which checks them. A missing seed is drawn.

    Raises E_SAMPLING for no new tokens, which the engine takes, to score a prompt: the page shows no scores.
    """
    count = whole(max_new_tokens)
    if count == 0 and not isinstance(count, bool):
        raise SlmError(
            "E_SAMPLING",
            "max_new_tokens deve ser 1 ou mais.",
            where="max_new_tokens",
            hint="Peça ao menos um token.",
        )
    return {
        "max_new_tokens": count,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": whole(top_k),
        "repetition_penalty": repetition_penalty,
        "seed": secrets.randbelow(MAX_SEED) if seed in (None, "") else whole(seed),
    }


def whole(value: Any) -> Any:
    """40.0 -> 40 and "42" -> 42: JSON, sliders and text boxes do not keep them apart. The rest as it is."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,19}\s*", value):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value
