"""What all answers carry: id, time, names, usage, and why each text ended."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ptbr_slm.runtime.results import GenerationResult
from ptbr_slm.serve.served import ServedModel


@dataclass(frozen=True, slots=True)
class Envelope:
    """The head of an answer, the same in every chunk of a stream."""

    served: ServedModel
    kind: str
    """`object` of the wire."""
    prefix: str
    """Of the id: `cmpl`, `chatcmpl`."""
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix time, s."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.prefix}-{secrets.token_hex(12)}")

    def __call__(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """An answer or a chunk around its choices."""
        return {
            "id": self.id,
            "object": self.kind,
            "created": self.created,
            "model": self.served.name,
            "system_fingerprint": self.served.fingerprint,
            "choices": choices,
            **more,
        }


def finish_reason(result: GenerationResult) -> str:
    """OpenAI knows `stop` and `length`; a full context and the time limit are lengths."""
    return "stop" if result.finish_reason in ("eos", "stop") else "length"


def stop_reason(result: GenerationResult) -> str | int | None:
    """vLLM's: the stop string or token id that ended the text; ours: `timeout`."""
    return "timeout" if result.finish_reason == "timeout" else result.stop_match


def usage(results: Sequence[GenerationResult], n: int) -> dict[str, Any]:
    """Tokens of a whole request. A prompt counts once, however many completions it has.

    results: ordered by prompt, then by completion, `n` of each.
    """
    prompts = results[::n]
    return usage_of(
        sum(each.prompt_tokens for each in prompts),
        sum(len(each.tokens) for each in results),
        sum(each.reused_tokens for each in prompts),
    )


def usage_of(prompt: int, completion: int, cached: int | None = None) -> dict[str, Any]:
    """OpenAI's `usage` from counts of tokens. cached: of the prompt's, None where it is not known yet."""
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **details,
    }
