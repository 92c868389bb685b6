"""Two texts written at once from one beginning, and the place where they part. No Gradio here."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ptbr_slm.app.figures import Progress
from ptbr_slm.app.writer import SHOW_EVERY_S, Writer
from ptbr_slm.runtime.results import GenerationChunk

NOTICE_EVERY_S = 0.5


@dataclass(slots=True)
class Side:
    """One of the two texts, as far as it is written."""

    writer: Writer
    options: dict[str, Any]
    """Of `Model.submit`."""
    tokens: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    """What each of `tokens` completes."""
    progress: Progress | None = None
    """The figures; None before the text is begun."""

    async def write(self, prompt: Any) -> None:
        """Write the text to its end. Raises as `Writer.write`; cancelled, it ends the text."""
        self.writer.check(prompt)
        context = int(self.writer.model.describe()["context"])
        self.progress = Progress(time.perf_counter(), context, self.options["seed"])
        encode = self.writer.model.engine.tokenizer.encode
        self.progress.prompt_tokens = len(await asyncio.to_thread(encode, prompt))
        async with aclosing(self.writer.chunks(prompt, self.options)) as chunks:
            async for chunk in chunks:
                self.add(chunk, self.progress)

    def add(self, chunk: GenerationChunk, progress: Progress) -> None:
        """One more chunk; one without a token still may bring the end of the text."""
        if chunk.token >= 0:
            progress.token(chunk.at, chunk.finish_reason)
        if chunk.token >= 0 or chunk.text:
            self.tokens.append(chunk.token)
            self.pieces.append(chunk.text)
        progress.ending = chunk.finish_reason
        if chunk.result is not None:
            progress.prompt_tokens = chunk.result.prompt_tokens

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.progress is not None and self.progress.ending is not None

    @property
    def text(self) -> str:
        """The continuation."""
        return "".join(self.pieces)


class Comparison:
    """Two texts side by side, and how far they are the same.

    Token by token where both models have the same tokenizer, else character by character.
    """

    def __init__(self, first: Side, second: Side) -> None:
        self.sides = (first, second)
        vocabularies = {side.writer.model.engine.tokenizer.sha256 for side in self.sides}
        self.by_token = len(vocabularies) == 1
        self._common = 0

    @property
    def common(self) -> int:
        """Tokens, or characters, from the start on that are the same in both."""
        first, second = self._units
        while self._common < min(len(first), len(second)) and first[self._common] == second[self._common]:
            self._common += 1
        return self._common

    @property
    def parted(self) -> bool:
        """Whether the texts are known to differ: both went on, in other ways, or one ended first."""
        common, units = self.common, self._units
        return any(
            len(units[side]) > common and (len(units[1 - side]) > common or self.sides[1 - side].ended)
            for side in (0, 1)
        )

    def split(self, side: int) -> tuple[str, str, str]:
        """The text of a side: what is the same in both, the first token (or character) that is not, the rest.

        All of it is in the first part while they have not parted. A token that only begins a character is
        shown with the one that completes it.
        """
        own, common = self.sides[side], self.common
        if not self.parted:
            return own.text, "", ""
        pieces = own.pieces if self.by_token else list(own.text)
        after = common + 1
        while after < len(pieces) and not pieces[after - 1]:
            after += 1
        return "".join(pieces[:common]), "".join(pieces[common:after]), "".join(pieces[after:])

    @property
    def _units(self) -> tuple[Any, Any]:
        first, second = self.sides
        return (first.tokens, second.tokens) if self.by_token else (first.text, second.text)


async def write_both(prompt: Any, comparison: Comparison) -> AsyncGenerator[None]:
    """Yield whenever one of the two texts has grown, at most twenty times a second, and once both have ended.

    While nothing grows, such as in a queue, it yields twice a second: a page that was closed is noticed then.
    Closing the iterator ends both texts. Raises what `Writer.write` raises of either; the other ends then.
    """
    readers = [asyncio.create_task(side.write(prompt)) for side in comparison.sides]
    shown, shown_at = -1, 0.0
    try:
        running: set[asyncio.Task[None]] = set(readers)
        while running:
            done, running = await asyncio.wait(
                running, timeout=SHOW_EVERY_S, return_when=asyncio.FIRST_EXCEPTION
            )
            for task in done:
                task.result()
            written = sum(len(side.tokens) for side in comparison.sides)
            now = time.perf_counter()
            if written != shown or not running or now - shown_at >= NOTICE_EVERY_S:
                shown, shown_at = written, now
                yield
    finally:
        for task in readers:
            task.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


def shown_text(prompt: str, parts: tuple[str, str, str]) -> str:
    """A side as escaped HTML: the beginning, what both have in common, the first difference, the rest."""
    common, first, rest = (html.escape(part) for part in parts)
    mark = f"<mark>{first}</mark>" if first else ""
    return (
        f'<p class="comp-escrito"><b>{html.escape(prompt)}</b>'
        f'<span class="comp-igual">{common}</span>{mark}{rest}</p>'
    )
