"""What the model thinks of a text: the probability of each token, and of every token that could come next.

No Gradio here; static/probabilities.js and static/next_token.js show what these functions tell.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.app.figures import Progress
from ptbr_slm.app.language import Language
from ptbr_slm.app.token_pieces import Piece, TokenPieces, pending_bytes, spelled
from ptbr_slm.app.writer import SHOW_EVERY_S, Writer, sampling
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.prompt import TokenPrompt, check_prompt
from ptbr_slm.runtime.protocol import busy_error, check_ids, check_length, closed_error
from ptbr_slm.runtime.results import GenerationResult

ALTERNATIVES = 10
"""Shown for each token."""

ONE_BY_ONE = 256
"""Unseen tokens of the next-token distribution that are told one by one: more than the bars and any top-k of
the page; the others as levels."""

LEVEL = 1 / 32
"""Width in nats of a level, whose tokens count with their mean logit: a bar is off by less than 0.0002, but
where tokens tie at a border."""

Facts = dict[str, Any]
"""What the browser is told, as JSON."""


class Reader:
    """Reads texts with the model of a `Writer`, in the same batch as its texts."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._tokenizer = writer.model.engine.tokenizer
        self._context = int(writer.model.describe()["context"])

    async def read(self, text: Any) -> Facts:
        """`pieces` of the whole text, with their probabilities.

        Raises E_PROMPT, E_PROMPT_TOO_LONG, and what `Model.submit` raises.
        """
        ids = await self._ids(text)
        result = await self._result(ids, prompt_logprobs=True, logprobs=ALTERNATIVES)
        return {"pieces": await asyncio.to_thread(self._pieces, ids, result)}

    async def continued(self, ids: Any, *values: Any, language: Language = "pt") -> AsyncGenerator[Facts]:
        """The text of `ids`, continued: the new `pieces`, the status `line`, and whether it has `ended`.

        The first facts also tell `base`, [text, kind, bytes] of each of `ids`; where the last of them began a
        character, those that complete it do.

        values: as those of `Writer.write`. Closing the iterator ends the text.
        """
        prompt = self._checked(ids)
        options = sampling(*values) | {"logprobs": ALTERNATIVES}
        progress = Progress(time.perf_counter(), self._context, options["seed"], language=language)
        progress.prompt_tokens = len(prompt)
        speller = TokenPieces(self._tokenizer)
        pieces = await asyncio.to_thread(lambda: [piece for token in prompt for piece in speller.push(token)])
        told, shown = 0, 0.0
        async with aclosing(self._writer.chunks(TokenPrompt(prompt), options)) as chunks:
            async for chunk in chunks:
                if chunk.logprob is not None:
                    progress.token(chunk.at, chunk.finish_reason)
                    pieces += speller.push(chunk.token, chunk.logprob)
                progress.ending = chunk.finish_reason
                if chunk.finish_reason:
                    pieces += speller.finish()
                now = time.perf_counter()
                if chunk.finish_reason or now - shown >= SHOW_EVERY_S:
                    shown = now
                    facts = {"pieces": pieces[max(told, len(prompt)) :], "line": progress.line()}
                    if told < len(prompt):
                        base = pieces[: len(prompt)]
                        facts["base"] = [
                            [piece[name] for name in ("text", "kind", "bytes")] for piece in base
                        ]
                    told = len(pieces)
                    yield facts | {"ended": bool(chunk.finish_reason)}

    async def next_token(self, text_or_ids: Any) -> Facts:
        """What could come after a text, or after ids: see `next_token_facts`. Raises as `read`."""
        ids = (
            list(self._checked(text_or_ids))
            if isinstance(text_or_ids, list)
            else await self._ids(text_or_ids)
        )
        result = await self._result(ids, first_logits=True)
        assert result.first_logits is not None
        facts = await asyncio.to_thread(self.next_token_facts, ids, result.first_logits)
        return facts | {"context": self._context}

    def next_token_facts(self, ids: Sequence[int], logits: npt.NDArray[np.float32]) -> Facts:
        """For the browser, from logits (V,), all that the sampler's distribution takes (distribution.js).

        `tokens`: those that are told one by one, as {id, logit, seen, text, kind}; `levels`: the others.
        """
        told, others = split_logits(logits, ids)
        pending, seen = pending_bytes(self._tokenizer, ids), set(ids)
        tokens = []
        for token in told:
            text, kind = spelled(self._tokenizer, token, pending)
            logit = float(logits[token])
            tokens.append({"id": token, "logit": logit, "seen": token in seen, "text": text, "kind": kind})
        return {
            "ids": list(ids),
            "text": self._text(ids),
            "pending": pending.hex(" ").upper(),
            "tokens": tokens,
            "levels": others,
        }

    async def _ids(self, text: Any) -> list[int]:
        self._writer.check(text)
        return await asyncio.to_thread(self._tokenizer.encode, check_prompt(text))

    async def _result(self, ids: Sequence[int], **options: Any) -> GenerationResult:
        """Of a prompt that is read and not continued."""
        found = None
        options = {"max_new_tokens": 0, "seed": 0} | options
        async with aclosing(self._writer.chunks(TokenPrompt(tuple(ids)), options)) as chunks:
            async for chunk in chunks:
                found = chunk.result
        if found is None:  # the call was closed: the server is going down
            raise closed_error()
        if found.finish_reason == "timeout":
            raise busy_error("o texto não foi lido a tempo")
        return found

    def _pieces(self, ids: Sequence[int], result: GenerationResult) -> list[Piece]:
        speller, pieces = TokenPieces(self._tokenizer), list[Piece]()
        for token, scored in zip(ids, result.prompt_logprobs or (), strict=True):
            pieces += speller.push(token, scored)
        return pieces + speller.finish()

    def _text(self, ids: Sequence[int]) -> str:
        """Without the character that it may end within."""
        decoder = self._tokenizer.stream_decoder()
        return "".join(map(decoder.push, ids))

    def _checked(self, ids: Any) -> tuple[int, ...]:
        """Ids as they came over the wire. Raises E_PROMPT, E_PROMPT_TOO_LONG."""
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise SlmError(
                "E_PROMPT",
                "os tokens devem ser uma lista de números inteiros.",
                where="prompt",
                hint="Mande os ids de um texto.",
            )
        check_ids(self._writer.model.engine.config, ids)
        check_length(len(ids), self._context - 1)
        return tuple(ids)


def split_logits(
    logits: npt.NDArray[np.float32], ids: Sequence[int]
) -> tuple[list[int], list[tuple[float, int]]]:
    """The tokens to tell one by one, and the levels of the others, from logits (V,) after the text `ids`.

    One by one: those in the text, which a repetition penalty concerns, and the `ONE_BY_ONE` most probable
    others. A level: (mean logit, how many), the most probable first. Tokens that the model excludes
    (-infinity) are in neither.
    """
    seen = np.zeros(len(logits), dtype=bool)
    seen[np.asarray(ids, dtype=np.int64)] = True
    possible = np.isfinite(logits)
    others = np.flatnonzero(~seen & possible)
    others = others[np.argsort(-logits[others], kind="stable")]
    told = [*np.flatnonzero(seen & possible).tolist(), *others[:ONE_BY_ONE].tolist()]
    rest = logits[others[ONE_BY_ONE:]]
    if not len(rest):
        return told, []
    numbers = np.floor((rest[0] - rest) / np.float32(LEVEL)).astype(np.int64)
    _, level, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    means = np.bincount(level, weights=rest) / counts
    return told, list(zip(means.round(4).tolist(), counts.tolist(), strict=True))


def json_line(facts: Facts) -> str:
    """Facts as a line for the browser.

    The value of a view is a text of such lines: Gradio sends what was appended to a text alone, and tells the
    view of every change of it, but not of a change inside a list (Gradio 6.31). No `<`, for Gradio warns of
    scripts in a text that nobody takes for HTML.
    """
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c") + "\n"
