"""The HTTP server over a toy engine: in a thread of the test, or as a process that paces its tokens.

    python tests/support/toy_server.py TOKENIZER SECONDS_A_TOKEN [GATE] <<< '{"port": 8000}'

As a process it reads the fields of its `ServeConfig` from standard input, waits for the file GATE while it
"loads", and prints the events of `ptbr-slm serve --json`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toy_engine import ToyEngine

from ptbr_slm.runtime.model import Model
from ptbr_slm.serve.app import create_app
from ptbr_slm.serve.config import ServeConfig
from ptbr_slm.serve.middleware.lifecycle import Lifecycle
from ptbr_slm.serve.process.server import Running, listen, serve
from ptbr_slm.serve.served import ServedModel, ServedModels
from ptbr_slm.tokenizer import Tokenizer


@dataclass
class Toy:
    """A server that answers."""

    url: str
    engine: ToyEngine
    model: Model
    lifecycle: Lifecycle
    app: Any


def served(engine: ToyEngine, config: ServeConfig) -> ServedModel:
    model = Model.over(engine, Path("/segredo/toy"), limits=config.batch_limits)
    return ServedModel("toy", model, "0123456789abcdef")


@contextmanager
def answering(engine: ToyEngine, config: ServeConfig | None = None) -> Iterator[Toy]:
    """A server in a thread; the engine's `fail` may hold up its steps."""
    config = config or ServeConfig(port=0)
    model, lifecycle = served(engine, config), Lifecycle()
    app = create_app(ServedModels({model.name: model}), config, lifecycle)
    with listen("127.0.0.1", 0) as listening, Running(app, listening, config):
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield Toy(url, engine, model.model, lifecycle, app)
        model.model.close()


def main(tokenizer: str, seconds: str, gate: str = "") -> int:
    from ptbr_slm.cli.streams import make_streams_safe
    from ptbr_slm.serve.process.logs import logging_to_stderr

    make_streams_safe()
    config = ServeConfig(**json.load(sys.stdin))
    engine = ToyEngine(Tokenizer.load(Path(tokenizer)), context=4096)
    engine.fail = lambda what, slots: time.sleep(float(seconds))

    def opening() -> Iterator[ServedModel]:
        while gate and not Path(gate).exists():
            time.sleep(0.01)
        yield served(engine, config)

    def tell(event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)

    with logging_to_stderr(as_json=True):
        ended = serve(opening(), config, lambda url, models: tell({"event": "ready", "url": url}))
    tell({"event": "done", "cut": ended.cut, "signal": ended.signal})
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
