"""Errors on the page: Portuguese sentences, no traceback, no English left over from Gradio's queue."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ptbr_slm.app.language import Language, current_language
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

ENGLISH_LABELS = {
    "max_new_tokens": "New tokens",
    "temperature": "Temperature",
    "top_p": "Top-p",
    "top_k": "Top-k",
    "repetition_penalty": "Repetition",
    "seed": "Seed",
}

_ENGLISH = {
    "E_PROMPT": "There is no text yet. Write how it begins, in Portuguese.",
    "E_PROMPT_TOO_LONG": "The text does not fit in the model's context. Delete a part of it and try again.",
    "E_MESSAGES": "The conversation is not in order. Start a new one.",
    "E_SAMPLING": "this value is out of range. Correct it under Sampling.",
    "E_BUSY": "Many people are using the model. Try again in a few seconds.",
    "E_MEMORY": "Not enough memory. Try a shorter text and fewer new tokens.",
    "E_CLOSED": "The model was closed. Open the page again.",
}
_INTERNAL = (
    "Erro inesperado, um defeito nosso [E_INTERNAL]. Quem abriu a página pode ver mais com --debug.",
    "Unexpected error, a fault of ours [E_INTERNAL]. Who opened the page can see more with --debug.",
)

_log = logging.getLogger(__name__)


@contextmanager
def shown_on_the_page() -> Iterator[None]:
    """Turn what is raised inside into a `gr.Error`; what is not ours is logged without the visitor's text."""
    import gradio as gr

    try:
        yield
    except Exception as error:
        text = html.escape(logged_sentence(error, current_language()), quote=False)
        raise gr.Error(text, title="Não deu para continuar", print_exception=False) from None


def logged_sentence(error: Exception, language: Language) -> str:
    """What to tell a visitor, as text, no HTML; what is not ours is logged without the visitor's text."""
    if isinstance(error, SlmError):
        return sentence(error, language)
    _log.error("E_INTERNAL: %s", type(error).__name__, exc_info=_log.isEnabledFor(logging.DEBUG))
    return _INTERNAL[language == "en"]


def sentence(error: SlmError, language: Language) -> str:
    """The error's sentence, capitalised, with what to do on the page.

    The errors themselves are Portuguese: in English their code chooses a sentence.
    """
    if language == "en":
        name = ENGLISH_LABELS.get(error.where, "")
        text = _ENGLISH.get(error.code, f"The model refused [{error.code}].")
        return f"{name}: {text}" if name else text
    message = error.message.replace(error.where, LABELS.get(error.where, error.where), 1)
    message = message[:1].upper() + message[1:]
    return " ".join(filter(None, [message, _HINTS.get(error.code, "")]))


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
