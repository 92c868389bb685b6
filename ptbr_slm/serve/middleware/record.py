"""What is known of one request: for its log line and for the metrics. Never its text, never its key."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from ptbr_slm.runtime.results import GenerationResult

_OWN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A request id that a client may choose: safe in a header, in a log and on a terminal."""

CLIENT_LEFT = 499
"""The status in logs of a request whose client left before its answer began, as nginx has it."""


@dataclass(slots=True)
class RequestRecord:
    """One request. Routes add what they generated; the middleware that made it fills the rest."""

    id: str
    method: str
    path: str
    """The route's template; for an unknown one the path itself, shortened and printable."""
    route: str = ""
    """The route's template; empty where no route fits."""
    tenant: str = ""
    """Which key was used, as 12 hex digits of its sha256; empty where the server has none."""
    status: int = 0
    """HTTP status; 0 until the answer begins."""
    error: str = ""
    """The code of an error, of a stream that broke too."""
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's, those that were in the cache."""
    completion_tokens: int = 0
    queue_s: float = 0.0
    """Seconds, the longest of its texts; so the next two."""
    prefill_s: float = 0.0
    decode_s: float = 0.0
    finish_reasons: list[str] = field(default_factory=list)
    """One a text."""
    started: float = field(default_factory=time.perf_counter)
    """`time.perf_counter()` when its headers had come, s."""
    total_s: float = 0.0
    """Seconds until it was over."""
    left: bool = False
    """Whether the client left before the end."""

    def add(self, model: str, result: GenerationResult, *, prompt: bool = True) -> None:
        """Count one finished text. prompt: whether its prompt counts too, once for all its completions."""
        self.model = model
        if prompt:
            self.prompt_tokens += result.prompt_tokens
            self.cached_tokens += result.reused_tokens
        self.completion_tokens += len(result.tokens)
        self.queue_s = max(self.queue_s, result.queue_s)
        self.prefill_s = max(self.prefill_s, result.prefill_s)
        self.decode_s = max(self.decode_s, result.decode_s)
        self.finish_reasons.append(result.finish_reason)


def record_of(request: HTTPConnection) -> RequestRecord:
    """The record of the request that a route answers."""
    record: RequestRecord = request.state.record
    return record


def request_id(given: str | None) -> str:
    """The client's own id where it is a harmless one, else a new one."""
    return given if given and _OWN_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def printable(path: str) -> str:
    """At most 80 characters of a path, nothing in it that moves a terminal's cursor or ends a line."""
    return "".join(c if c.isprintable() else "?" for c in path[:80])
