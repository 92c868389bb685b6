"""Errors on the page: Portuguese sentences, no traceback, no English left over from Gradio's queue."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ptbr_slm.errors import SlmError

QUEUE_FULL = "Há muita gente usando; tente em alguns segundos."

_HINTS = {
    "E_PROMPT": "Escreva o começo de um texto e toque em Continuar.",
    "E_PROMPT_TOO_LONG": "Apague uma parte do texto e tente de novo.",
    "E_SAMPLING": "Corrija o valor em Amostragem.",
    "E_BUSY": "Tente de novo em alguns segundos.",
    "E_MEMORY": "Tente com um texto menor e menos tokens novos.",
    "E_CLOSED": "Abra a página de novo.",
}
"""What to do on the page; an SlmError's own hint names flags of the command line."""

LABELS = {
    "max_new_tokens": "Tokens novos",
    "temperature": "Temperatura",
    "top_p": "Top-p",
    "top_k": "Top-k",
    "repetition_penalty": "Repetição",
    "seed": "Semente",
}
"""What the page calls the fields of `SamplingParams`."""

_log = logging.getLogger(__name__)


@contextmanager
def shown_on_the_page() -> Iterator[None]:
    """Turn what is raised inside into a `gr.Error`; what is not ours is logged without the visitor's text."""
    import gradio as gr

    try:
        yield
    except SlmError as error:
        raise gr.Error(sentence(error), title="Não deu para continuar", print_exception=False) from None
    except Exception as error:
        _log.error("E_INTERNAL: %s", type(error).__name__, exc_info=_log.isEnabledFor(logging.DEBUG))
        text = (
            "Erro inesperado, um defeito nosso [E_INTERNAL]. Quem abriu a página pode ver mais com --debug."
        )
        raise gr.Error(text, title="Não deu para continuar", print_exception=False) from None


def sentence(error: SlmError) -> str:
    """The error's sentence, capitalised, with what to do on the page; safe inside HTML."""
    message = error.message.replace(error.where, LABELS.get(error.where, error.where), 1)
    message = message[:1].upper() + message[1:]
    return html.escape(" ".join(filter(None, [message, _HINTS.get(error.code, "")])), quote=False)


def queue_handlers() -> dict[Any, Any]:
    """FastAPI exception handlers that say "queue full" in Portuguese.

    Gradio answers 503 with an English detail, and its browser side replaces any 503 by its own English
    sentence; it shows the detail of a 429, which is also the code that other clients know to retry.
    """
    from fastapi.exception_handlers import http_exception_handler
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response

    async def answer(request: Request, error: HTTPException) -> Response:
        if error.status_code == 503 and str(error.detail).startswith("Queue is full"):
            return JSONResponse({"detail": QUEUE_FULL}, status_code=429, headers={"Retry-After": "5"})
        return await http_exception_handler(request, error)

    return {HTTPException: answer}
