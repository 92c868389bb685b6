"""Decode of many texts at once, 1 to 16: ours against llama.cpp and onnxruntime-genai, with the same weights.

    python benchmarks/batches.py            # the table on the terminal
    python benchmarks/batches.py --write    # and into docs/benchmarks.md

Every sequence reads the same prompt from its own cache; the time is that of all their tokens after it. The
files are those of benchmarks/inference.py, made where they are missing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from arguments import contest_parser
from contest import Entry, Rules, hold
from contestants import Floats, Genai, LlamaCpp, PtbrSlm, Turn
from inference import PACKAGES, random_prompt
from machine import facts
from results import command, progress, spread, table, write_section

BATCHES = (1, 2, 4, 8, 16)
CAPACITY = 256
"""Tokens of KV cache a sequence."""


class PtbrSlmBatch(PtbrSlm):
    """Ours: one slot a sequence, all decoded in one call."""

    def __init__(self, path: Path, *, capacity: int, threads: int, batch: int) -> None:
        super().__init__(path, capacity=capacity, threads=threads)
        self._slots = list(range(batch))

    def turn(self, prompt: Sequence[int], steps: int) -> Turn:
        """See `Contestant.turn`; the tokens are those of the first sequence."""
        self._engine.reset(len(self._slots), self._capacity)
        start = time.perf_counter()
        tokens = [[int(self._engine.prefill(slot, prompt).argmax()) for slot in self._slots]]
        middle = time.perf_counter()
        for _ in range(steps):
            tokens.append(self._engine.decode(self._slots, tokens[-1]).argmax(axis=1).tolist())
        return Turn(
            middle - start, time.perf_counter() - middle, tuple(step_tokens[0] for step_tokens in tokens)
        )


class LlamaCppBatch(LlamaCpp):
    """llama.cpp: sequences in one `llama_batch`, each with a cache of its own."""

    def __init__(self, path: Path, *, capacity: int, threads: int, batch: int) -> None:
        super().__init__(path, capacity=capacity, threads=threads)
        self._count = batch
        params = self._c.llama_context_default_params()
        params.n_ctx, params.n_seq_max = capacity * batch, batch
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = self._c.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self._many = self._c.llama_init_from_model(self._llama.model, params)
        self._cells = self._c.llama_get_memory(self._many)
        self._batch = self._c.llama_batch_init(512, 0, 1)

    def turn(self, prompt: Sequence[int], steps: int) -> Turn:
        """See `Contestant.turn`; the tokens are those of the first sequence."""
        self._c.llama_memory_clear(self._cells, True)
        start = time.perf_counter()
        firsts = []
        for sequence in range(self._count):
            last = len(prompt) - 1
            self._run([(token, at, sequence, at == last) for at, token in enumerate(prompt)])
            firsts.append(int(self._scores(last).argmax()))
        tokens = [firsts]
        middle = time.perf_counter()
        for step in range(steps):
            self._run(
                [(token, len(prompt) + step, sequence, True) for sequence, token in enumerate(tokens[-1])]
            )
            tokens.append([int(self._scores(sequence).argmax()) for sequence in range(self._count)])
        return Turn(
            middle - start, time.perf_counter() - middle, tuple(step_tokens[0] for step_tokens in tokens)
        )

    def _run(self, items: Sequence[tuple[int, int, int, bool]]) -> None:
        """Decode (token, position, sequence, wanted) items as one batch."""
        self._batch.n_tokens = len(items)
        for index, (token, position, sequence, wanted) in enumerate(items):
            self._batch.token[index], self._batch.pos[index] = token, position
            self._batch.n_seq_id[index], self._batch.seq_id[index][0] = 1, sequence
            self._batch.logits[index] = wanted
        status = self._c.llama_decode(self._many, self._batch)
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")

    def _scores(self, index: int) -> Floats:
        pointer = self._c.llama_get_logits_ith(self._many, index)
        return np.ctypeslib.as_array(pointer, shape=(self._vocab_size,))


class GenaiBatch(Genai):
    """onnxruntime-genai's batched `Generator`."""

    def __init__(self, path: Path, *, capacity: int, threads: int, batch: int) -> None:
        super().__init__(path, capacity=capacity, threads=threads)
        self._count = batch

    def turn(self, prompt: Sequence[int], steps: int) -> Turn:
        """See `Contestant.turn`; the tokens are those of the first sequence."""
        generator = self._generator()
        start = time.perf_counter()
        generator.append_tokens(np.array([prompt] * self._count, dtype=np.int32))
        generator.generate_next_token()
        middle = time.perf_counter()
        for _ in range(steps):
            generator.generate_next_token()
        end = time.perf_counter()
        tokens = generator.get_sequence(0)[len(prompt) :]
        return Turn(middle - start, end - middle, tuple(int(token) for token in tokens))

    def last_logits(self, prompt: Sequence[int]) -> Floats:
        """Not asked of a batch."""
        return np.zeros(1, dtype=np.float32)

    def _generator(self) -> Any:
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(do_sample=False, max_length=self._capacity, batch_size=self._count)
        return self._genai.Generator(self._model, params)


def main() -> None:
    arguments = _arguments()
    from entries import make_entries  # heavy, and the players import this file too

    about = facts(PACKAGES, arguments.threads)
    _, made = make_entries(arguments.size, arguments.folder / arguments.size, progress, keep=True)
    paths = {(entry.tool, entry.weights): entry.path for entry in made}
    contenders = [
        ("ptbr-slm", "int4", PtbrSlmBatch),
        ("ptbr-slm", "int4, int8 head", PtbrSlmBatch),
        ("ptbr-slm", "int8", PtbrSlmBatch),
        ("onnxruntime-genai", "int4", GenaiBatch),
        ("llama.cpp", "Q4_0", LlamaCppBatch),
        ("llama.cpp", "Q8_0", LlamaCppBatch),
    ]
    rules = Rules(
        prompt=random_prompt(arguments.prompt_tokens),
        steps=arguments.decode_tokens,
        rounds=arguments.rounds,
        capacity=CAPACITY,
        threads=arguments.threads,
    )
    speeds: dict[int, list[list[float]]] = {}
    for batch in BATCHES:
        progress(f"batch {batch}")
        entries = [
            Entry(tool, weights, partial(kind, batch=batch), paths[tool, weights])
            for tool, weights, kind in contenders
        ]
        scores = hold(entries, rules, progress)
        speeds[batch] = [[batch * rules.steps / turn.decode_s for turn in s.turns] for s in scores]
    text = "\n\n".join([f"`{command()}`", about, _about(arguments), _table(contenders, speeds)])
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section("batches", text)


def _about(arguments: argparse.Namespace) -> str:
    return (
        f"{arguments.size}: decode tokens/s of all sequences together, each after a prompt of "
        f"{arguments.prompt_tokens} tokens; {arguments.decode_tokens} steps, {arguments.rounds} rounds."
    )


def _table(contenders: Sequence[tuple[str, str, Any]], speeds: dict[int, list[list[float]]]) -> str:
    rows = [
        [f"{tool} {weights}", *(spread(speeds[batch][index]) for batch in speeds)]
        for index, (tool, weights, _) in enumerate(contenders)
    ]
    return table(["", *(f"batch {batch}" for batch in speeds)], rows)


def _arguments() -> argparse.Namespace:
    parser = contest_parser(__doc__, rounds=5)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--decode-tokens", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    main()
