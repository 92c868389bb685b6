"""The Conversa tab, for a model with a chat template. Its buttons are in static/conversation.js."""

from __future__ import annotations

from ptbr_slm.app.language import both
from ptbr_slm.app.sampling_panel import CONVERSATION, sampling_panel
from ptbr_slm.app.tabs.text import status_line
from ptbr_slm.app.writer import Writer
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model

UNTUNED = (
    "**Este modelo não foi treinado para conversar.** Ele continua o texto da conversa, e talvez não "
    "responda nem saiba parar. Para ensiná-lo, dê a `ptbr-slm tune` a pasta do modelo treinado, aquela de "
    "que este export foi feito, e exporte de novo o resultado.",
    "**This model was not trained for conversation.** It continues the conversation's text, and may neither "
    "answer nor know when to stop. To teach it, give `ptbr-slm tune` the folder of the trained model, the "
    "one that this export was made of, and export the result again.",
)


def has_template(model: Model) -> bool:
    """Whether the model has a form of conversation, learnt or not."""
    try:
        return model.chat_format is not None
    except SlmError:
        return False


def build_conversation(writer: Writer) -> None:
    """Add the tab's content to the `gr.Tab` that is open."""
    import gradio as gr

    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=320):
            if not writer.model.is_tuned:
                gr.Markdown(both(*UNTUNED), elem_id="sem-conversa")
            gr.HTML('<div id="conversa" role="log" tabindex="0"></div>', padding=False)
            gr.Textbox(
                label=both("Mensagem", "Message"),
                lines=1,
                max_lines=8,
                placeholder=both(
                    "Escreva uma mensagem… (Enter envia, Esc interrompe)",
                    "Write a message, in Portuguese… (Enter sends, Esc stops)",
                ),
                elem_id="mensagem",
            )
            with gr.Row(elem_id="acoes-conversa", elem_classes="acoes"):
                send = gr.Button(both("Enviar", "Send"), variant="primary", elem_id="enviar")
                gr.Button(both("Parar", "Stop"), variant="stop", elem_id="parar-resposta")
                again = gr.Button(both("Tentar de novo", "Try again"), elem_id="responder-de-novo")
                gr.Button(both("Nova conversa", "New conversation"), elem_id="nova-conversa")
            status_line("estado-conversa")
        with gr.Column(scale=3, min_width=280):
            system = gr.Textbox(
                label=both("Texto de sistema", "System text"),
                lines=4,
                max_lines=10,
                placeholder=both("Como o modelo deve agir (opcional)", "How the model is to act (optional)"),
                elem_id="sistema",
            )
            sampling = sampling_panel(writer, "amostragem-conversa", CONVERSATION)
    for button in (send, again):
        button.click(
            None,
            [system, *sampling],
            None,
            js="(...settings) => { ptbr.conversation.run(...settings) }",
        )
