"""The engines that are compared, each behind the same four calls and each in its own best low-level loop.

What a turn holds is the same for all: the prompt in one call and the choice of the first token (prefill),
then `steps` times one token in, logits out, and the next token chosen greedily (decode). Opening the model,
making the KV cache and text are outside.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Turn:
    """One measured turn."""

    prefill_s: float
    decode_s: float
    tokens: tuple[int, ...]
    """The first token and the `steps` after it."""


class Contestant(Protocol):
    """An opened engine with `capacity` tokens of KV cache, on `threads` threads."""

    def __init__(self, path: Path, *, capacity: int, threads: int) -> None: ...

    def turn(self, prompt: Sequence[int], steps: int) -> Turn:
        """Run one prompt from an empty cache, timed."""

    def last_logits(self, prompt: Sequence[int]) -> Floats:
        """(V,) logits after the prompt, to check that all compute the same model."""


class PtbrSlm:
    """Ours, through the runtime's public `Engine`."""

    def __init__(self, path: Path, *, capacity: int, threads: int) -> None:
        from ptbr_slm.runtime.load import open_engine

        self._engine = open_engine(path, device="cpu")
        self._capacity = capacity

    def turn(self, prompt: Sequence[int], steps: int) -> Turn:
        """See `Contestant.turn`."""
        self._engine.reset(1, self._capacity)
        start = time.perf_counter()
        tokens = [int(self._engine.prefill(0, prompt).argmax())]
        middle = time.perf_counter()
        for _ in range(steps):
            tokens.append(int(self._engine.decode([0], tokens[-1:])[0].argmax()))
        return Turn(middle - start, time.perf_counter() - middle, tuple(tokens))

    def last_logits(self, prompt: Sequence[int]) -> Floats:
        """See `Contestant.last_logits`."""
        self._engine.reset(1, self._capacity)
        return self._engine.prefill(0, prompt).copy()


class LlamaCpp:
    """llama.cpp through its C interface: no Python sampler, no text.

    f16 KV cache and flash attention, as its own tools run by default; measured faster here than without.
    """

    def __init__(self, path: Path, *, capacity: int, threads: int) -> None:
        import llama_cpp

        self._c = llama_cpp
        self._llama = llama_cpp.Llama(
            str(path), n_ctx=capacity, n_batch=512, n_threads=threads, n_threads_batch=threads,
            flash_attn=True, verbose=False,
        )  # fmt: skip
        self._context = self._llama.ctx
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocab_size = self._llama.n_vocab()

    def turn(self, prompt: Sequence[int], steps: int) -> Turn:
        """See `Contestant.turn`."""
        self._c.llama_memory_clear(self._memory, True)
        start = time.perf_counter()
        tokens = [int(self._eval(prompt).argmax())]
        middle = time.perf_counter()
        for _ in range(steps):
            tokens.append(int(self._eval(tokens[-1:]).argmax()))
        return Turn(middle - start, time.perf_counter() - middle, tuple(tokens))

    def last_logits(self, prompt: Sequence[int]) -> Floats:
        """See `Contestant.last_logits`."""
        self._c.llama_memory_clear(self._memory, True)
        return self._eval(prompt).copy()

    def _eval(self, tokens: Sequence[int]) -> Floats:
        """Append tokens; (V,) logits after the last, a view of llama.cpp's own memory."""
        array = (self._c.llama_token * len(tokens))(*tokens)
        status = self._c.llama_decode(self._context, self._c.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        pointer = self._c.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self._vocab_size,))


class Genai:
    """onnxruntime-genai's `Generator`, greedy, on the folder that its own model builder wrote."""

    def __init__(self, path: Path, *, capacity: int, threads: int) -> None:
        import onnxruntime_genai as genai

        self._genai = genai
        config = genai.Config(str(path))
        config.overlay(
            json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}})
        )
        self._model = genai.Model(config)
        self._capacity = capacity

    def turn(self, prompt: Sequence[int], steps: int) -> Turn:
        """See `Contestant.turn`."""
        generator = self._generator()
        start = time.perf_counter()
        generator.append_tokens(np.array(prompt, dtype=np.int32))
        generator.generate_next_token()  # the prompt has been run: this chooses the first token only
        middle = time.perf_counter()
        for _ in range(steps):
            generator.generate_next_token()
        end = time.perf_counter()
        return Turn(
            middle - start, end - middle, tuple(int(t) for t in generator.get_sequence(0)[len(prompt) :])
        )

    def last_logits(self, prompt: Sequence[int]) -> Floats:
        """See `Contestant.last_logits`."""
        generator = self._generator()
        generator.append_tokens(np.array(prompt, dtype=np.int32))
        return np.asarray(generator.get_logits(), dtype=np.float32).reshape(-1)

    def _generator(self) -> Any:
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(do_sample=False, max_length=self._capacity, batch_size=1)
        return self._genai.Generator(self._model, params)


class Transformers:
    """transformers in fp32 eager PyTorch with its dynamic cache; logits of the last position only."""

    def __init__(self, path: Path, *, capacity: int, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        transformers.logging.set_verbosity_error()
        self._torch, self._cache_class = torch, transformers.DynamicCache
        self._model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    def turn(self, prompt: Sequence[int], steps: int) -> Turn:
        """See `Contestant.turn`."""
        cache = self._cache_class()
        start = time.perf_counter()
        tokens = [int(self._eval(prompt, cache).argmax())]
        middle = time.perf_counter()
        for _ in range(steps):
            tokens.append(int(self._eval(tokens[-1:], cache).argmax()))
        return Turn(middle - start, time.perf_counter() - middle, tuple(tokens))

    def last_logits(self, prompt: Sequence[int]) -> Floats:
        """See `Contestant.last_logits`."""
        return np.asarray(self._eval(prompt, self._cache_class()).numpy(), dtype=np.float32)

    def _eval(self, tokens: Sequence[int], cache: Any) -> Any:
        """Append tokens; (V,) logits after the last."""
        with self._torch.inference_mode():
            ids = self._torch.tensor([list(tokens)])
            return self._model(ids, past_key_values=cache, logits_to_keep=1).logits[0, -1]
