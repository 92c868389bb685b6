"""The wire form of /v1/responses: one object, and the events of a stream that make it.

Fields and order of events are those that openai-python 3.57 reads (its `types/responses/` and
`lib/streaming/responses/_responses.py`, which raises where an id changes or a delta comes before its item).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from ptbr_slm.runtime.results import GenerationResult
from ptbr_slm.serve.errors import ApiError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ResponseObject:
    """An answer of the route, from `in_progress` to its end; the ids stay."""

    settings: Mapping[str, Any]
    """What the request asked for, as the object repeats it: `model`, `temperature`, `text`, ..."""
    id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(16)}")
    message_id: str = field(default_factory=lambda: f"msg_{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix time, s."""

    def begun(self) -> Json:
        """Before there is any text."""
        return self._object("in_progress", [])

    def ended(self, result: GenerationResult) -> Json:
        """`completed`, or `incomplete` where length, context or time cut the text short."""
        status = _status(result)
        more: Json = {"usage": _usage(result)}
        if status == "completed":
            more["completed_at"] = int(time.time())
        else:
            more["incomplete_details"] = {"reason": "max_output_tokens"}
            if result.finish_reason == "timeout":
                more["incomplete_details"]["stop_reason"] = "timeout"
        return self._object(status, [self.message(status, [_part(result.text)])], **more)

    def failed(self, fault: ApiError) -> Json:
        """Broken off. The codes of openai-python's `ResponseError` are few; the message says the rest."""
        return self._object("failed", [], error={"code": "server_error", "message": fault.message})

    def message(self, status: str, content: list[Json]) -> Json:
        """The one item of the output."""
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _object(self, status: str, output: list[Json], **more: Any) -> Json:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "output": output,
            "previous_response_id": None,
            "store": False,
            "usage": None,
            **self.settings,
            **more,
        }


class ResponseEvents:
    """The events of a stream in their order, numbered from 0."""

    def __init__(self, response: ResponseObject) -> None:
        self._response = response
        self._numbers = count()
        self._content = {"item_id": response.message_id, "output_index": 0, "content_index": 0}

    def begin(self) -> list[Json]:
        """Before the first text."""
        response = self._response
        return [
            self._event("response.created", response=response.begun()),
            self._event("response.in_progress", response=response.begun()),
            self._event(
                "response.output_item.added", output_index=0, item=response.message("in_progress", [])
            ),
            self._event("response.content_part.added", **self._content, part=_part("")),
        ]

    def text(self, text: str) -> list[Json]:
        """A piece of text; none for an empty one."""
        if not text:
            return []
        return [self._event("response.output_text.delta", **self._content, delta=text, logprobs=[])]

    def end(self, result: GenerationResult) -> list[Json]:
        """After the last text."""
        response, status, part = self._response, _status(result), _part(result.text)
        return [
            self._event("response.output_text.done", **self._content, text=result.text, logprobs=[]),
            self._event("response.content_part.done", **self._content, part=part),
            self._event("response.output_item.done", output_index=0, item=response.message(status, [part])),
            self._event(f"response.{status}", response=response.ended(result)),
        ]

    def fail(self, fault: ApiError) -> list[Json]:
        """Where the text breaks off. openai-python hands `response.failed` on as any event, and raises an
        `APIError` for data that hold an `error` object.
        """
        body = fault.body()
        told = {name: body["error"][name] for name in ("code", "message", "param")}
        failed = self._response.failed(fault)
        return [self._event("response.failed", response=failed), self._event("error", **told, **body)]

    def _event(self, kind: str, **fields: Any) -> Json:
        return {"type": kind, "sequence_number": next(self._numbers), **fields}


def _status(result: GenerationResult) -> str:
    return "completed" if result.finish_reason in ("eos", "stop") else "incomplete"


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(result: GenerationResult) -> Json:
    """Tokens. cache_write_tokens: how many of the prompt's were not in the cache, and are now."""
    prompt, written = result.prompt_tokens, len(result.tokens)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": result.reused_tokens,
            "cache_write_tokens": prompt - result.reused_tokens,
        },
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + written,
    }
