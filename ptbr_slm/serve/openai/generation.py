"""From a request to a call of the engine, and back to all its results: what every generating route does.

A client that leaves ends its call within one token, in a queue, in a prompt or in a text. Starlette cancels
no handler of an answer that is not a stream (ROCm/ATOM#1441), so a task of ours waits for the disconnect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from starlette.types import Receive

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engine_loop import Call
from ptbr_slm.runtime.prompt import Prompt
from ptbr_slm.runtime.results import GenerationResult
from ptbr_slm.serve.errors import ApiError
from ptbr_slm.serve.openai.sampling import WIRE_NAMES
from ptbr_slm.serve.served import ServedModel


class ClientGone(Exception):
    """Nobody is there to answer."""


async def submit(
    request: Request, served: ServedModel, prompts: Callable[[], Sequence[Prompt]], options: dict[str, Any]
) -> Call:
    """Queue what was asked for, in a thread: tokenising a megabyte and compiling a schema take a while.

    prompts: makes them, in that thread. Whoever gets the call closes it. Raises ApiError.
    """
    context = served.model.engine.config.max_seq_len

    def work() -> Call:
        try:
            return served.model.submit(prompts(), **options)
        except SlmError as error:
            raise refusal(error, context) from error

    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_close_unread)
        raise


def _close_unread(task: asyncio.Task[Call]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def refusal(error: SlmError, context: int) -> Exception:
    """The error in the client's terms: its own names of the fields, without hints for a command line."""
    if error.code in ("E_SAMPLING", "E_DEPENDENCY"):
        name = str(error.where or "") or None
        code = "invalid_value" if error.code == "E_SAMPLING" else "not_supported"
        return ApiError(400, error.message, code=code, param=WIRE_NAMES.get(name or "", name))
    return error


@asynccontextmanager
async def watched(receive: Receive, call: Call) -> AsyncIterator[asyncio.Task[None]]:
    """Close the call when the client leaves, or the block ends. Yields the task that is done then."""

    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        call.close()

    task = asyncio.create_task(wait())
    try:
        yield task
    finally:
        task.cancel()
        call.close()


async def collect(request: Request, call: Call, count: int) -> list[GenerationResult]:
    """The results, in the order of the prompts, then of their completions. Closes the call.

    count: how many there must be. Raises `ClientGone`, or what ended a text wrongly.
    """
    found: dict[tuple[int, int], GenerationResult] = {}
    async with watched(request.receive, call) as gone:
        async for chunk in call:
            if chunk.result is not None:
                found[chunk.row, chunk.completion] = finished(chunk.result)
    if len(found) < count:
        raise ClientGone if gone.done() and not gone.cancelled() else unfinished()
    return [found[key] for key in sorted(found)]


def finished(result: GenerationResult) -> GenerationResult:
    """The result, if its text ended by itself: only a server that stops cancels a text that is read."""
    if result.finish_reason == "cancelled":
        raise unfinished()
    return result


def unfinished() -> ApiError:
    """The text was cut off."""
    return ApiError(
        503,
        "O servidor está parando, e o texto foi interrompido.",
        code="shutting_down",
        kind="server_error",
        headers={"retry-after": "1"},
    )
