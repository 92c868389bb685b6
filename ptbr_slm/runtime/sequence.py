"""One sequence: a prompt and its continuation, how much of it a slot holds, and its chunks of text."""

from __future__ import annotations

import secrets
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ptbr_slm.runtime.drafting.costs import StepCosts
from ptbr_slm.runtime.drafting.layer import DraftScores, LayerDrafter
from ptbr_slm.runtime.drafting.lookup import LookupDrafter
from ptbr_slm.runtime.pace import GRAIN
from ptbr_slm.runtime.protocol import Engine, Floats
from ptbr_slm.runtime.results import FinishReason, GenerationChunk, GenerationResult, TokenLogprob
from ptbr_slm.runtime.sampling.params import Draw, SamplingParams
from ptbr_slm.runtime.sampling.sampler import SamplerFactory, prompt_logprobs
from ptbr_slm.tokenizer import Tokenizer

NO_TOKEN = -1

_SEEDS = 2**63


class Cancel:
    """Ends generations from another thread. Passed to `Model.stream(..., cancel=...)`; one may serve many.

    After `cancel()` the texts end within one token, with finish_reason `cancelled` and what was generated.
    """

    def __init__(self) -> None:
        self._cancelled = False

    def cancel(self) -> None:
        """End the texts. From any thread or signal handler, any number of times."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled


@dataclass(eq=False, slots=True)
class PromptState:
    """What the `n` completions of one prompt share: it is run once."""

    ids: Sequence[int]
    end_ids: frozenset[int] = frozenset()
    """Tokens that end the text, besides those that end every text of the model."""
    dropped_messages: int = 0
    """Messages of the conversation that are not in `ids`, for they did not fit."""
    tenant: str = ""
    """Whose prompt it is: it takes its beginning from the same tenant's texts only."""
    index: int = 0
    """Index of the prompt in its call, `GenerationChunk.row`."""
    pending: int = 1
    """Completions that have had no slot yet."""
    leader: SequenceState | None = None
    """The completion that runs the prompt; the others wait for it."""
    logits: Floats | None = None
    """(V,) after the last token, stored while completions wait."""
    logprobs: list[TokenLogprob | None] = field(default_factory=lambda: [None])


class SequenceState:
    """One completion of one prompt.

    `ids` is the prompt and what was generated; a slot holds the keys and values of its first `computed` ids.
    The engine has to run the others before the next token can be chosen.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: PromptState,
        samplers: SamplerFactory,
        seed: int,
        completion: int = 0,
        cancel: Cancel | None = None,
    ) -> None:
        self.prompt = prompt
        self.params = params = samplers.params
        self.ids = list(prompt.ids)
        self.slot = -1
        self.computed = 0
        self.exact = 0
        """Leading tokens whose keys and values a fresh prefill would give to the last bit."""
        self.reused = self.drafted = self.accepted = 0
        self.reason: FinishReason | None = None
        self.request: object = None
        """What it was submitted with; shared with the sequences of the same request."""
        self.started = False
        """Whether it has had a slot."""
        self.over = False
        """Whether the batch has done with it."""
        self.abandoned = False
        """Nobody reads on: any thread may set it, and the batch drops the sequence at its next step."""
        self.first_logits: Floats | None = None
        """(V,) to choose the first token from, where another completion ran the prompt."""
        self.deliver: Callable[[GenerationChunk | Exception], None] = _to_nobody
        """Receives the chunks; an exception is the last that comes."""
        self._completion = completion
        self._seed = seed
        self._cancel = cancel
        self._vocab_size = engine.tokenizer.vocab_size
        self._sampler = samplers.sampler(seed, prompt.ids)
        self._drafter = LookupDrafter(self.ids, params.lookahead) if params.lookahead else None
        self._layer = LayerDrafter.of(engine.draft_acceptance, params.draft)
        self._drafted_by: LookupDrafter | LayerDrafter | None = None
        """Whose the last draft was; nobody's where a constraint forces it."""
        self._stream = TextStream(engine.tokenizer, params.stop)
        self._ends = end_reasons(params, prompt.end_ids.union(engine.config.eos_token_ids))
        self._context = engine.config.max_seq_len
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._first_logits: Floats | None = None
        """For the result, where they are asked for."""
        self._admitted_at = self._first_token_at = self._last_token_at = 0.0
        self.start_clock()

    def start_clock(self) -> None:
        """Measure times and the time limit from now."""
        self._start = time.perf_counter()
        limit = self.params.timeout_s
        self._deadline = None if limit is None else self._start + limit

    def mark_admitted(self) -> None:
        """The sequence has a slot: from its first on it no longer waits in the queue."""
        if not self._admitted_at:
            self._admitted_at = time.perf_counter()

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return len(self.ids) - len(self.prompt.ids)

    @property
    def decoding(self) -> bool:
        """Whether one decode step gives the next token; otherwise a prefill must come first."""
        return bool(self._first_token_at) and len(self.ids) - self.computed == 1

    @property
    def last_token(self) -> int:
        """What a decode step feeds."""
        return self.ids[-1]

    def interruption(self) -> FinishReason | None:
        """Why the text must end now: cancelled, out of time, no token wanted. None while it may go on."""
        if self._cancel is not None and self._cancel.cancelled:
            return "cancelled"
        if self._deadline is not None and time.perf_counter() >= self._deadline:
            return "timeout"
        if not self.params.max_new_tokens and not (self.needs_prompt_logprobs or self.params.first_logits):
            return "length"
        return None

    @property
    def left_to_read(self) -> int:
        """Tokens that are not in the slot yet."""
        return len(self.ids) - self.computed

    @property
    def full_length(self) -> int:
        """Tokens that the text may come to."""
        return min(len(self.prompt.ids) + self.params.max_new_tokens, self._context)

    def next_piece(self, limit: int) -> list[int]:
        """The next tokens to prefill: at most `limit`, which is a multiple of `GRAIN` up to `PREFILL_CHUNK`.

        Pieces end at multiples of `GRAIN` and leave no token alone, which the quantised kernels would round
        another way: however a prompt is cut, its values are the same.
        """
        total = len(self.ids)
        if total - self.computed <= limit:
            return self.ids[self.computed :]
        end = self.computed + limit
        end -= end % GRAIN
        if total - end == 1:
            end += 1 if end - GRAIN <= self.computed else -GRAIN
        return self.ids[self.computed : end]

    def release(self) -> None:
        """The batch has done with it: nothing more is delivered, and no cycle keeps its memory."""
        self.over = True
        self.deliver = _to_nobody

    def draft(self, costs: StepCosts) -> list[int]:
        """A guess at the tokens after the next one; empty where there is none, or it does not pay."""
        if self._drafter is None:
            return []
        limit = self._draft_limit
        forced = self._sampler.forced()[: max(0, min(limit, self.params.lookahead))]
        self._drafted_by = None if forced else self._drafter
        return forced or self._drafter.draft(limit, costs)

    def wants_guess(self, costs: StepCosts) -> bool:
        """Whether the draft layer is to guess the token after the next one; to be asked once a step."""
        return self._layer is not None and self._layer.wants(costs) and self._draft_limit > 0

    def guess(self, expected: DraftScores) -> int:
        """The token that the draft layer's scores speak for."""
        self._drafted_by = self._layer
        return self._sampler.guess(expected)

    @property
    def _draft_limit(self) -> int:
        """Tokens that may be drafted: one more is chosen after them."""
        return min(self.params.max_new_tokens - self.generated - 1, self._context - len(self.ids) - 1)

    def learn(self, drafted: int, accepted: int, costs: StepCosts) -> None:
        """Tell the drafter how many of its tokens were right: the next draft follows from it."""
        if self._drafted_by is not None:
            self._drafted_by.learn(drafted, accepted, costs)

    @property
    def needs_prompt_logprobs(self) -> bool:
        """Whether log probabilities of the prompt are still to come: it runs from its first token then."""
        return self.params.prompt_logprobs and len(self.prompt.logprobs) < len(self.prompt.ids)

    def add_prompt_logprobs(self, start: int, logits: Floats) -> None:
        """Take the prompt's log probabilities from logits (T, V) after the tokens from `start` on."""
        following = self.prompt.ids[start + 1 : start + 1 + len(logits)]
        scores = logits[: len(following), : self._vocab_size]
        self.prompt.logprobs += prompt_logprobs(scores, following, self.params.logprobs or 0)

    def draw(self) -> Draw | None:
        """See `Sampler.draw`."""
        return self._sampler.draw()

    def advance(self, scores: Floats | int) -> GenerationChunk:
        """Choose a token from logits (V,), which are overwritten, or take the one that an engine chose.

        The last chunk carries the result. Where only the prompt's scores are wanted, it brings no token.
        """
        if self.params.first_logits and not self.generated and not isinstance(scores, int):
            self._first_logits = scores[: self._vocab_size].copy()
        if not self.params.max_new_tokens:
            return self.end("length")
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
        generated = self.generated
        self._last_token_at = time.perf_counter()
        if not self._first_token_at:
            self._first_token_at = self._last_token_at
        text = ""
        if token not in self._ends:
            text = self._stream.push(token, stops=generated > self.params.min_tokens)
        elif (reason := self._ends[token]) is not None:
            return self._final_chunk(text, reason, logprob)
        if self._stream.stopped:
            return self._final_chunk(text, "stop", logprob)
        if self._sampler.finished:
            return self._final_chunk(text, "eos", logprob)
        if generated >= self.params.max_new_tokens:
            return self._final_chunk(text, "length", logprob)
        if len(self.ids) >= self._context:
            return self._final_chunk(text, "context", logprob)
        self._text.append(text)
        return self._chunk(text, token, logprob)

    def end(self, reason: FinishReason) -> GenerationChunk:
        """The last chunk of a text that is interrupted; it brings no token."""
        return self._final_chunk("", reason, None, token=NO_TOKEN)

    def _final_chunk(
        self, text: str, reason: FinishReason, logprob: TokenLogprob | None, token: int | None = None
    ) -> GenerationChunk:
        text += self._stream.finish(stops=self.generated > self.params.min_tokens)
        if self._stream.stopped:  # perhaps only now, by a character that the end completed
            reason = "stop"
        self.reason = reason
        now = time.perf_counter()
        admitted, first = self._admitted_at or now, self._first_token_at or now
        decode_s = self._last_token_at - first if self._last_token_at else 0.0
        tokens = tuple(self.ids[len(self.prompt.ids) :])
        result = GenerationResult(
            text="".join(self._text) + text,
            tokens=tokens,
            prompt_tokens=len(self.prompt.ids),
            finish_reason=reason,
            seed=self._seed,
            time_to_first_token_s=first - self._start,
            tokens_per_second=(len(tokens) - 1) / decode_s if len(tokens) > 1 else 0.0,
            logprobs=None if self.params.logprobs is None else tuple(self._logprobs),
            prompt_logprobs=tuple(self.prompt.logprobs) if self.params.prompt_logprobs else None,
            reused_tokens=self.reused,
            drafted=self.drafted,
            accepted=self.accepted,
            dropped_messages=self.prompt.dropped_messages,
            first_logits=self._first_logits,
            queue_s=admitted - self._start,
            prefill_s=first - admitted,
            decode_s=decode_s,
            stop_match=(self._stream.stopped or self.last_token) if reason == "stop" else None,
        )
        return self._chunk(text, self.last_token if token is None else token, logprob, result)

    def _chunk(
        self, text: str, token: int, logprob: TokenLogprob | None, result: GenerationResult | None = None
    ) -> GenerationChunk:
        return GenerationChunk(
            text,
            token,
            self.prompt.index,
            self.reason,
            result,
            logprob,
            self._completion,
            time.perf_counter(),
        )


def make_sequences(
    engine: Engine, prompts: Sequence[PromptState], params: SamplingParams, cancel: Cancel | None = None
) -> list[SequenceState]:
    """One sequence for each completion of each prompt, which is shorter than the context.

    Completion i of every prompt draws with the seed `params.seed` + i; without one, each prompt gets a fresh
    seed. Raises E_SAMPLING or E_DEPENDENCY for what cannot be had from this model.
    """
    samplers = {
        ends: SamplerFactory(params, engine.tokenizer, ends.union(engine.config.eos_token_ids))
        for ends in {prompt.end_ids for prompt in prompts}
    }
    sequences = []
    for index, prompt in enumerate(prompts):
        prompt.index, prompt.pending = index, params.n
        seed = secrets.randbits(32) if params.seed is None else params.seed
        sequences += [
            SequenceState(
                engine, prompt, samplers[prompt.end_ids], (seed + completion) % _SEEDS, completion, cancel
            )
            for completion in range(params.n)
        ]
    return sequences


def end_reasons(params: SamplingParams, end_ids: Iterable[int]) -> dict[int, FinishReason | None]:
    """Why each of the tokens that mean an end ends a text; None for one that is ignored. They give no text.

    end_ids: those of the model and of the turn, which come before the caller's own (vLLM's `check_stop`).
    """
    ends: dict[int, FinishReason | None] = dict.fromkeys(params.stop_token_ids, "stop")
    for token in end_ids:
        if not params.ignore_eos:
            ends[token] = "eos"
        else:
            ends.setdefault(token, None)
    return ends


def _to_nobody(_: GenerationChunk | Exception) -> None:
    """Where chunks go that nobody waits for."""


class TextStream:
    """Tokens in, text out: UTF-8 decoding, then the stop strings."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._decoder = tokenizer.stream_decoder(continuation=True)
        self._filter = StopFilter(stops)

    @property
    def stopped(self) -> str:
        """The stop string that is complete; empty while none is."""
        return self._filter.stopped

    def push(self, token: int, *, stops: bool = True) -> str:
        """The text that `token` completes. stops: whether it may complete a stop string."""
        return self._filter.push(self._decoder.push(token), stops=stops)

    def finish(self, *, stops: bool = True) -> str:
        """The rest, when no more tokens come."""
        return self._filter.push(self._decoder.finish(), stops=stops) + self._filter.finish()


class StopFilter:
    """Lets text through until a stop string is complete; holds back only what could still begin one.

    The stop string that is complete first wins, whatever the pieces in which the text arrives. A stop string
    in another normal form (NFD, as in the file names of macOS) is looked for as it is and in NFC, which
    tokenizers produce.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        given = {unicodedata.normalize("NFC", stop): stop for stop in reversed(stops)}
        self._stops = given | {stop: stop for stop in stops}
        """What to look for, and what it was given as."""
        self._held = ""
        self.stopped = ""
        """The stop string that is complete, as it was given."""

    def push(self, text: str, *, stops: bool = True) -> str:
        """The part of the text so far that is safe to show.

        Without `stops`, a stop string that this text completes is text like any other; one that it only
        begins may still be completed by the next.
        """
        if not self._stops or self.stopped:
            return "" if self.stopped else text
        pending = self._held + text
        found = []
        for stop in self._stops if stops else ():  # those that end in the new text
            at = pending.find(stop, max(0, len(self._held) + 1 - len(stop)))
            if at >= 0:
                found.append((at + len(stop), at, self._stops[stop]))
        if found:
            _, at, self.stopped = min(found)
            self._held = ""
            return pending[:at]
        safe = len(pending) - self._overlap(pending)
        self._held = pending[safe:]
        return pending[:safe]

    def finish(self) -> str:
        """What was held back, when the text ends without a stop string."""
        held, self._held = self._held, ""
        return held

    def _overlap(self, pending: str) -> int:
        """Length of the longest end of `pending` that begins a stop string."""
        longest = 0
        for stop in self._stops:  # most texts do not even have its first letter so near to their end
            at = pending.find(stop[0], max(0, len(pending) - len(stop) + 1))
            while at >= 0 and not stop.startswith(pending[at:]):
                at = pending.find(stop[0], at + 1)
            if at >= 0:
                longest = max(longest, len(pending) - at)
        return longest
