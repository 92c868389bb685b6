"""The Probabilidades tab: each token of a text coloured by its probability; a click shows its alternatives,
and choosing one continues the text from there.

What the visitor sees is drawn by static/probabilities.js, which knows the text and what Desfazer returns to;
here is what runs the model.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ptbr_slm.app.errors import shown_on_the_page
from ptbr_slm.app.language import both, current_language
from ptbr_slm.app.reader import Reader, json_line
from ptbr_slm.app.sampling_panel import sampling_panel
from ptbr_slm.app.writer import Writer


def build_probabilities(writer: Writer) -> None:
    """Add the tab's content to the `gr.Tab` that is open."""
    import gradio as gr

    reader = Reader(writer)
    text = gr.Textbox(
        label=both("Texto para ler", "Text to read"),
        lines=3,
        max_lines=10,
        placeholder=both(
            "Escreva ou cole um texto, e veja o que o modelo esperava.",
            "Write or paste a text, and see what the model expected.",
        ),
        elem_id="prob-texto",
    )
    with gr.Row(elem_id="prob-acoes", elem_classes="acoes"):
        go = gr.Button(
            both("Ver probabilidades", "Show probabilities"),
            variant="primary",
            elem_id="prob-ver",
            min_width=150,
        )
        stop = gr.Button(both("Parar", "Stop"), variant="stop", elem_id="prob-parar", min_width=90)
        undo = gr.Button(both("Desfazer", "Undo"), elem_id="prob-desfazer", min_width=90)
        fetch = gr.Button(
            both("Usar o da aba Texto", "Use the tab Text's"), elem_id="prob-trazer", min_width=150
        )
    view = gr.HTML(
        html_template="",
        js_on_load="ptbr.probabilities(element, props, trigger, watch)",
        elem_id="prob-vista",
        elem_classes="tokens",
        apply_default_css=False,
    )
    sampling = sampling_panel(writer, "prob-amostragem")

    async def read(request: Any) -> AsyncGenerator[Any]:
        if not isinstance(request, dict):  # a second click
            yield gr.skip()
            return
        with shown_on_the_page():
            facts = await reader.read(request.get("text"))
        yield json_line(facts | {"turn": request.get("turn"), "ended": True})

    async def go_on(request: Any, *values: Any) -> AsyncGenerator[Any]:
        if not isinstance(request, dict):
            yield gr.skip()
            return
        lines, language = "", current_language()
        with shown_on_the_page():
            async with aclosing(reader.continued(request.get("ids"), *values, language=language)) as parts:
                async for facts in parts:
                    lines += json_line(facts | {"turn": request.get("turn")})
                    yield lines

    runs: dict[str, Any] = {
        "outputs": view,
        "preprocess": False,
        "concurrency_id": "model",
        "concurrency_limit": writer.slots,
        "show_progress": "hidden",
        "api_visibility": "private",
    }
    reading = go.click(read, text, js="(text) => [ptbr.prob.read(text)]", **runs)
    writing = view.select(
        go_on, [view, *sampling], js="(_, ...values) => [ptbr.prob.request(), ...values]", **runs
    )
    browser: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    for event in (reading, writing):
        event.failure(None, js="() => ptbr.prob.settle()", **browser)
    stop.click(None, cancels=[reading, writing], js="() => ptbr.prob.settle()", **browser)
    undo.click(None, js="() => ptbr.prob.undo()", **browser)
    fetch.click(None, js="() => ptbr.prob.takeFromText()", **browser)
