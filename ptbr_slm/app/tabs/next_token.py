"""The Próximo token tab: bars of the tokens that could come next, which follow the settings as they are
moved; a click appends one.

The bars are drawn by static/next_token.js from what the model said of the text: moving a slider asks the
server for nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ptbr_slm.app.errors import shown_on_the_page
from ptbr_slm.app.language import both
from ptbr_slm.app.reader import Reader, json_line
from ptbr_slm.app.sampling_panel import sampling_slider
from ptbr_slm.app.writer import Writer
from ptbr_slm.runtime.sampling.params import SamplingParams

SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Those that the bars follow, in the order in which static/next_token.js takes them."""


def build_next_token(writer: Writer) -> None:
    """Add the tab's content to the `gr.Tab` that is open."""
    import gradio as gr

    reader, defaults = Reader(writer), SamplingParams()
    text = gr.Textbox(
        label=both("Começo do texto", "Beginning of the text"),
        lines=2,
        max_lines=8,
        placeholder=both(
            "Escreva um começo, e veja o que pode vir depois.", "Write a beginning, and see what may follow."
        ),
        elem_id="prox-texto",
    )
    with gr.Row(elem_id="prox-acoes", elem_classes="acoes"):
        go = gr.Button(
            both("Ver o próximo token", "Show the next token"),
            variant="primary",
            elem_id="prox-ver",
            min_width=150,
        )
        undo = gr.Button(both("Desfazer", "Undo"), elem_id="prox-desfazer", min_width=90)
        fetch = gr.Button(
            both("Usar o da aba Texto", "Use the tab Text's"), elem_id="prox-trazer", min_width=150
        )
    with gr.Row(equal_height=False, elem_id="prox-corpo"):
        with gr.Column(scale=7, min_width=320):
            view = gr.HTML(
                html_template="",
                js_on_load="ptbr.nextToken(element, props, trigger, watch)",
                elem_id="prox-vista",
                elem_classes="tokens",
                apply_default_css=False,
                settings=[getattr(defaults, name) for name in SETTINGS],
            )
        with gr.Column(scale=3, min_width=280, elem_id="prox-amostragem"):
            sliders = _sliders(defaults)

    async def read(request: Any) -> AsyncGenerator[Any]:
        if not isinstance(request, dict):  # a second click
            yield gr.skip()
            return
        ids = request.get("ids")
        with shown_on_the_page():
            facts = await reader.next_token(request.get("text") if ids is None else ids)
        yield json_line(facts | {"turn": request.get("turn"), "appended": ids is not None})

    runs: dict[str, Any] = {
        "outputs": view,
        "preprocess": False,
        "concurrency_id": "model",
        "concurrency_limit": writer.slots,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    browser: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    reading = go.click(read, text, js="(text) => [ptbr.next.read(text)]", **runs)
    appending = view.select(read, view, js="() => [ptbr.next.request()]", **runs)
    for event in (reading, appending):
        event.failure(None, js="() => ptbr.next.settle()", **browser)
    undo.click(None, js="() => ptbr.next.undo()", **browser)
    fetch.click(None, js="() => ptbr.next.takeFromText()", **browser)
    gr.on(
        [slider.change for slider in sliders],
        None,
        sliders,
        js="(...values) => ptbr.next.set(values)",
        **browser,
    )


def _sliders(defaults: SamplingParams) -> list[Any]:
    """One for each of `SETTINGS`."""
    import gradio as gr

    return [
        sampling_slider("temperature", defaults),
        sampling_slider("top_p", defaults),
        sampling_slider("top_k", defaults),
        gr.Slider(
            0,
            1,
            defaults.min_p,
            step=0.01,
            label="Min-p",
            info=both(
                "Corta o que é bem menos provável que o primeiro.",
                "Cuts what is far less probable than the first.",
            ),
        ),
        sampling_slider("repetition_penalty", defaults),
    ]
