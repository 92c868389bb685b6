"""/v1/models: which models there are, with the extras of vLLM and llama.cpp; llama.cpp's /props."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.serve.openai.documented import ERRORS
from ptbr_slm.serve.served import ServedModel, ServedModels
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.version import __version__

router = APIRouter()


@router.get("/v1/models", responses=ERRORS)
async def list_models(request: Request) -> dict[str, Any]:
    """The models that requests may name."""
    models: ServedModels = request.app.state.models
    return {"object": "list", "data": [model_entry(each) for each in models]}


@router.get("/v1/models/{name:path}", responses=ERRORS)
async def get_model(request: Request, name: str) -> dict[str, Any]:
    """One model. 404 where there is none of that name."""
    models: ServedModels = request.app.state.models
    return model_entry(models.find(name))


@router.get("/props", responses=ERRORS)
async def props(request: Request, model: str | None = None) -> dict[str, Any]:
    """What clients of llama.cpp's server read of it. Read only: nothing can be set."""
    served: ServedModel = request.app.state.models.find(model)
    defaults = SamplingParams()
    return {
        "default_generation_settings": {
            "n_ctx": served.model.engine.config.max_seq_len,
            "params": {
                "temperature": defaults.temperature,
                "top_p": defaults.top_p,
                "top_k": defaults.top_k,
                "min_p": defaults.min_p,
                "repeat_penalty": defaults.repetition_penalty,
            },
        },
        "total_slots": served.model.load_figures().slots,
        "model_alias": served.name,
        "chat_template": ModelFolder.of(served.model.path).chat_template or "",
        "modalities": {"vision": False, "audio": False},
        "build_info": f"ptbr-slm {__version__}",
    }


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
