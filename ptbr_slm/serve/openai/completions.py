"""/v1/completions."""

from __future__ import annotations

import secrets
import time
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from ptbr_slm.runtime.results import GenerationResult

router = APIRouter()


class CompletionRequest(BaseModel):
    """The body."""

    model: str | None = None
    prompt: str
    max_tokens: int = 16
    temperature: float = 1.0
    seed: int | None = None


@router.post("/v1/completions")
async def create_completion(request: Request, body: CompletionRequest) -> dict[str, Any]:
    """Continue a text."""
    served = request.app.state.models.find(body.model)
    call = served.model.submit(
        body.prompt, max_new_tokens=body.max_tokens, temperature=body.temperature, seed=body.seed
    )
    result: GenerationResult | None = None
    with call:
        async for chunk in call:
            result = chunk.result or result
    assert result is not None
    reason = "length" if result.finish_reason in ("length", "context") else "stop"
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": served.fingerprint,
        "choices": [{"index": 0, "text": result.text, "finish_reason": reason, "logprobs": None}],
        "usage": {
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": len(result.tokens),
            "total_tokens": result.prompt_tokens + len(result.tokens),
        },
    }
