"""The Texto tab: one text that the model continues. Its buttons are in static/text.js."""

from __future__ import annotations

import html
from typing import Any

from ptbr_slm.app.figures import model_card
from ptbr_slm.app.language import both
from ptbr_slm.app.sampling_panel import sampling_panel
from ptbr_slm.app.writer import Writer

EXAMPLES = [
    "Era uma vez",
    "O Brasil é",
    "Naquela manhã de domingo, Helena",
    "Segundo os pesquisadores,",
    "No Recife, à beira do rio,",
]


def build_text(writer: Writer) -> list[Any]:
    """Add the tab's content to the `gr.Tab` that is open; the text box, and the controls of the sampling."""
    import gradio as gr

    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=320):
            text = gr.Textbox(
                label=both("Texto", "Text"),
                lines=12,
                max_lines=22,
                placeholder=both(
                    "Comece uma frase… (Ctrl+Enter continua, Esc para)",
                    "Begin a sentence, in Portuguese… (Ctrl+Enter continues, Esc stops)",
                ),
                buttons=["copy"],
                elem_id="texto",
            )
            with gr.Row(elem_id="acoes", elem_classes="acoes"):
                go = gr.Button(both("Continuar", "Continue"), variant="primary", elem_id="continuar")
                gr.Button(both("Parar", "Stop"), variant="stop", elem_id="parar")
                again = gr.Button(both("Tentar de novo", "Try again"), elem_id="de-novo")
                gr.Button(both("Desfazer", "Undo"), elem_id="desfazer")
                gr.Button(both("Refazer", "Redo"), elem_id="refazer")
            status_line("estado")
            gr.Markdown(both("Começos para experimentar", "Beginnings to try"), elem_id="titulo-exemplos")
            gr.HTML(_examples(), elem_id="exemplos", padding=False)
        with gr.Column(scale=3, min_width=280):
            facts = writer.model.describe()
            card = both(model_card(facts), model_card(facts, "en"))
            gr.HTML(card, elem_id="ficha", container=True, padding=True)
            sampling = sampling_panel(writer, "amostragem")
    for button in (go, again):
        button.click(None, sampling, None, js="(...sampling) => { ptbr.text.run(...sampling) }")
    return [text, *sampling]


def status_line(elem_id: str) -> None:
    """A line of figures that the browser writes (static/page.js), as a screen reader hears it: when done."""
    import gradio as gr

    gr.HTML(f'<p id="{elem_id}" class="estado" role="status" aria-live="polite"></p>', padding=False)


def _examples() -> str:
    buttons = "".join(f'<button type="button">{html.escape(text)}</button>' for text in EXAMPLES)
    return f'<div role="group" aria-labelledby="titulo-exemplos">{buttons}</div>'
