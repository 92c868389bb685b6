"""Measures one model: `python -m ptbr_slm.bench.generate_measure REQUEST.json ANSWER.json`.

In a process of its own, so that its memory is its own and idle threads of another engine spin on no core that
this one needs. No torch here, unless a model folder is measured, or a peer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ptbr_slm.bench.generate import CaseResult, Figures, GenerateCase, Spread
from ptbr_slm.bench.machine import read_bandwidth
from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.runtime.sampling.params import GREEDY
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.system import peak_rss

Floats = npt.NDArray[np.float32]


class Runner(Protocol):
    """What is measured: our engines, and peers. All texts of a batch are of one length."""

    device: str
    precision: str
    config: ModelConfig

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> Floats:
        """(rows, V) logits after fresh prompts, for `capacity` tokens in each sequence."""

    def decode(self, tokens: Sequence[int]) -> Floats:
        """(rows, V) logits after one token more in each."""

    def choose(self, tokens: Sequence[int]) -> list[int]:
        """The most probable token after one more in each row, chosen where `generate` would choose it."""

    @property
    def kv_bytes(self) -> int | None:
        """Memory of keys and values, as allocated."""

    @property
    def device_bytes(self) -> int | None:
        """Largest memory on the GPU; None on a CPU, or where it is not known."""

    def close(self) -> None:
        """Free the memory."""


class EngineRunner:
    """Ours: the engine below `ptbr_slm.load`."""

    def __init__(self, path: str, device: str) -> None:
        """Raises what `open_engine` raises."""
        from ptbr_slm.runtime.load import open_engine

        self._engine = open_engine(path, device)
        self.device, self.precision = self._engine.device, self._engine.precision
        self.config = self._engine.config
        self._rows: list[int] = []

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> Floats:
        """See `Runner.prefill`."""
        self._rows = list(range(len(prompts)))
        self._engine.reset(len(prompts), capacity)
        return np.stack([self._engine.prefill(row, prompt) for row, prompt in enumerate(prompts)])

    def decode(self, tokens: Sequence[int]) -> Floats:
        """See `Runner.decode`."""
        return self._engine.decode(self._rows, tokens)

    def choose(self, tokens: Sequence[int]) -> list[int]:
        """See `Runner.choose`: on the card where the engine draws there, as `generate` does."""
        if not self._engine.draws_tokens:
            return chosen(self.decode(tokens))
        drawn = self._engine.decode_drawn(self._rows, tokens, [GREEDY] * len(tokens))
        return [int(np.argmax(token)) if np.ndim(token) else int(token) for token in drawn]

    @property
    def kv_bytes(self) -> int | None:
        """See `Runner.kv_bytes`."""
        return self._engine.kv_bytes

    @property
    def device_bytes(self) -> int | None:
        """See `Runner.device_bytes`: ONNX Runtime does not report it."""
        return None

    def close(self) -> None:
        """See `Runner.close`."""
        self._engine.close()


def main() -> None:
    """Answer the question in the first file into the second."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if request["what"] == "bandwidth":
        answer: Any = read_bandwidth(request["threads"])
    else:
        case = GenerateCase(**{**request["case"], "prompts": tuple(request["case"]["prompts"])})
        answer = measure(case).to_json()
    Path(sys.argv[2]).write_text(json.dumps(answer, allow_nan=False), encoding="utf-8")


def measure(case: GenerateCase) -> CaseResult:
    """The figures of a case, or why there are none."""
    try:
        began = time.perf_counter()
        runner = open_runner(case)
        opened = time.perf_counter() - began
        try:
            return _measured(case, runner, opened)
        finally:
            runner.close()
    except SlmError as error:
        status = "oom" if error.exit_code == Exit.RESOURCE else "error"
        return CaseResult(case=case, status=status, reason=f"{error.code}: {error.message}")
    except MemoryError:
        return CaseResult(case=case, status="oom", reason="a memória do computador acabou")


def open_runner(case: GenerateCase) -> Runner:
    """Our engine for an export or a model folder, or a peer's."""
    if case.engine == "transformers":
        return TransformersRunner(Path(case.path), case.device)
    return EngineRunner(case.path, case.device)


def _measured(case: GenerateCase, runner: Runner, opened: float) -> CaseResult:
    context = runner.config.max_seq_len
    fitting = [length for length in case.prompts if length + case.decode <= context]
    skipped = [
        f"{length} + {case.decode} tokens não cabem no contexto de {context}"
        for length in case.prompts
        if length not in fitting
    ]
    weights = weight_bytes(Path(case.path), runner.config)
    figures = [_figures(case, runner, length, weights) for length in fitting]
    return CaseResult(
        case=case,
        device=runner.device,
        precision=runner.precision,
        parameters=runner.config.num_parameters,
        file_bytes=file_bytes(Path(case.path)),
        open_s=opened,
        peak_bytes=peak_rss(),
        device_bytes=runner.device_bytes,
        figures=tuple(figures),
        skipped=tuple(skipped),
    )


def _figures(case: GenerateCase, runner: Runner, length: int, weights: int | None) -> Figures:
    """One round to warm up, then the counted ones; greedy, ids only, no text."""
    config = runner.config
    draw = np.random.default_rng(length)
    prompts = [draw.integers(5, config.vocab_size, length).tolist() for _ in range(case.batch)]
    capacity = length + case.decode
    prefills, firsts, decodes = [], [], []
    for turn in range(case.rounds + 1):
        began = time.perf_counter()
        runner.prefill(prompts[:1], capacity).argmax()
        first = time.perf_counter() - began
        began = time.perf_counter()
        tokens = runner.prefill(prompts, capacity).argmax(axis=1).tolist()
        middle = time.perf_counter()
        for _ in range(case.decode):
            tokens = runner.choose(tokens)
        end = time.perf_counter()
        if turn:
            firsts.append(first)
            prefills.append(case.batch * length / (middle - began))
            decodes.append(case.batch * case.decode / (end - middle))
    cached = 2 * config.num_layers * config.kv_size * (length + case.decode // 2) * case.batch
    element = 2 if runner.device == "cuda" else 4
    return Figures(
        prompt=length,
        batch=case.batch,
        prefill=Spread.of(prefills),
        first_token_s=Spread.of(firsts),
        decode=Spread.of(decodes),
        step_bytes=None if weights is None else weights + cached * element,
        kv_bytes=runner.kv_bytes,
    )


def chosen(logits: Floats) -> list[int]:
    """The most probable token of each row."""
    best: list[int] = logits.argmax(axis=1).tolist()
    return best


def weight_bytes(folder: Path, config: ModelConfig) -> int | None:
    """Bytes of weights that a decode step multiplies with, from the file; None where it is unknown.

    An embedding that is not the head's matrix too is only looked up, and so are the rotation's tables and the
    rows from which an int4 head scores its best logits again.
    """
    graph = folder / "model.onnx"
    if not graph.exists():
        lookups = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size
        return 4 * (config.num_parameters - lookups)
    from ptbr_slm.runtime.engines.onnx.export_folder import external_tensors

    sizes = {tensor.name: tensor.length for tensor in external_tensors(graph)}
    own_head = any(name.startswith("head.") and name.split(".")[1] in ("weight", "codes") for name in sizes)
    looked_up = ("rope.", "head.exact", *(("embedding",) if own_head else ()))
    read = [size for name, size in sizes.items() if not name.startswith(looked_up)]
    return None if any(size is None for size in read) else sum(size or 0 for size in read)


def file_bytes(folder: Path) -> int:
    """Size of the graph and its weights, or of the safetensors."""
    found = [*folder.glob("model.onnx*"), *folder.glob("*.safetensors")]
    return sum(path.stat().st_size for path in found)


class TransformersRunner:
    """transformers as the peer: a static cache and, on a GPU, its forward compiled.

    It does only what it is compared by: the prompt in one call, then one token in and its logits out, greedy.
    Follows transformers' guide (a StaticCache, `torch.compile(mode="reduce-overhead")` for the decode step).
    All sequences are read and decoded together, in fp16 on a GPU. On a CPU it is tested, uncompiled
    (tests/bench/test_generate.py); on a GPU it has never run yet.
    """

    def __init__(self, folder: Path, device: str) -> None:
        """Raises E_DEPENDENCY where transformers is not installed, E_MODEL_INVALID."""
        import importlib.util

        if importlib.util.find_spec("transformers") is None:
            raise SlmError(
                "E_DEPENDENCY",
                "a comparação com o transformers precisa do pacote transformers.",
                where="--peer transformers",
                hint="Instale com:  pip install transformers",
            )
        import torch
        from transformers import AutoModelForCausalLM

        self._torch: Any = torch
        self.config = ModelFolder(folder).config
        on_gpu = device != "cpu" and torch.cuda.is_available()
        self.device = "cuda" if on_gpu else "cpu"
        self.precision = "fp16" if on_gpu else "fp32"
        kind = torch.float16 if on_gpu else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=kind)
        self._model: Any = model.to(self.device).eval()
        self._step: Any = torch.compile(self._model, mode="reduce-overhead") if on_gpu else self._model
        self._shape = (0, 0)
        self._cache: Any = None
        self._length = 0

    @property
    def device_bytes(self) -> int | None:
        """Largest memory on the GPU, as PyTorch allocated it."""
        return int(self._torch.cuda.max_memory_allocated()) if self.device == "cuda" else None

    @property
    def kv_bytes(self) -> int | None:
        """Memory of keys and values."""
        config, element = self.config, 2 if self.device == "cuda" else 4
        rows, capacity = self._shape
        return 2 * config.num_layers * config.kv_size * rows * capacity * element

    def prefill(self, prompts: Sequence[Sequence[int]], capacity: int) -> Floats:
        """(rows, V) logits. The cache is kept from round to round, so that nothing is compiled anew."""
        from transformers import StaticCache

        if self._shape != (len(prompts), capacity):
            self._shape = (len(prompts), capacity)
            self._cache = StaticCache(config=self._model.config, max_cache_len=capacity)
        self._cache.reset()
        self._length = 0
        return self._run(self._model, prompts)

    def decode(self, tokens: Sequence[int]) -> Floats:
        """(rows, V) logits after one token more in each."""
        return self._run(self._step, [[token] for token in tokens])

    def choose(self, tokens: Sequence[int]) -> list[int]:
        """The most probable token of each row, taken from the logits on the host."""
        best: list[int] = self.decode(tokens).argmax(axis=1).tolist()
        return best

    def close(self) -> None:
        """Free the memory."""
        self._model = self._step = self._cache = None

    def _run(self, model: Any, tokens: Sequence[Sequence[int]]) -> Floats:
        torch, start, count = self._torch, self._length, len(tokens[0])
        self._length += count
        with torch.no_grad():  # not inference_mode: the cache is written again outside of it
            output = model(
                torch.tensor([list(row) for row in tokens], device=self.device),
                past_key_values=self._cache,
                cache_position=torch.arange(start, start + count, device=self.device),
                use_cache=True,
                logits_to_keep=1,
            )
            return np.asarray(output.logits[:, -1].float().cpu().numpy())


if __name__ == "__main__":
    main()
