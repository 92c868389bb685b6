"""From a request to a call of the engine, and back to all its results: what every generating route does.

A client that leaves ends its call within one token, in a queue, in a prompt or in a text. Starlette cancels
no handler of an answer that is not a stream (ROCm/ATOM#1441), so a task of ours waits for the disconnect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.types import Receive

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.prompt import Prompt
from ptbr_slm.runtime.protocol import closed_error
from ptbr_slm.runtime.results import GenerationChunk, GenerationResult
from ptbr_slm.serve.errors import ApiError, as_api_error
from ptbr_slm.serve.metrics import FollowedCall, Metrics
from ptbr_slm.serve.middleware.record import record_of
from ptbr_slm.serve.openai.refusals import refusal
from ptbr_slm.serve.served import ServedModel


class ClientGone(ApiError):
    """Nobody is there to answer; the status is what logs have of it, as nginx's."""

    def __init__(self) -> None:
        super().__init__(499, "O cliente se foi.", code="client_left")


@dataclass(frozen=True, slots=True)
class Generation:
    """A call of the engine for a request."""

    request: Request
    served: ServedModel
    call: FollowedCall
    n: int
    """Completions of each prompt."""

    @property
    def count(self) -> int:
        """Texts that there must be in the end."""
        return len(self.call.sequences)

    @property
    def prompts(self) -> list[Sequence[int]]:
        """The ids of each prompt."""
        return [sequence.prompt.ids for sequence in self.call.sequences[:: self.n]]

    def count_in(self, chunk: GenerationChunk, result: GenerationResult) -> GenerationResult:
        """Note that a text is over, and give its result on if it ended by itself.

        Only a server that stops cancels a text that is read. Raises ApiError for that.
        """
        record_of(self.request).add(self.served.name, result, prompt=chunk.completion == 0)
        if result.finish_reason == "cancelled":
            raise interrupted()
        return result


async def submit(
    request: Request,
    served: ServedModel,
    prompts: Callable[[], Sequence[Prompt]],
    options: dict[str, Any],
    *,
    field: str,
) -> Generation:
    """Queue what was asked for, in a thread: tokenising a megabyte and compiling a schema take a while.

    prompts: makes them, in that thread. field: where in the body they come from, for errors. Whoever gets the
    generation closes its call. Raises ApiError, or what is not the client's fault.
    """
    metrics: Metrics = request.app.state.metrics
    since, config = time.perf_counter(), request.app.state.config
    limits = {"tenant": record_of(request).tenant, "timeout_s": config.timeout_s}
    options = options | limits | {"wake_interval_s": config.stream_interval_s}

    def work() -> FollowedCall:
        made: Sequence[Prompt] = ()
        try:
            made = prompts()
            return metrics.follow(served, served.model.submit(made, **options), since)
        except SlmError as error:
            raise refusal(error, served.model, made, field) from error

    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        call = await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_close_unread)
        raise
    return Generation(request, served, call, options.get("n", 1))


def _close_unread(task: asyncio.Task[FollowedCall]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


@asynccontextmanager
async def watched(receive: Receive, call: FollowedCall) -> AsyncIterator[None]:
    """Close the call when the block ends, or the client leaves: then the block ends with `ClientGone`.

    As `asyncio.timeout` does it, by cancelling the task that waits: a call that is closed wakes nobody.
    """
    reader, left = asyncio.current_task(), False
    assert reader is not None

    async def wait() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        call.close()
        reader.cancel()

    watcher = asyncio.create_task(wait())
    try:
        yield
    except asyncio.CancelledError:
        if left and not reader.uncancel():
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()
        call.close()


async def collect(generation: Generation) -> list[GenerationResult]:
    """The results, in the order of the prompts, then of their completions. Closes the call.

    Raises `ClientGone`, or what ended a text wrongly.
    """
    found: dict[tuple[int, int], GenerationResult] = {}
    async with watched(generation.request.receive, generation.call):
        async for chunk in generation.call:
            if chunk.result is not None:
                found[chunk.row, chunk.completion] = generation.count_in(chunk, chunk.result)
    if len(found) < generation.count:
        raise interrupted()
    return [found[key] for key in sorted(found)]


def interrupted() -> ApiError:
    """The text was cut off by the server, which stops."""
    return as_api_error(closed_error())
