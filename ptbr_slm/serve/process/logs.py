"""The server's log: a line a request on standard error, written by a thread of its own.

JSON where standard error is no terminal (journald, Docker, a file) or `--json` was asked for; else a short
line in Portuguese. No text of a prompt and no key is ever in it. Nothing that happens to standard error
touches a request: a write that fails is dropped (`cli.streams`), and while its reader stands still the lines
wait in a bounded queue; those beyond it are counted in place of kept.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

from ptbr_slm.serve.errors import StreamBroken
from ptbr_slm.serve.middleware.record import RequestRecord
from ptbr_slm.text import number

WAITING = 10_000
"""Lines that may wait for a reader of standard error that stands still; about 3 MB."""

FLUSH_S = 1.0
"""Seconds that the end waits for lines which are not yet written."""


@contextmanager
def logging_to_stderr(*, as_json: bool, requests: bool = True) -> Iterator[None]:
    """Inside, what the server and uvicorn log goes to standard error.

    requests: whether each request has a line; without, only what is wrong has one.
    """
    writer = _Writer(sys.stderr)
    handler = _Handler(writer, as_json)
    loggers = [logging.getLogger(name) for name in ("ptbr_slm.serve", "uvicorn")]
    former = [(logger.level, logger.propagate) for logger in loggers]
    for logger, level in zip(
        loggers, (logging.INFO if requests else logging.WARNING, logging.WARNING), strict=True
    ):
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, former, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        writer.close()


class _Writer:
    """Writes lines in a thread; never makes its caller wait."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="ptbr-slm-log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, unless nobody reads it."""
        try:
            self._lines.put(None, timeout=FLUSH_S)
        except queue.Full:
            return
        self._thread.join(FLUSH_S)

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                line = f"{dropped} linha(s) deste registro não foram escritas: ninguém as lia.\n{line}"
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # the disk is full, or the stream closed
                continue


class _Handler(logging.Handler):
    """Gives the writer each record as a line."""

    def __init__(self, writer: _Writer, as_json: bool) -> None:
        super().__init__()
        self._writer, self._as_json = writer, as_json

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. What ends a stream on purpose, and uvicorn's words for it, are no news."""
        if record.exc_info and isinstance(record.exc_info[1], StreamBroken):
            return
        facts = _facts(record)
        self._writer.write(json.dumps(facts, ensure_ascii=False) if self._as_json else _line(facts))


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    """What is logged, in the order in which it is shown."""
    at = datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="milliseconds")
    request = getattr(record, "record", None)
    if isinstance(request, RequestRecord):
        return {"at": at, "event": "request", **_request_facts(request)}
    facts = {"at": at, "event": "log", "level": record.levelname.lower(), "message": record.getMessage()}
    if record.exc_info:
        facts["traceback"] = logging.Formatter().formatException(record.exc_info)
    return facts


def _request_facts(request: RequestRecord) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "id": request.id,
        "method": request.method,
        "path": request.path,
        "status": request.status,
        "total_s": round(request.total_s, 4),
    }
    if request.tenant:
        facts["key"] = request.tenant
    if request.error:
        facts["error"] = request.error
    if request.left:
        facts["client_left"] = True
    if request.model:
        facts |= {
            "model": request.model,
            "prompt_tokens": request.prompt_tokens,
            "cached_tokens": request.cached_tokens,
            "completion_tokens": request.completion_tokens,
            "queue_s": round(request.queue_s, 4),
            "prefill_s": round(request.prefill_s, 4),
            "decode_s": round(request.decode_s, 4),
            "finish_reasons": request.finish_reasons,
        }
    return facts


def _line(facts: dict[str, Any]) -> str:
    """The same for a person."""
    clock = facts["at"][11:19]
    if facts["event"] == "log":
        return "\n".join(filter(None, [f"{clock} {facts['message']}", facts.get("traceback")]))
    parts = [f"{clock} {facts['status']} {facts['method']} {facts['path']}"]
    if "error" in facts:
        parts.append(facts["error"])
    if "client_left" in facts:
        parts.append("o cliente saiu")
    if "model" in facts:
        cached = f" ({facts['cached_tokens']} do cache)" if facts["cached_tokens"] else ""
        parts.append(f"{facts['prompt_tokens']}{cached} + {facts['completion_tokens']} tokens")
        times = (("fila", "queue_s"), ("leitura", "prefill_s"), ("escrita", "decode_s"))
        parts.append(", ".join(f"{name} {number(facts[key], 2)} s" for name, key in times))
    parts.append(f"{number(facts['total_s'], 2)} s")
    return "  ".join(parts)
