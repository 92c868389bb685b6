"""One small grouped-query model with lively logits, as a model folder and as an fp32 export."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import random_weights, write_model
from toy_engine import ToyEngine

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.engines.torch import TorchEngine
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer

CONTEXT = 640
"""Beyond two buckets (256 and 512), and not a power of two."""


@pytest.fixture(scope="session")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 4, 384)


@pytest.fixture(scope="session")
def model_folder(tokenizer, tmp_path_factory) -> Path:
    """Two layers, four query heads over two key heads; weights enlarged so that tokens differ clearly."""
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
    path = tmp_path_factory.mktemp("runtime") / "modelo"
    return write_model(path, config, tokenizer, random_weights(config, 7, scale=6), bits_per_byte=2.5)


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

    return np.random.default_rng(3).integers(5, tokenizer.vocab_size, CONTEXT).tolist()


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


@pytest.fixture(scope="session")
def half_folder(cuda_exports) -> Path:
    """An fp16 export for CUDA."""
    return cuda_exports["fp16"]


@pytest.fixture
def quick_switches():
    """Threads change places every 20 microseconds: what can go wrong between two lines does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(before)
