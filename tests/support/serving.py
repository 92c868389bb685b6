"""The real server over tiny models, in this process, on a free port of 127.0.0.1."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from tiny_models import random_weights

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.model import Model
from ptbr_slm.serve.app import create_app
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.served import ServedModel, ServedModels
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.model_folder import seal_model_folder, write_model_files
from ptbr_slm.tokenizer import Tokenizer


@dataclass
class Served:
    """What a test sees of a running server."""

    url: str
    """Ends before /v1."""
    models: dict[str, Model]
    port: int

    @property
    def model(self) -> Model:
        """The first one."""
        return next(iter(self.models.values()))


@contextmanager
def serving(models: dict[str, Model], config: ServeConfig | None = None) -> Iterator[Served]:
    """A server that runs inside the `with`. Closes no model."""
    served = ServedModels({name: ServedModel(name, model, f"fp_{name}") for name, model in models.items()})
    app = create_app(served, config or ServeConfig())
    listening = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    port = listening.getsockname()[1]
    try:
        yield Served(f"http://127.0.0.1:{port}", models, port)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
        assert not thread.is_alive()


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
