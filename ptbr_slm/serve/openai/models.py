"""/v1/models: which models there are, with vLLM's extras and llama.cpp's."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ptbr_slm.serve.served import ServedModel, ServedModels

router = APIRouter()


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """The models that requests may name."""
    models: ServedModels = request.app.state.models
    return {"object": "list", "data": [model_entry(each) for each in models]}


@router.get("/v1/models/{name:path}")
async def get_model(request: Request, name: str) -> dict[str, Any]:
    """One model. 404 where there is none of that name."""
    models: ServedModels = request.app.state.models
    return model_entry(models.find(name))


def model_entry(served: ServedModel) -> dict[str, Any]:
    """`max_model_len` and `root` as at vLLM, `meta` as at llama.cpp: tokens, tokens, parameters, bytes."""
    facts = served.model.describe()
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "ptbr-slm",
        "root": served.name,
        "max_model_len": facts["context"],
        "meta": {
            "n_ctx_train": facts["context"],
            "n_vocab": facts["vocab_size"],
            "n_params": facts["parameters"],
            "size": facts.get("file_bytes"),
        },
    }
