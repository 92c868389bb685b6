"""Log probabilities of given continuations: what evaluations of language models are made of.

The semantics are those of `loglikelihood` in lm-evaluation-harness 0.4.13 (lm_eval/api/model.py,
lm_eval/models/huggingface.py), so that scores agree:

- The spaces that end a prompt belong to the continuation, whose first token they mostly start.
- A continuation's tokens are what the encoding of the whole has beyond that of the prompt alone.
- The prompt begins as the tokenizer begins a text (ours with `<|bos|>`). An empty one is that token alone.
- What the context does not hold is cut from the left of the prompt.

Unlike there, special tokens that are spelled out in a text stay text.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.cache import common_length
from ptbr_slm.runtime.protocol import PREFILL_CHUNK, Engine, check_ids, check_length
from ptbr_slm.runtime.sequence import Cancel
from ptbr_slm.runtime.targets import ScoringSession, Targets, TokenScores
from ptbr_slm.tokenizer import Tokenizer

Request = tuple[str, Sequence[str]]
"""A prompt and its continuations."""


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """A prompt and its continuations as ids, read as they are: a conversation's, which no text can give."""

    prompt: tuple[int, ...]
    """At least one id."""
    continuations: tuple[tuple[int, ...], ...]
    """Each of at least one id."""


_WINDOW = 256
"""Requests read ahead and sorted, so that those that begin alike are neighbours."""
_POLITE_CHUNK = 64
"""Tokens run at once while texts are generated, which wait for them."""

_SHORT_PROMPT = 8
"""Tokens up to which a prompt is run again with each continuation, many texts side by side."""

_SHORT_TEXT = 64
"""Tokens up to which texts side by side are faster than alone (fp32; 32 in int8)."""


@dataclass(frozen=True, slots=True)
class ContinuationScore:
    """How probable a continuation is after its prompt."""

    logprob: float
    """Nats, summed over the continuation's tokens."""
    tokens: int
    """Of the continuation, with the spaces that end the prompt."""
    bytes: int
    """Of the continuation's UTF-8, as it was given."""
    is_greedy: bool
    """Whether each of its tokens is the most probable one."""
    prompt_tokens_cut: int
    """Tokens at the prompt's beginning that the context did not hold."""


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A continuation after its prompt, cut to the context."""

    ids: tuple[int, ...]
    """What the model reads: the prompt and the continuation but its last token."""
    targets: tuple[int, ...]
    """The continuation, each predicted after one of the last of `ids`."""
    cut: int
    """Tokens cut from the left of the prompt."""

    @property
    def start(self) -> int:
        """Tokens of the prompt: position in the whole of the first target."""
        return len(self.ids) + 1 - len(self.targets)


def encode_pairs(
    tokenizer: Tokenizer, config: ModelConfig, prompt: str, continuations: Sequence[str]
) -> list[EncodedPair]:
    """Ids of each continuation after the prompt. Raises E_PROMPT or E_PROMPT_TOO_LONG.

    Where a token spans the border so that nothing lies beyond the prompt's encoding, the continuation is
    encoded alone (lm-evaluation-harness fails there).
    """
    kept = prompt.rstrip()
    own = tokenizer.encode(kept)
    before = own or [_first_token(config)]
    found = []
    for continuation in continuations:
        rest = prompt[len(kept) :] + continuation
        targets = tokenizer.encode(kept + rest)[len(own) :] or tokenizer.encode(rest, special=False)
        found.append(_pair(before, targets, config.max_seq_len))
    return found


def _pair(before: Sequence[int], targets: Sequence[int], context: int) -> EncodedPair:
    """A continuation with as much of the prompt as the context holds. Raises E_PROMPT_TOO_LONG."""
    if len(targets) > context:
        raise SlmError(
            "E_PROMPT_TOO_LONG",
            f"a continuação tem {len(targets)} tokens; o contexto do modelo é de {context}.",
            where="continuations",
            hint="Use uma continuação mais curta, ou Model.logprobs para um texto em partes.",
        )
    cut = max(0, len(before) + len(targets) - (context + 1))
    return EncodedPair((*before[cut:], *targets[:-1]), tuple(targets), cut)


class Scorer:
    """Scores continuations on one engine, between the steps of the texts that it generates."""

    def __init__(self, engine: Engine, turn: Callable[[], AbstractContextManager[bool]]) -> None:
        """turn: the engine for us alone, for the length of a `with` block; True while texts are generated."""
        self._engine, self._turn = engine, turn

    def score(
        self,
        requests: Iterable[Request | EncodedRequest],
        cancel: Cancel | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Generator[list[ContinuationScore]]:
        """The scores of each request's continuations, in the order of the requests; fewer once cancelled.

        progress: called with the number of requests done.
        """
        done = 0
        source = iter(requests)
        with self._session() as session:
            while window := list(islice(source, _WINDOW)):
                plan = _Plan([self._encode(request) for request in window])
                for finished in _Run(session, self._turn, plan).steps():
                    if cancel is not None and cancel.cancelled:
                        break
                    if finished and progress is not None:
                        progress(done + finished)
                for request, pairs, scores in zip(window, plan.pairs, plan.scores, strict=True):
                    found = [score for score in scores if score is not None]
                    if len(found) < len(pairs):
                        return
                    sizes = self._sizes(request)
                    yield [_summary(*each) for each in zip(sizes, pairs, found, strict=True)]
                done += len(window)

    def logprobs(self, tokens: Sequence[int]) -> npt.NDArray[np.float64]:
        """(T - 1,) nats of each token but the first, given those before it."""
        check_ids(self._engine.config, tokens)
        check_length(len(tokens) - 1, self._engine.config.max_seq_len)
        with self._session() as session:
            with self._turn():
                session.prepare(len(tokens))
            run = _Run(session, self._turn, _Plan([]))
            for _ in run.append(tokens[:-1], Targets.following(0, tokens[1:])):
                pass
            return run.appended.logprobs

    @contextmanager
    def _session(self) -> Iterator[ScoringSession]:
        with self._turn():
            session = self._engine.scoring()
        try:
            yield session
        finally:
            session.close()

    def _encode(self, request: Request | EncodedRequest) -> list[EncodedPair]:
        engine = self._engine
        if isinstance(request, EncodedRequest):
            for ids in (request.prompt, *request.continuations):
                check_ids(engine.config, ids)
            context = engine.config.max_seq_len
            return [_pair(request.prompt, targets, context) for targets in request.continuations]
        prompt, continuations = request
        _check_request(prompt, continuations)
        return encode_pairs(engine.tokenizer, engine.config, prompt, continuations)

    def _sizes(self, request: Request | EncodedRequest) -> list[int]:
        """UTF-8 bytes of each continuation."""
        if isinstance(request, EncodedRequest):
            lengths = self._engine.tokenizer.byte_lengths
            known = [[token for token in ids if token < len(lengths)] for ids in request.continuations]
            return [int(lengths[ids].sum()) for ids in known]
        return [len(text.encode("utf-8")) for text in request[1]]


class _Plan:
    """What is to be run for some requests, and what came of it."""

    def __init__(self, pairs: Sequence[Sequence[EncodedPair]]) -> None:
        self.pairs = pairs
        self.scores: list[list[TokenScores | None]] = [[None] * len(each) for each in pairs]
        """By request and continuation."""
        self._left = [len(each) for each in pairs]
        self.finished = 0
        """Requests whose continuations are all scored."""
        self.prompts: dict[tuple[int, ...], list[_Item]] = {}
        """Continuations by what comes before them, sorted so that those that begin alike are neighbours."""
        found: dict[tuple[int, ...], list[_Item]] = {}
        for request, each in enumerate(pairs):
            for number, pair in enumerate(each):
                found.setdefault(pair.ids[: pair.start], []).append(_Item(request, number, pair))
        for prompt in sorted(found):
            self.prompts[prompt] = found[prompt]
        self.finished = sum(not left for left in self._left)

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max((len(pair.ids) for each in self.pairs for pair in each), default=1)

    def add(self, item: _Item, scores: TokenScores) -> None:
        """A continuation is scored."""
        self.scores[item.request][item.number] = scores
        self._left[item.request] -= 1
        self.finished += not self._left[item.request]


@dataclass(frozen=True, slots=True)
class _Item:
    """One continuation of one request."""

    request: int
    number: int
    pair: EncodedPair

    @property
    def tail(self) -> tuple[int, ...]:
        """Tokens that the model reads after the prompt: the continuation but its last."""
        return self.pair.targets[:-1]


class _Run:
    """Works through a plan. Its generators yield after each run of the model, outside of the turn."""

    def __init__(
        self, session: ScoringSession, turn: Callable[[], AbstractContextManager[bool]], plan: _Plan
    ) -> None:
        self._session, self._turn, self._plan = session, turn, plan
        self._trunk: tuple[int, ...] = ()
        self._branches: list[tuple[_Item, TokenScores]] = []
        """With the score of the first token, which the prompt gave."""
        self.appended = TokenScores.concatenated([])
        """What the last `append` found."""

    def steps(self) -> Iterator[int]:
        """The number of requests finished so far, after each run."""
        session, plan = self._session, self._plan
        with self._turn():
            session.prepare(plan.longest)
        short: list[_Item] = []
        prompts = list(plan.prompts)
        for index, prompt in enumerate(prompts):
            items = plan.prompts[prompt]
            neighbours = prompts[max(0, index - 1) : index] + prompts[index + 1 : index + 2]
            shared = max((_common(prompt, other) for other in neighbours), default=0)
            alone = len(items) == 1 and 2 * shared < len(prompt)
            if session.texts_tokens and (alone or len(prompt) <= _SHORT_PROMPT):
                short += [item for item in items if len(item.pair.ids) <= _SHORT_TEXT]
                items = [item for item in items if len(item.pair.ids) > _SHORT_TEXT]
            if items:
                yield from self._prompt(prompt, items)
        yield from self._flush()
        yield from self._texts(short)

    def append(self, tokens: Sequence[int], targets: Targets) -> Iterator[int]:
        """Append to the trunk in as many runs as it takes; the scores are in `appended`."""
        parts = []
        start = 0
        while start < len(tokens):
            with self._turn() as generating:
                stop = min(len(tokens), start + (_POLITE_CHUNK if generating else PREFILL_CHUNK))
                parts.append(self._session.append(tokens[start:stop], targets.within(start, stop)))
            start = stop
            yield self._plan.finished
        self.appended = TokenScores.concatenated(parts)

    def _prompt(self, prompt: tuple[int, ...], items: Sequence[_Item]) -> Iterator[int]:
        """A prompt and its continuations: the longest with it in one run, the others from where it ends."""
        first, *others = sorted(items, key=lambda item: -len(item.tail))
        # The last token runs again for its logits.
        common = min(_common(self._trunk, prompt), len(prompt) - 1)
        self._session.truncate(common)
        self._trunk = prompt[:common]
        last = len(prompt) - 1 - common
        heads = [item.pair.targets[0] for item in others]
        targets = Targets(
            np.concatenate([np.full(len(heads), last), np.arange(last, last + len(first.pair.targets))]),
            np.array([*heads, *first.pair.targets]),
        )
        yield from self.append([*prompt[common:], *first.tail], targets)
        scores = self.appended
        self._plan.add(first, scores.part(len(heads), None))
        self._session.truncate(len(prompt))
        self._trunk = prompt
        for index, item in enumerate(others):
            head = scores.part(index, index + 1)
            targets = Targets.following(0, item.pair.targets[1:])
            if not item.tail:
                self._plan.add(item, head)
            elif len(item.tail) > self._session.branch_tokens:
                yield from self.append(item.tail, targets)
                self._session.truncate(len(prompt))
                self._plan.add(item, TokenScores.concatenated([head, self.appended]))
            else:
                if not self._session.branches_free:
                    yield from self._flush()
                self._session.branch(item.tail, targets)
                self._branches.append((item, head))
        yield self._plan.finished

    def _flush(self) -> Iterator[int]:
        """Run the branches to their ends."""
        more = bool(self._branches)
        while more:
            with self._turn():
                more = self._session.step()
            yield self._plan.finished
        for (item, head), scores in zip(self._branches, self._session.take(), strict=True):
            self._plan.add(item, TokenScores.concatenated([head, scores]))
        self._branches = []
        yield self._plan.finished

    def _texts(self, items: Sequence[_Item]) -> Iterator[int]:
        """Short texts side by side, those of about the same length together."""
        waiting = sorted(items, key=lambda item: len(item.pair.ids))
        while waiting:
            with self._turn() as generating:
                budget = self._session.texts_tokens // (4 if generating else 1)
                longest = len(waiting[-1].pair.ids)
                count = max(1, min(budget // longest, self._session.branches_free))
                chosen, waiting = waiting[-count:], waiting[:-count]
                found = self._session.texts(
                    [item.pair.ids for item in chosen],
                    [Targets.following(item.pair.start - 1, item.pair.targets) for item in chosen],
                )
            for item, scores in zip(chosen, found, strict=True):
                self._plan.add(item, scores)
            yield self._plan.finished


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return common_length(np.array(one, dtype=np.int64), other)


def _summary(size: int, pair: EncodedPair, scores: TokenScores) -> ContinuationScore:
    return ContinuationScore(
        logprob=float(scores.logprobs.sum()),
        tokens=len(pair.targets),
        bytes=size,
        is_greedy=bool(scores.greedy.all()),
        prompt_tokens_cut=pair.cut,
    )


def _first_token(config: ModelConfig) -> int:
    """What stands before a text whose tokenizer puts nothing there: the BOS, or the end of another text."""
    ids = [config.bos_token_id, *config.eos_token_ids]
    found = next((token for token in ids if token is not None), None)
    if found is None:
        raise SlmError(
            "E_PROMPT",
            "o texto inicial está vazio, e o modelo não tem um token de início.",
            where="prompt",
            hint="Dê um texto inicial a cada continuação.",
        )
    return found


def _check_request(prompt: object, continuations: object) -> None:
    """Raises E_PROMPT for what is no text, and for a continuation without text."""
    if not isinstance(prompt, str):
        raise SlmError(
            "E_PROMPT",
            f"o texto inicial deve ser texto (str), e não {type(prompt).__name__}.",
            where="prompt",
            hint='Exemplo: model.score("A capital do Brasil é", [" Brasília", " Lisboa"])',
        )
    if isinstance(continuations, str | bytes) or not isinstance(continuations, Sequence):
        raise SlmError(
            "E_PROMPT",
            f"as continuações devem ser uma lista de textos, e não {type(continuations).__name__}.",
            where="continuations",
            hint='Exemplo: model.score("A capital do Brasil é", [" Brasília", " Lisboa"])',
        )
    for index, text in enumerate(continuations):
        if not isinstance(text, str) or not text:
            what = "está vazia" if isinstance(text, str) else f"não é texto, e sim {type(text).__name__}"
            raise SlmError(
                "E_PROMPT",
                f"a continuação {index} {what}.",
                where="continuations",
                hint="Cada continuação é um texto com pelo menos um caractere.",
            )
