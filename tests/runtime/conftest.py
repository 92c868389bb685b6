"""One small grouped-query model with lively logits, as a model folder and as an fp32 export."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.onnx.engine import OnnxEngine
from ptbr_slm.runtime.torch_engine import TorchEngine
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.model_folder import seal_model_folder, write_model_files
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
    engine = TorchEngine(model_folder)
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
