"""The page's growing texts: one HTTP response a text, which begins and ends with it.

They are no events of Gradio (6.31): its browser side forgets a Parar that comes before the server's first
answer and reloads the page when the connection breaks, and its server notices a closed tab only with the
next token. Here a text lives as long as its response: whoever aborts the request or closes the tab has ended
the text, before its first token too, and its place in the queue is free at once.

`POST stream/text` takes `{"prompt": text, "sampling": [...]}`, `POST stream/chat` takes
`{"messages": [{"role": ..., "content": ...}], "sampling": [...]}`; `sampling` holds the values of
`Writer.write` in their order. The answer is a JSON object a line: `{"text": new piece, "status": figures}`,
and at the end `{"done": true}` or `{"error": sentence}`. Without either the connection broke.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ptbr_slm.app.errors import logged_sentence
from ptbr_slm.app.language import Language, language_of
from ptbr_slm.app.writer import MAX_WAITING, Writer
from ptbr_slm.errors import SlmError

KEY_HEADER = "x-page-key"
MAX_BODY_BYTES = 2 << 20
"""A text of more does not fit in any context."""

Texts = AsyncGenerator[tuple[str, str]]
"""(text so far, status line)."""


class Streams:
    """The two routes, and the key that the page sends with each request. In one event loop.

    The key stands in the page: who may read the page (a login may be asked for) may have it write, and no
    other site that the browser shows can.
    """

    def __init__(self, writer: Writer) -> None:
        self.key = secrets.token_urlsafe(16)
        self._writer = writer
        self.open = 0
        """Texts on their way or waiting."""

    def routes(self) -> list[Route]:
        """For the `app_kwargs` of `Blocks.launch` and `mount_gradio_app`."""
        return [
            Route("/stream/text", _Stream(self.key, self._text), methods=["POST"]),
            Route("/stream/chat", _Stream(self.key, self._chat), methods=["POST"]),
        ]

    async def _text(self, asked: dict[str, Any], language: Language) -> Texts:
        prompt, sampling = asked.get("prompt"), _sampling(asked)
        with self._place():
            async with aclosing(self._writer.write(prompt, *sampling, language=language)) as texts:
                async for text, status in texts:
                    yield text[len(prompt or "") :], status

    async def _chat(self, asked: dict[str, Any], language: Language) -> Texts:
        messages, sampling = asked.get("messages", ()), _sampling(asked)
        with self._place():
            async with aclosing(self._writer.answer(messages, *sampling, language=language)) as texts:
                async for shown in texts:
                    yield shown

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places of those who write and wait. Raises E_BUSY where all are taken."""
        if self.open >= self._writer.slots + MAX_WAITING:
            raise SlmError("E_BUSY", "há muita gente usando.", hint="Tente de novo em alguns segundos.")
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


def _sampling(asked: dict[str, Any]) -> list[Any]:
    values = asked.get("sampling")
    if not isinstance(values, list) or len(values) != 6:
        message = "a amostragem deve ter seis valores."
        raise SlmError("E_SAMPLING", message, where="sampling", hint="Abra a página de novo.")
    return values


class _Stream:
    """An ASGI endpoint whose text ends when its reader leaves."""

    def __init__(self, key: str, write: Callable[[dict[str, Any], Language], Texts]) -> None:
        self._key, self._write = key, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = Headers(scope=scope)
        if not secrets.compare_digest(headers.get(KEY_HEADER, "").encode(), self._key.encode()):
            await _start(send, 403)
            await send({"type": "http.response.body", "body": b""})
            return
        body = await _body(receive)
        if body is None:
            return
        language = language_of(headers.get("accept-language"))
        answering = asyncio.ensure_future(self._answer(body, language, send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    async def _answer(self, body: bytes, language: Language, send: Send) -> None:
        await _start(send, 200)
        sent = 0
        try:
            async with aclosing(self._write(_asked(body), language)) as texts:
                async for text, status in texts:
                    await _line(send, {"text": text[sent:], "status": status})
                    sent = len(text)
        except Exception as error:
            await _line(send, {"error": logged_sentence(error, language)}, last=True)
        else:
            await _line(send, {"done": True}, last=True)


def _asked(body: bytes) -> dict[str, Any]:
    """What was sent. Raises E_PROMPT, E_PROMPT_TOO_LONG."""
    if len(body) > MAX_BODY_BYTES:
        raise SlmError(
            "E_PROMPT_TOO_LONG",
            f"o texto tem mais de {MAX_BODY_BYTES >> 20} MB, muito mais do que cabe no contexto do modelo.",
            where="prompt",
            hint="Use um texto menor.",
        )
    try:
        asked = json.loads(body)
    except ValueError:  # JSON or UTF-8
        asked = None
    if not isinstance(asked, dict):
        message = "o pedido não é um objeto JSON."
        raise SlmError("E_PROMPT", message, where="prompt", hint="Abra a página de novo.")
    return asked


async def _body(receive: Receive) -> bytes | None:
    """The body, the first `MAX_BODY_BYTES` + 1 of it where it is longer; None where its sender left."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body = (body + message.get("body", b""))[: MAX_BODY_BYTES + 1]
        more = message.get("more_body", False)
    return body


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send, status: int) -> None:
    headers = [(b"content-type", b"application/x-ndjson; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _line(send: Send, what: dict[str, Any], *, last: bool = False) -> None:
    body = json.dumps(what, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    await send({"type": "http.response.body", "body": body, "more_body": not last})
