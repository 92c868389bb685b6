"""/v1/embeddings: refused, in a sentence that says what the model can do."""

from __future__ import annotations

from typing import NoReturn

from fastapi import APIRouter

from ptbr_slm.serve.openai.documented import ERRORS
from ptbr_slm.serve.openai.refusals import unsupported

router = APIRouter()


@router.post("/v1/embeddings", response_model=None, responses=ERRORS)
async def create_embeddings() -> NoReturn:
    """Always 400: a model that continues texts has no vectors of use for a search."""
    raise unsupported(
        "model",
        "Este modelo gera texto, e não embeddings: use para eles outro modelo, em outro servidor.",
        code="embeddings_not_supported",
    )
