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

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.protocol import PREFILL_CHUNK, Engine, Floats
from ptbr_slm.runtime.sequence import Cancel
from ptbr_slm.tokenizer import Tokenizer

Request = tuple[str, Sequence[str]]
"""A prompt and its continuations."""

_WINDOW = 256
"""Requests read ahead and sorted, so that those that begin alike are neighbours."""
_ROWS_AT_ONCE = 64
"""Rows of logits normalised at once: 8 MiB at 32,000 tokens."""


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


def encode_pair(tokenizer: Tokenizer, config: ModelConfig, prompt: str, continuation: str) -> EncodedPair:
    """Ids of a continuation after its prompt. Raises E_PROMPT or E_PROMPT_TOO_LONG.

    Where a token spans the border so that nothing lies beyond the prompt's encoding, the continuation is
    encoded alone (lm-evaluation-harness fails there).
    """
    kept = prompt.rstrip()
    rest = prompt[len(kept) :] + continuation
    before = tokenizer.encode(kept)
    targets = tokenizer.encode(kept + rest)[len(before) :] or tokenizer.encode(rest, special=False)
    if not before:
        before = [_first_token(config)]
    context = config.max_seq_len
    if len(targets) > context:
        raise SlmError(
            "E_PROMPT_TOO_LONG",
            f"a continuação tem {len(targets)} tokens; o contexto do modelo é de {context}.",
            where="continuations",
            hint="Use uma continuação mais curta, ou Model.logprobs para um texto longo.",
        )
    cut = max(0, len(before) + len(targets) - (context + 1))
    return EncodedPair((*before[cut:], *targets[:-1]), tuple(targets), cut)


def target_logprobs(
    logits: Floats, targets: Sequence[int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """log p(target) in nats, and whether none is more probable: logits (T, V), targets (T,) -> (T,), (T,)"""
    logprobs, greedy = np.empty(len(targets)), np.empty(len(targets), dtype=np.bool_)
    for start in range(0, len(targets), _ROWS_AT_ONCE):
        rows = logits[start : start + _ROWS_AT_ONCE]
        wanted = np.asarray(targets[start : start + len(rows)])
        best = rows.argmax(axis=1)
        every = np.arange(len(rows))
        peak = rows[every, best]
        total = np.exp(rows - peak[:, None]).sum(axis=1, dtype=np.float64)
        logprobs[start : start + len(rows)] = rows[every, wanted] - peak - np.log(total)
        greedy[start : start + len(rows)] = best == wanted
    return logprobs, greedy


class Scorer:
    """Scores continuations on one engine, between the steps of the texts that it generates."""

    def __init__(self, engine: Engine, turn: Callable[[], AbstractContextManager[None]]) -> None:
        """turn: the engine for us alone, for the length of a `with` block."""
        self._engine, self._turn = engine, turn

    def score(
        self,
        requests: Iterable[Request],
        cancel: Cancel | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Generator[list[ContinuationScore]]:
        """The scores of each request's continuations, in the order of the requests; fewer once cancelled.

        progress: called with the number of requests done.
        """
        done = 0
        source = iter(requests)
        while window := list(islice(source, _WINDOW)):
            encoded = [self._encode(prompt, continuations) for prompt, continuations in window]
            order = sorted(range(len(window)), key=lambda index: [pair.ids for pair in encoded[index][:1]])
            scores: dict[int, list[ContinuationScore]] = {}
            for index in order:
                if cancel is not None and cancel.cancelled:
                    break
                found = [self._score(pair) for pair in encoded[index]]
                scores[index] = [
                    ContinuationScore(
                        float(logprobs.sum()),
                        len(logprobs),
                        len(continuation.encode("utf-8")),
                        bool(greedy.all()),
                        pair.cut,
                    )
                    for (logprobs, greedy), pair, continuation in zip(
                        found, encoded[index], window[index][1], strict=True
                    )
                ]
                done += 1
                if progress is not None:
                    progress(done)
            for index in range(len(window)):
                if index not in scores:
                    return
                yield scores[index]

    def _encode(self, prompt: str, continuations: Sequence[str]) -> list[EncodedPair]:
        engine = self._engine
        _check_request(prompt, continuations)
        return [encode_pair(engine.tokenizer, engine.config, prompt, text) for text in continuations]

    def _score(self, pair: EncodedPair) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        engine, ids = self._engine, pair.ids
        with self._turn():
            slot = engine.open_slot()
        try:
            silent = pair.start - 1
            for start in range(0, silent, PREFILL_CHUNK):
                with self._turn():
                    engine.prefill(slot, ids[start : min(silent, start + PREFILL_CHUNK)])
            parts = []
            for start in range(silent, len(ids), PREFILL_CHUNK):
                with self._turn():
                    logits = engine.extend(slot, ids[start : start + PREFILL_CHUNK])
                targets = pair.targets[start - silent : start - silent + len(logits)]
                parts.append(target_logprobs(logits, targets))
        finally:
            engine.close_slot(slot)
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


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
