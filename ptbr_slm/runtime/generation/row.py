"""One text in the making: its tokens, what of them a slot holds, and the chunks that come of logits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ptbr_slm.runtime.generation.cancel import Cancel
from ptbr_slm.runtime.generation.lookup import Drafter
from ptbr_slm.runtime.generation.text import TextStream
from ptbr_slm.runtime.sampling.draws import Draw
from ptbr_slm.runtime.sampling.logprobs import prompt_logprobs
from ptbr_slm.runtime.sampling.sampler import Recipe
from ptbr_slm.runtime.slots import PREFILL_CHUNK
from ptbr_slm.runtime.types import (
    Engine,
    FinishReason,
    Floats,
    GenerationChunk,
    GenerationResult,
    TokenLogprob,
)

AHEAD = 64
"""Tokens that a row may be ahead of its reader: then it pauses, until half of them are read."""

NO_TOKEN = -1


@dataclass(eq=False, slots=True)
class Prompt:
    """What the `n` completions of one prompt share: it is run once."""

    ids: Sequence[int]
    index: int = 0
    """Place of the prompt in its call, `GenerationChunk.row`."""
    waiting: int = 1
    """Completions not placed in a slot yet."""
    leader: Row | None = None
    """The completion that runs the prompt; the others wait for it."""
    logits: Floats | None = None
    """(V,) after the last token, kept while completions wait."""
    logprobs: list[TokenLogprob | None] = field(default_factory=lambda: [None])


class Row:
    """One completion of one prompt.

    `ids` is the prompt and what was generated; a slot holds the keys and values of its first `fed`. Whatever
    lies between is what the engine has to run before the next token can be chosen.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Prompt,
        recipe: Recipe,
        seed: int,
        completion: int = 0,
        cancel: Cancel | None = None,
    ) -> None:
        self.prompt = prompt
        self.params = params = recipe.params
        self.ids = list(prompt.ids)
        self.slot = -1
        self.fed = 0
        self.solid = 0
        """Leading tokens whose keys and values a fresh prefill would give to the last bit."""
        self.reused = self.drafted = self.accepted = 0
        self.reason: FinishReason | None = None
        self.made = self.read = 0
        """Chunks given out, and taken by the reader: each has one writer, so neither needs a lock."""
        self.started = False
        """Whether it has had a slot."""
        self.paused = False
        self.abandoned = False
        """Nobody reads on: any thread may say so, and the batch drops the row at its next step."""
        self.scores: Floats | None = None
        """(V,) to choose the first token from, where another completion ran the prompt."""
        self.deliver: Callable[[GenerationChunk | Exception], None] = lambda _: None
        """Receives what comes of the row; an exception is the last that comes."""
        self._completion = completion
        self._seed = seed
        self._cancel = cancel
        self._vocab_size = engine.tokenizer.vocab_size
        self._sampler = recipe.sampler(seed, prompt.ids)
        self._drafter = Drafter(self.ids, params.lookahead) if params.lookahead else None
        self._guessed = False
        """Whether the last draft was the drafter's, not what a constraint forces."""
        self._stream = TextStream(engine.tokenizer, params.stop)
        self._ends = frozenset(engine.config.eos_token_ids)
        self._room = engine.config.max_seq_len
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._first = 0.0
        self.begin()

    def begin(self) -> None:
        """Start the clocks: the text is handed in now."""
        self._start = time.perf_counter()
        limit = self.params.timeout_s
        self._deadline = None if limit is None else self._start + limit

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.ids) - len(self.prompt.ids)

    @property
    def decoding(self) -> bool:
        """Whether one decode step gives the next token; otherwise a prefill must come first."""
        return bool(self._first) and len(self.ids) - self.fed == 1

    @property
    def token(self) -> int:
        """The last token, which a decode step feeds."""
        return self.ids[-1]

    def overdue(self) -> FinishReason | None:
        """Why the text must end now, from outside; None while it may go on."""
        if self._cancel is not None and self._cancel.cancelled:
            return "cancelled"
        if self._deadline is not None and time.perf_counter() >= self._deadline:
            return "timeout"
        return None

    def rest(self) -> bool:
        """Whether the reader is so far behind that the row waits for him."""
        behind = self.made - self.read
        self.paused = behind > (AHEAD // 2 if self.paused else AHEAD - 1)
        return self.paused

    def piece(self) -> list[int]:
        """The next tokens to prefill: up to a multiple of `PREFILL_CHUNK`, wherever the text began.

        A text that found its beginning in the cache is thus cut as one that did not.
        """
        return self.ids[self.fed : self.fed + PREFILL_CHUNK - self.fed % PREFILL_CHUNK]

    def draft(self) -> list[int]:
        """A guess at the tokens after the next one; empty where there is none, or it does not pay."""
        if self._drafter is None:
            return []
        room = min(self.params.max_new_tokens - self.generated - 1, self._room - len(self.ids) - 1)
        forced = self._sampler.forced()[: max(0, min(room, self.params.lookahead))]
        self._guessed = not forced
        return forced or self._drafter.draft(room)

    def learn(self, drafted: int, accepted: int) -> None:
        """How a guess came out: the next one follows from it."""
        if self._drafter is not None and self._guessed:
            self._drafter.learn(drafted, accepted)

    @property
    def scores_prompt(self) -> bool:
        """Whether log probabilities of the prompt are still to come: it runs from its first token then."""
        return self.params.prompt_logprobs and len(self.prompt.logprobs) < len(self.prompt.ids)

    def prompt_seen(self, start: int, logits: Floats) -> None:
        """Logits (T, V) after the tokens from `start` on, for the prompt's log probabilities."""
        following = self.prompt.ids[start + 1 : start + 1 + len(logits)]
        scores = logits[: len(following), : self._vocab_size]
        self.prompt.logprobs += prompt_logprobs(scores, following, self.params.logprobs or 0)

    def draw(self) -> Draw | None:
        """See `Sampler.draw`."""
        return self._sampler.draw()

    def advance(self, scores: Floats | int) -> GenerationChunk:
        """Choose a token from logits (V,), which are overwritten, or take the one that an engine chose.

        The last chunk carries the result.
        """
        if isinstance(scores, int):
            token = scores
            self._sampler.accept(token)
        else:
            token = self._sampler.choose(scores[: self._vocab_size])
        self.ids.append(token)
        if self._drafter is not None:
            self._drafter.push()
        logprob = self._sampler.logprob
        if logprob is not None:
            self._logprobs.append(logprob)
        if not self._first:
            self._first = time.perf_counter()
        if token in self._ends:
            return self._last("", "eos", logprob)
        text = self._stream.push(token)
        if self._stream.stopped:
            return self._last(text, "stop", logprob)
        if self._sampler.finished:
            return self._last(text, "eos", logprob)
        if self.generated >= self.params.max_new_tokens:
            return self._last(text, "length", logprob)
        if len(self.ids) >= self._room:
            return self._last(text, "context", logprob)
        self._text.append(text)
        return self._chunk(text, token, logprob)

    def end(self, reason: FinishReason) -> GenerationChunk:
        """The last chunk of a text that is ended from outside; it brings no token."""
        return self._last("", reason, None, token=NO_TOKEN)

    def _last(
        self, text: str, reason: FinishReason, logprob: TokenLogprob | None, token: int | None = None
    ) -> GenerationChunk:
        if reason != "stop":
            text += self._stream.finish()
            if self._stream.stopped:  # a character completed by the end completed a stop string
                reason = "stop"
        self.reason = reason
        now = time.perf_counter()
        tokens = tuple(self.ids[len(self.prompt.ids) :])
        result = GenerationResult(
            text="".join(self._text) + text,
            tokens=tokens,
            prompt_tokens=len(self.prompt.ids),
            finish_reason=reason,
            seed=self._seed,
            time_to_first_token_s=(self._first or now) - self._start,
            tokens_per_second=(len(tokens) - 1) / (now - self._first) if len(tokens) > 1 else 0.0,
            logprobs=None if self.params.logprobs is None else tuple(self._logprobs),
            prompt_logprobs=tuple(self.prompt.logprobs) if self.params.prompt_logprobs else None,
            reused_tokens=self.reused,
            drafted=self.drafted,
            accepted=self.accepted,
        )
        return self._chunk(text, self.token if token is None else token, logprob, result)

    def _chunk(
        self, text: str, token: int, logprob: TokenLogprob | None, result: GenerationResult | None = None
    ) -> GenerationChunk:
        return GenerationChunk(text, token, self.prompt.index, self.reason, result, logprob, self._completion)
