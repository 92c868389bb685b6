"""An OpenAI-compatible server over a `Model`, on this machine: /v1/models and /v1/completions.

It answers as vLLM's does: prompts as text or as token ids, alone or in a list, `echo` with the log
probabilities of the prompt, `logprobs`, `stop`. Faults are put before its answers, one a request.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import TokenPrompt
from ptbr_slm.runtime.results import GenerationResult


@dataclass
class OpenAIServer:
    """What a test sees of the server."""

    model: Model
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    faults: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    """Statuses with headers, given in place of the next answers."""
    echo: bool = True
    """Whether `echo` is heeded; llama.cpp's server does not."""
    zero_tokens: bool = True
    """Whether `max_tokens` may be 0."""
    tokenize: bool = False
    """Whether /tokenize is there."""
    text_tokens: bool = True
    """Whether tokens are the pieces of the text; else they are the vocabulary's own spelling."""
    served: str = "modelo-de-teste"

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON of /v1/completions."""
        count = body.get("max_tokens", 16)
        if count == 0 and not (self.zero_tokens and self.echo):
            return 400, {"error": {"message": "max_tokens must be at least 1"}}
        prompts = body["prompt"]
        if isinstance(prompts, str) or (prompts and isinstance(prompts[0], int)):
            prompts = [prompts]
        encode = self.model.engine.tokenizer.encode
        ids = [tuple(encode(each) if isinstance(each, str) else each) for each in prompts]
        context = self.model.engine.config.max_seq_len
        if any(len(each) + max(count, 1) > context for each in ids):
            message = f"This model's maximum context length is {context} tokens."
            return 400, {"error": {"message": message}}
        stop = body.get("stop") or []
        results = self.model.generate_detailed(
            [TokenPrompt(each) for each in ids],
            max_new_tokens=max(count, 1),
            temperature=body.get("temperature", 1.0),
            stop=[stop] if isinstance(stop, str) else [each for each in stop if each],
            logprobs=body.get("logprobs"),
            prompt_logprobs=bool(body.get("echo")),
        )
        choices = [
            self._choice(index, each, result, body)
            for index, (each, result) in enumerate(zip(ids, results, strict=True))
        ]
        return 200, {"object": "text_completion", "model": self.served, "choices": choices}

    def _choice(
        self, index: int, ids: tuple[int, ...], result: GenerationResult, body: dict[str, Any]
    ) -> dict[str, Any]:
        echo, generated = body.get("echo") and self.echo, body.get("max_tokens", 16) > 0
        tokenizer = self.model.engine.tokenizer
        text = (tokenizer.decode(list(ids)) if echo else "") + (result.text if generated else "")
        choice: dict[str, Any] = {"index": index, "text": text, "finish_reason": result.finish_reason}
        if body.get("logprobs") is None:
            return choice
        found = [*(result.prompt_logprobs or ())] if echo else []
        tokens = [*(ids if echo else ()), *(result.tokens if generated else ())]
        known = [*found, *((result.logprobs or ()) if generated else ())]
        pieces, offset, offsets = [], 0, []
        decoder = tokenizer.stream_decoder()
        for token in tokens:
            piece = decoder.push(token) if self.text_tokens else tokenizer.tokens([token])[0]
            offsets.append(offset)
            offset += len(piece)
            pieces.append(piece)
        choice["logprobs"] = {
            "tokens": pieces,
            "text_offset": offsets,
            "token_logprobs": [None if each is None else each.logprob for each in known],
            "top_logprobs": [
                None
                if each is None
                else {f"token_id:{token}": logprob for token, logprob in each.top}
                | {f"token_id:{each.token}": each.logprob}
                for each in known
            ],
        }
        return choice


@contextmanager
def openai_server(model: Model, **settings: Any) -> Iterator[OpenAIServer]:
    """A running server on a free port; `url` ends before /v1."""
    state = OpenAIServer(model, **settings)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            entry = {
                "id": state.served,
                "object": "model",
                "created": len(state.headers),  # another one each time, as vLLM's
                "max_model_len": model.engine.config.max_seq_len,
            }
            found = self.path == "/v1/models"
            self._send(200 if found else 404, {"data": [entry]} if found else {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.headers.append(dict(self.headers))
            if self.path == "/tokenize" and state.tokenize:
                self._send(200, {"tokens": model.engine.tokenizer.encode(body["prompt"])})
            elif self.path != "/v1/completions":
                self._send(404, {})
            elif state.faults:
                status, headers = state.faults.popleft()
                self._send(status, {"error": {"message": "agora não"}}, headers)
            else:
                state.requests.append(body)
                self._send(*state.answer(body))

        def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
