"""What a model is asked before its export is accepted, and its answers. Any `Engine` can be asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ptbr_slm.eval.bits import BitsPerByte, HeldOut, bits_per_byte
from ptbr_slm.eval.held_out import built_in_text, held_out_text
from ptbr_slm.runtime.protocol import Engine, Floats
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm_export.llama import LlamaWeights
from ptbr_slm_export.quantization.activations import Activations

Ids = npt.NDArray[np.int64]

PROMPTS = (
    "O Brasil é",
    "Era uma vez, numa cidade pequena do interior de Minas,",
    "A ciência avança devagar, porque cada resposta",
    "— Bom dia, dona Maria! A senhora vai à feira hoje?",
)
"""Where the greedy texts begin; all of different lengths, so that a batch of them is ragged."""
GREEDY_TOKENS = 64
WINDOW = 512
"""Longest text compared position by position: at 32,000 tokens its logits take 64 MiB."""
CHUNKED = 48
"""Tokens read whole, in two chunks, and one by one."""
DRAFT_TOKENS = 64
"""Of the window, along which a draft layer is asked."""
RAGGED_STEPS = 8
"""Tokens appended to the ragged batch."""
NOISE_TOKENS = 128
"""Read in fp64, one layer in memory at a time: about 4 s for 135M weights on two cores."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Token ids that fit the model's context and vocabulary."""

    prompts: tuple[tuple[int, ...], ...]
    window: tuple[int, ...]
    """A longer text, for every position's logits."""
    held_out: HeldOut


@dataclass(frozen=True, slots=True)
class Greedy:
    """A greedy continuation."""

    tokens: tuple[int, ...]
    gaps: tuple[float, ...]
    """Best minus second best logit at each step: below it no difference can change the choice."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one engine answered."""

    logits: tuple[Floats, ...]
    """(T, V) for the window and for each prompt."""
    greedy: tuple[Greedy, ...]
    bits: BitsPerByte
    draft: Floats | None = None
    """(T - 1, K) what its draft layer expects along the window; None where it has none."""
    noise: float = 0.0
    """Of a reference in fp32: the largest distance of its logits from the same arithmetic in fp64."""


@dataclass(frozen=True, slots=True)
class SelfAgreement:
    """How far an engine's own ways of reading a text lie apart: largest logit difference, and where."""

    chunked: tuple[float, str]
    """Whole prefill against two chunks, one token at a time, and all logits at once."""
    ragged: tuple[float, str]
    """Rows decoded together against each alone."""


def make_probe(model: ModelFolder, data: Path | None) -> Probe:
    """The questions for one model. Raises what `held_out_text` raises."""
    config, tokenizer = model.config, model.tokenizer
    seq_len = min(WINDOW, config.max_seq_len)
    prose, _ = next(built_in_text(tokenizer, seq_len).windows())
    longest = max(1, config.max_seq_len // 2)
    prompts = tuple(tuple(tokenizer.encode(text)[:longest]) for text in PROMPTS)
    return Probe(prompts, tuple(prose.tolist()), held_out_text(model, data=data))


def ask(engine: Engine, probe: Probe, *, greedy: bool, bits: BitsPerByte | None = None) -> Answers:
    """Every position's logits, greedy continuations if wanted, and bits per byte unless they are given."""
    logits = tuple(engine.logits(text) for text in (probe.window, *probe.prompts))
    return Answers(
        logits=logits,
        greedy=tuple(continue_greedily(engine, prompt) for prompt in probe.prompts) if greedy else (),
        bits=bits or held_out_bits(engine, probe, logits[0]),
        draft=draft_scores(engine, probe.window),
    )


def draft_scores(engine: Engine, text: tuple[int, ...]) -> Floats | None:
    """(T - 1, K) what an engine's draft layer expects after each token of a text but the first.

    None where the engine has none.
    """
    if engine.draft_acceptance is None:
        return None
    text = text[:DRAFT_TOKENS]
    engine.reset(1, len(text))
    engine.extend(0, text)
    found = []
    for position in range(len(text) - 1, 0, -1):
        engine.truncate(0, position)
        guess = engine.draft(0, text[position])
        assert guess is not None
        found.append(guess.scores.copy())
    return np.stack(found[::-1])


def held_out_bits(engine: Engine, probe: Probe, window: Floats | None = None) -> BitsPerByte:
    """Bits per byte on the held-out text.

    window: logits of the probe's window, if they are known: the built-in text begins with it.
    """

    def logits(tokens: Sequence[int]) -> Iterator[Floats]:
        known = window is not None and tuple(tokens) == probe.window
        return iter([window]) if known and window is not None else window_logits(engine, tokens)

    return bits_per_byte(logits, probe.held_out)


def window_logits(engine: Engine, tokens: Sequence[int]) -> Iterator[Floats]:
    """Logits of all positions, in parts of at most `WINDOW`, so that a long window's never are in memory."""
    if len(tokens) <= WINDOW:
        yield engine.logits(tokens)
        return
    engine.reset(1, len(tokens))
    for start in range(0, len(tokens), WINDOW):
        yield engine.extend(0, tokens[start : start + WINDOW])


def measure_noise(model: ModelFolder, window: Sequence[int], logits: Floats) -> float:
    """How far fp32 itself lies from exact arithmetic on one model: no export can be asked to agree better.

    Largest distance of `logits` (T, V), which PyTorch computed in fp32 for `window` (T,), from
    fp64, on the first `NOISE_TOKENS` of them. 0 where something is no number: then nothing is forgiven.
    """
    tokens = np.array(window[:NOISE_TOKENS], dtype=np.int64)
    read = model.weights.read
    doubled = LlamaWeights(model.config, lambda name, shape: read(name, shape).astype(np.float64))
    (exact,) = Activations(model.config, doubled, [tokens], watching=False).logits()
    distance = float(np.abs(exact - logits[: len(tokens)]).max())
    return distance if np.isfinite(distance) else 0.0


def continue_greedily(engine: Engine, prompt: Sequence[int]) -> Greedy:
    """The most probable token, 64 times over or up to the end of the context; end tokens do not stop it."""
    count = min(GREEDY_TOKENS, engine.config.max_seq_len - len(prompt))
    engine.reset(1, len(prompt) + count)
    row = engine.prefill(0, prompt)  # (V,)
    tokens: list[int] = []
    gaps: list[float] = []
    for step in range(count):
        if step:
            row = engine.decode([0], tokens[-1:])[0]
        second, best = _top_two(row)
        tokens.append(int(best))
        gaps.append(float(row[best] - row[second]))
    return Greedy(tuple(tokens), tuple(gaps))


def check_self_agreement(engine: Engine, probe: Probe) -> SelfAgreement:
    """Ask the same in different ways."""
    return SelfAgreement(_chunked(engine, probe.window[:CHUNKED]), _ragged(engine, probe))


def _chunked(engine: Engine, text: Sequence[int]) -> tuple[float, str]:
    half = max(1, len(text) // 2)
    engine.reset(3, len(text))
    whole = engine.prefill(0, text)
    engine.prefill(1, text[:half])
    chunked = engine.prefill(1, text[half:]) if text[half:] else whole
    single = engine.prefill(2, text[:1])
    for token in text[1:]:
        single = engine.decode([2], [token])[0]
    differences = {
        f"em blocos de {half} e {len(text) - half} tokens": chunked - whole,
        "token a token": single - whole,
        "todas as posições de uma vez": engine.logits(text)[-1] - whole,
    }
    return max((_largest(difference), name) for name, difference in differences.items())


def _ragged(engine: Engine, probe: Probe) -> tuple[float, str]:
    rows = range(len(probe.prompts))
    steps = min(RAGGED_STEPS, engine.config.max_seq_len - max(map(len, probe.prompts)), len(probe.window))
    capacity = max(map(len, probe.prompts)) + steps
    fed = probe.window[:steps]
    engine.reset(len(rows), capacity)
    together = [[engine.prefill(row, probe.prompts[row])] for row in rows]
    for token in fed:
        for row, logits in zip(rows, engine.decode(list(rows), [token] * len(rows)), strict=True):
            together[row].append(logits)
    worst = (0.0, "")
    for row in rows:
        engine.reset(1, capacity)
        alone = [engine.prefill(0, probe.prompts[row])]
        alone += [engine.decode([0], [token])[0] for token in fed]
        for step, (a, b) in enumerate(zip(together[row], alone, strict=True)):
            if (value := _largest(a - b)) > worst[0]:
                worst = (value, f"linha {row}, passo {step}")
    return worst


def _largest(difference: Floats) -> float:
    """Largest absolute value; infinity where something is not a number."""
    return float(np.nan_to_num(np.abs(difference), nan=np.inf).max())


def _top_two(row: Floats) -> npt.NDArray[np.intp]:
    """Indices of the second best and the best of (V,)."""
    two = np.argpartition(row, -2)[-2:]
    return two[np.argsort(row[two])]
