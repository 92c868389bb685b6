"""One small grouped-query model with lively logits, as a model folder and as an fp32 export."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.engines.torch import TorchEngine
from ptbr_slm.runtime.protocol import closed_error
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.model_folder import ModelFolder, seal_model_folder, write_model_files
from ptbr_slm.tokenizer import Tokenizer

CONTEXT = 640
"""Beyond two buckets (256 and 512), and not a power of two."""


@pytest.fixture(scope="session")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 4, 384)


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory) -> Path:
    """Two layers, four query heads over two key heads; weights enlarged so that tokens differ clearly."""
    from ptbr_slm.model import Llama

    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        intermediate_size=96,
        max_seq_len=CONTEXT,
        tie_embeddings=False,
    )
    weights = Llama(config).initialize(seed=7).to_hf_weights()
    enlarged = {name: w * (6 if w.ndim == 2 else 1) for name, w in weights.items()}
    path = tmp_path_factory.mktemp("runtime") / "modelo"
    with atomic_folder(path) as folder:
        write_model_files(folder, config, enlarged, tokenizer)
        seal_model_folder(folder, bits_per_byte=2.5)
    return path


@pytest.fixture(scope="session")
def export_folder(model_folder) -> Path:
    from ptbr_slm_export import export_model

    path = model_folder.parent / "export"
    export_model(model_folder, path, precision="fp32", verify=False)
    return path


@pytest.fixture(scope="session")
def onnx_engine(export_folder):
    engine = OnnxEngine(export_folder)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def torch_engine(model_folder):
    engine = TorchEngine(ModelFolder(model_folder))
    yield engine
    engine.close()


@pytest.fixture(params=["onnx", "torch"])
def engine(request, onnx_engine, torch_engine):
    """Both engines keep the same promises."""
    return onnx_engine if request.param == "onnx" else torch_engine


@pytest.fixture(scope="session")
def ids(tokenizer) -> list[int]:
    """A text of `CONTEXT` ids without special tokens."""
    import numpy as np

    return np.random.default_rng(3).integers(5, tokenizer.vocab_size, CONTEXT).tolist()


class ToyEngine:
    """`Engine` without a model: logits are a hash of the slot's tokens, so any mix-up of slots shows.

    memory: how many of the last tokens count, all without one; with one the text soon repeats itself.
    fail: called with (what, slots) before each run; may raise.
    """

    name = "toy"
    device = "cpu"
    draws_tokens = False
    kv_bytes = 0

    def __init__(self, tokenizer, precision="fp32", memory=None, context=512):
        self.tokenizer = tokenizer
        self.precision = precision
        self.config = ModelConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=64,
            num_layers=1,
            num_heads=1,
            num_kv_heads=1,
            head_dim=64,
            intermediate_size=64,
            max_seq_len=context,
        )
        self.memory = memory
        shape = (1000, self.config.vocab_size)
        self.table = np.random.default_rng(1).standard_normal(shape, dtype=np.float32) * 2
        self.fail = lambda what, slots: None
        self.slots: dict[int, list[int]] = {}
        self.runs: list[tuple[str, int]] = []  # (what, tokens)
        self.most_slots = 0
        self.closed = False

    def open_slot(self):
        slot = next(slot for slot in range(len(self.slots) + 1) if slot not in self.slots)
        self.slots[slot] = []
        self.most_slots = max(self.most_slots, len(self.slots))
        return slot

    def close_slot(self, slot):
        del self.slots[slot]  # twice is an error here

    def length(self, slot):
        return len(self.slots[slot])

    def truncate(self, slot, length):
        del self.slots[slot][length:]

    def copy_prefix(self, source, target, length):
        assert length <= len(self.slots[source])
        self.slots[target] = self.slots[source][:length]

    def prefill(self, slot, tokens):
        return self._run("prefill", [slot], [tokens])[0]

    def extend(self, slot, tokens):
        return self._run("extend", [slot] * len(tokens), [[token] for token in tokens])

    def decode(self, slots, tokens):
        assert len(set(slots)) == len(slots) == len(tokens)
        return self._run("decode", slots, [[token] for token in tokens])

    def close(self):
        self.closed = True

    def _run(self, what, slots, pieces):
        """(len(slots), V) logits after each piece."""
        if self.closed:
            raise closed_error()
        assert all(pieces)
        self.runs.append((what, sum(map(len, pieces))))
        self.fail(what, list(dict.fromkeys(slots)))
        logits = []
        for slot, piece in zip(slots, pieces, strict=True):
            ids = self.slots[slot]
            ids += piece
            assert len(ids) <= self.config.max_seq_len
            mixed = hash(tuple(ids[-(self.memory or 0) :]))
            logits.append(self.table[mixed % 997] + self.table[mixed // 997 % 991])
        return np.stack(logits)


@pytest.fixture
def toy(tokenizer):
    """Makes toy engines."""
    return functools.partial(ToyEngine, tokenizer)


@pytest.fixture(scope="session")
def cuda_exports(model_folder) -> dict[str, Path]:
    """Exports for CUDA, by precision."""
    from ptbr_slm_export import export_model

    found = {}
    for precision in ("fp16", "int8", "int4"):
        found[precision] = model_folder.parent / f"cuda-{precision}"
        export_model(model_folder, found[precision], target="cuda", precision=precision, verify=False)
    return found
