"""The page's two languages: Portuguese, and English where it is the browser's first language (or one that
Gradio does not know).

What stands on the page is translated in the browser (`both`); what Python says while it runs, by the language
that the request asks for (`language_of`).
"""

from __future__ import annotations

from typing import Any, Literal

Language = Literal["pt", "en"]

GRADIOS_LANGUAGES = (
    "ar", "ca", "ckb", "de", "es", "et", "eu", "fa", "fi", "fr", "he", "hi", "ja", "ko", "lt", "nb", "nl",
    "pl", "pt", "pt-BR", "ro", "ru", "sv", "ta", "th", "tr", "uk", "ur", "uz", "zh-CN", "zh-TW",
)  # fmt: skip
"""Those that Gradio 6.31 tells apart, but for English, which it takes for all that it does not know."""

_ENGLISH: dict[str, str] = {}
"""Portuguese -> English, filled as the page is built."""


def both(portuguese: str, english: str) -> Any:
    """A label, a placeholder or a value of a component, in the browser's language: a `gradio.I18nData`.

    Its key is the Portuguese sentence. No braces in it: Gradio looks for the first one to find the key's end.
    """
    from gradio.i18n import I18nData

    assert not set("{}") & set(portuguese + english)
    assert _ENGLISH.setdefault(portuguese, english) == english, f"two translations of {portuguese!r}"
    return I18nData(portuguese)


def translations() -> Any:
    """The `gradio.I18n` of every sentence given to `both`, for `Blocks.launch`: build the page first."""
    import gradio as gr

    portuguese = {sentence: sentence for sentence in _ENGLISH}
    return gr.I18n(**dict.fromkeys(GRADIOS_LANGUAGES, portuguese), en=dict(_ENGLISH))


def language_of(accept_language: str | None) -> Language:
    """The language of an `Accept-Language` header: English where it comes first, else Portuguese."""
    first = (accept_language or "").split(",")[0].strip().lower()
    return "en" if first.split(";")[0].split("-")[0] == "en" else "pt"


def current_language() -> Language:
    """The language of the visitor whose event Gradio runs; Portuguese outside of one and for API clients."""
    from gradio.context import LocalContext

    request = LocalContext.request.get(None)
    return language_of(request.headers.get("accept-language")) if request else "pt"
