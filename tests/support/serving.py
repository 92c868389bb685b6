"""The real server over tiny models, in this process, on a free port of 127.0.0.1."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from tiny_models import random_weights
from uvicorn import Server

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.model import Model
from ptbr_slm.serve.app import create_app
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.process.server import Running, listen
from ptbr_slm.serve.served import ServedModel, ServedModels
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.model_folder import seal_model_folder, write_model_files
from ptbr_slm.tokenizer import Tokenizer


@dataclass
class Served:
    """What a test sees of a running server."""

    url: str
    """Ends before /v1."""
    port: int
    models: dict[str, Model]
    uvicorn: Server

    @property
    def model(self) -> Model:
        """The first one."""
        return next(iter(self.models.values()))

    @property
    def requests(self) -> int:
        """Requests that are being answered."""
        return len(self.uvicorn.server_state.tasks)

    @property
    def connections(self) -> int:
        """Connections that are open, as far as the server knows."""
        return len(self.uvicorn.server_state.connections)

    @contextmanager
    def holding_the_loop(self) -> Iterator[None]:
        """The server's event loop does nothing inside the `with`."""
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            release.wait(30)

        self.uvicorn.servers[0].get_loop().call_soon_threadsafe(hold)
        assert held.wait(30)
        try:
            yield
        finally:
            release.set()


@contextmanager
def serving(models: dict[str, Model], config: ServeConfig | None = None) -> Iterator[Served]:
    """A server that runs inside the `with`. Closes no model."""
    config = config or ServeConfig()
    served = ServedModels({name: ServedModel(name, model, f"fp_{name}") for name, model in models.items()})
    with listen("127.0.0.1", 0) as listening:
        running = Running(create_app(served, config), listening, config)
        with running:
            port = listening.getsockname()[1]
            yield Served(f"http://127.0.0.1:{port}", port, models, running._server)
        assert not running.alive()


def events_of(client: httpx2.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as it should."""
    answer = client.post(path, json=body | {"stream": True})
    assert answer.status_code == 200, answer.text
    *chunks, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks if not chunk.startswith(":")]


def until(condition: Callable[[], object]) -> None:
    """Wait for what must come to be."""
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.002)


def write_tiny(folder: Path, tokenizer: Tokenizer, *, chat: bool, context: int = 256) -> Path:
    """A model folder of lively random weights. chat: with the template of our tokenizers, and as if tuned."""
    end = tokenizer.token_id("<|im_end|>")
    assert end is not None and tokenizer.eos_id is not None
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2,
        head_dim=16, intermediate_size=96, max_seq_len=context,
        bos_token_id=tokenizer.bos_id, eos_token_ids=(tokenizer.eos_id, end) if chat else (tokenizer.eos_id,),
    )  # fmt: skip
    names: dict[str, Any] = tokenizer.hf_config(
        context, bos=config.bos_token_id, eos=tokenizer.eos_id, pad=tokenizer.pad_id
    )
    if not chat:
        del names["chat_template"]
    companions = {"tokenizer_config.json": json.dumps(names).encode()}
    with atomic_folder(folder) as temporary:
        weights = random_weights(config, 7, scale=6)
        write_model_files(temporary, config, weights, tokenizer, companions)
        seal_model_folder(temporary)
    return folder
