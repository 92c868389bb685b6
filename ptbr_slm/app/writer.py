"""From what the page or its API sends to a growing text: the one file that runs the model. No Gradio here."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from ptbr_slm.app.figures import CHAT_ENDINGS, Progress
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import ChatPrompt, Messages
from ptbr_slm.runtime.results import GenerationChunk

SHOW_EVERY_S = 0.05
"""Each update carries the whole text; nobody sees more than twenty a second."""

MAX_SEED = 1_000_000
"""Seeds we draw stay below this: short enough to be typed again."""


class Writer:
    """Continues texts and conversations with one model, one at a time (the page's queue sees to that)."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._tokenizer = model.engine.tokenizer
        self._context = int(model.describe()["context"])
        self._closing = False

    def write(
        self,
        prompt: Any,
        max_new_tokens: Any,
        temperature: Any,
        top_p: Any,
        top_k: Any,
        repetition_penalty: Any,
        seed: Any,
    ) -> Iterator[tuple[str, str]]:
        """Yield (prompt and continuation so far, status line); closing the iterator frees the model.

        The values are as they came over the wire: what is not a text or not in range raises the SlmError of
        `Model.stream` (E_PROMPT, E_PROMPT_TOO_LONG, E_SAMPLING). No seed (None, "") draws one.
        """
        self._refuse_too_long(prompt)
        started = time.monotonic()
        options = sampling(max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
        chunks = self.model.stream(prompt, **options)
        tokens = len(self._tokenizer.encode(prompt))
        progress = Progress(started, tokens, self._context, options["seed"])
        for text, line in self._show(chunks, progress):
            yield prompt + text, line

    def answer(self, messages: Messages, *values: Any) -> Iterator[tuple[str, str]]:
        """Yield (answer so far, status line) to a conversation: the text of `Model.chat` with these values.

        values: as those of `write`. Raises what `Model.stream` raises for a `ChatPrompt`.
        """
        started = time.monotonic()
        options = sampling(*values)
        chunks = self.model.stream(ChatPrompt(messages), **options)
        progress = Progress(started, None, self._context, options["seed"], endings=CHAT_ENDINGS)
        yield from self._show(chunks, progress)

    def _show(self, chunks: Generator[GenerationChunk], progress: Progress) -> Iterator[tuple[str, str]]:
        text, shown = "", 0.0
        with closing(chunks):
            for chunk in chunks:
                now = time.monotonic()
                progress.token(now, chunk.finish_reason)
                text += chunk.text
                if chunk.result is not None:
                    progress.prompt_tokens = chunk.result.prompt_tokens
                    progress.dropped_messages = chunk.result.dropped_messages
                if chunk.finish_reason or now - shown >= SHOW_EVERY_S:
                    shown = now
                    yield text, progress.line()
                if self._closing:
                    return

    def close(self) -> None:
        """End the running continuation at its next token: the server is going down."""
        self._closing = True

    def _refuse_too_long(self, prompt: Any) -> None:
        """Refuse, before 2 MB of it are tokenized, what cannot fit.

        No token stands for more than `longest` bytes; NFC shortens a text to a third at most (Hangul jamo).
        """
        longest = int(self._tokenizer.byte_lengths.max())
        if isinstance(prompt, str) and len(prompt) > 3 * longest * self._context:
            raise SlmError(
                "E_PROMPT_TOO_LONG",
                f"o texto tem {len(prompt)} caracteres, muito mais do que cabe no contexto do modelo "
                f"({self._context} tokens).",
                where="prompt",
                hint="Use um texto menor.",
            )


def sampling(
    max_new_tokens: Any, temperature: Any, top_p: Any, top_k: Any, repetition_penalty: Any, seed: Any
) -> dict[str, Any]:
    """Options of `Model.stream` from what came over the wire, which checks them. A missing seed is drawn."""
    return {
        "max_new_tokens": whole(max_new_tokens),
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
