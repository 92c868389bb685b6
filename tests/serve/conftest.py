"""A server with two tiny exports, `base` without a chat template and `conversa` with one, and clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from gated_engine import GatedEngine
from serving import Served, serving, write_tiny
from toy_engine import ToyEngine

from ptbr_slm.runtime.model import Model
from ptbr_slm.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def tokenizer(texts) -> Tokenizer:
    return Tokenizer.train(texts * 4, 384)


@pytest.fixture
def engine(tokenizer) -> ToyEngine:
    return ToyEngine(tokenizer)


@pytest.fixture(scope="session")
def new_engine(tokenizer) -> Callable[[], ToyEngine]:
    return lambda: ToyEngine(tokenizer)


@pytest.fixture(scope="session")
def exports(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """Folders of both models by name, fp32."""
    from ptbr_slm_export import export_model

    root = tmp_path_factory.mktemp("serve")
    found = {}
    for name in ("base", "conversa"):
        folder = write_tiny(root / name / "final", tokenizer, chat=name == "conversa")
        found[name] = root / name / "export"
        export_model(folder, found[name], precision="fp32", verify=False)
    return found


@pytest.fixture(scope="session")
def server(exports) -> Iterator[Served]:
    models = {name: Model(folder, "cpu") for name, folder in exports.items()}
    with serving(models) as served:
        yield served
    for model in models.values():
        model.close()


@pytest.fixture
def gated(tokenizer) -> GatedEngine:
    """An engine that runs as far as a test lets it."""
    return GatedEngine(tokenizer)


@pytest.fixture(scope="session")
def client(server) -> Iterator[openai.OpenAI]:
    """The real client, which repeats nothing: repeats hide faults."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as found:
        yield found


@pytest.fixture(scope="session")
def http(server) -> Iterator[httpx2.Client]:
    """For what the client does not send."""
    with httpx2.Client(base_url=server.url, timeout=60) as found:
        yield found
