"""A bounded load on a server of completions: so many clients, each with so many streamed requests in turn.

A process of its own (`run` starts it), so that its work is not in the server's process, and small, since it
shares the cores with the server: raw asyncio and httptools' parser, and events are noted as bytes with their
time and read as JSON when all is over.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import httptools

LIMIT_S = 300.0
"""A load that takes longer is a fault."""


@dataclass(kw_only=True, slots=True)
class Stream:
    """One request as its client saw it. Times in seconds of `time.perf_counter`."""

    sent: float
    ended: float = 0.0
    texts: list[float] = field(default_factory=list)
    """When each event with text came."""
    tokens: int = 0
    """Generated, by the server's own count; by the number of events where it tells none."""
    prompt_tokens: int = 0
    """By the server's count; 0 where it tells none."""

    @property
    def first_s(self) -> float:
        """Seconds to the first text."""
        return self.texts[0] - self.sent

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between one text and the next."""
        return [after - before for before, after in zip(self.texts, self.texts[1:], strict=False)]


@dataclass(kw_only=True, slots=True)
class Load:
    """What a load measured."""

    streams: list[Stream]
    client_cpu_s: float
    """Processor time of the clients."""

    @property
    def wall_s(self) -> float:
        """From the first request sent to the last one ended."""
        return max(stream.ended for stream in self.streams) - min(stream.sent for stream in self.streams)

    @property
    def tokens_per_second(self) -> float:
        """Of all clients together."""
        return sum(stream.tokens for stream in self.streams) / self.wall_s


def run(port: int, bodies: Sequence[Sequence[dict[str, Any]]], *, after: int = 0) -> Load:
    """Send the bodies of each client, one after the other, all clients at once. Raises RuntimeError for an
    answer that is not a whole stream.

    after: the second client waits until the first has had so many texts (0: it does not wait).
    """
    job = {"port": port, "bodies": bodies, "after": after}
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError("the load failed; its error is above")
    found = json.loads(done.stdout)
    return Load(streams=[Stream(**stream) for stream in found["streams"]], client_cpu_s=found["client_cpu_s"])


class _Connection(asyncio.Protocol):
    """One request and its answer: a connection each, so that a server's limits on reuse do not matter."""

    def __init__(self, body: dict[str, Any], first: asyncio.Event, wanted: int) -> None:
        self._request = json.dumps(body).encode()
        self._parser = httptools.HttpResponseParser(self)
        self._arrived: list[tuple[float, bytes]] = []
        self._first, self._wanted = first, wanted
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stream = Stream(sent=time.perf_counter())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        head = (
            "POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(self._request)}\r\nconnection: close\r\n\r\n"
        )
        transport.write(head.encode() + self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """httptools: a piece of the body."""
        self._arrived.append((time.perf_counter(), body))
        if len(self._arrived) == self._wanted:
            self._first.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stream.ended = time.perf_counter()
        if not self.over.done():
            self.over.set_result(None)

    def read(self) -> Stream:
        """The stream, once it is over. Raises RuntimeError."""
        whole = b"".join(data for _, data in self._arrived)
        if self._parser.get_status_code() != 200 or not whole.rstrip().endswith(b"data: [DONE]"):
            raise RuntimeError(f"status {self._parser.get_status_code()}: {whole[-500:]!r}")
        events = 0
        rest = b""
        for at, data in self._arrived:
            *complete, rest = (rest + data).split(b"\n\n")
            for event in complete:
                line = event.strip()
                if not line.startswith(b"data: {"):
                    continue
                message = json.loads(line[6:])
                if "error" in message:
                    raise RuntimeError(str(message))
                if any(choice.get("text") for choice in message.get("choices", ())):
                    self.stream.texts.append(at)
                    events += 1
                usage = message.get("usage") or {}
                self.stream.tokens = usage.get("completion_tokens", self.stream.tokens)
                self.stream.prompt_tokens = usage.get("prompt_tokens", self.stream.prompt_tokens)
        self.stream.tokens = self.stream.tokens or events
        return self.stream


async def _load(port: int, bodies: Sequence[Sequence[dict[str, Any]]], after: int) -> list[Stream]:
    reached = asyncio.Event()

    async def client(number: int) -> list[Stream]:
        if number and after:
            await reached.wait()
        streams = []
        for body in bodies[number]:
            wanted = after if number == 0 else 0
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(
                partial(_Connection, body, reached, wanted), "127.0.0.1", port
            )
            await connection.over
            streams.append(connection.read())
        return streams

    async with asyncio.timeout(LIMIT_S):
        done = await asyncio.gather(*(client(number) for number in range(len(bodies))))
    return [stream for streams in done for stream in streams]


def main() -> None:
    """The child: a job on stdin, what was measured on stdout."""
    job = json.load(sys.stdin)
    start = time.process_time()
    streams = asyncio.run(_load(job["port"], job["bodies"], job["after"]))
    spent = time.process_time() - start
    json.dump({"client_cpu_s": spent, "streams": [asdict(stream) for stream in streams]}, sys.stdout)


if __name__ == "__main__":
    main()
