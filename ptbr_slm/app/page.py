"""The page: its header and its tabs. Gradio is imported inside the functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptbr_slm.app.api import add_generate
from ptbr_slm.app.code_snippets import Api, address_of, build_code
from ptbr_slm.app.language import both
from ptbr_slm.app.share_file import build_share
from ptbr_slm.app.tabs.compare import build_compare
from ptbr_slm.app.tabs.conversation import build_conversation, has_template
from ptbr_slm.app.tabs.model_card import build_model_card
from ptbr_slm.app.tabs.next_token import build_next_token
from ptbr_slm.app.tabs.probabilities import build_probabilities
from ptbr_slm.app.tabs.text import build_text
from ptbr_slm.app.writer import MAX_WAITING, Writer
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.naming import fingerprint_of

TITLE = "ptbr-slm"
WARNING = (
    "Escreva um começo e o modelo **continua** o texto. Ele é pequeno, não conversa nem consulta nada, "
    "e **inventa fatos**: não confie no que ele afirma.",
    "Write a beginning and the model **continues** the text, in Portuguese. It is small, does not talk or "
    "look anything up, and **makes up facts**: do not trust what it says.",
)
WARNING_TUNED = (
    "Escreva um começo e o modelo **continua** o texto, ou faça uma pergunta na aba **Conversa**. Ele é "
    "pequeno, não consulta nada, e **inventa fatos**: não confie no que ele afirma.",
    "Write a beginning and the model **continues** the text, in Portuguese, or ask a question in the tab "
    "**Conversation**. It is small, looks nothing up, and **makes up facts**: do not trust what it says.",
)


def build_demo(writers: Mapping[str, Writer], key: str, api: Api | None = None) -> Any:
    """The page as a `gradio.Blocks`; launch it with `launch_options`, which carry its looks and routes.

    writers: by what the page calls their models; all tabs but Comparar and Modelo use the first. key: see
    `Streams`. api: of the server that shows the page, where one does.
    """
    import gradio as gr

    name, writer = next(iter(writers.items()))
    talks = has_template(writer.model)
    warning = WARNING_TUNED if talks and writer.model.is_tuned else WARNING
    with gr.Blocks(title=TITLE, analytics_enabled=False) as demo:
        gr.HTML(f'<h1 data-key="{key}">{TITLE}</h1>', elem_id="topo", padding=False)
        gr.Markdown(both(*warning), elem_id="aviso")
        with gr.Tabs(elem_id="abas", overflow_behavior="wrap"):
            with gr.Tab(both("Texto", "Text"), elem_id="aba-texto"):
                controls = build_text(writer)
                build_share(demo, name, fingerprint_of(ModelFolder.of(writer.model.path)), controls)
                build_code(address_of(name, writer.model.path, api), controls)
            with gr.Tab(both("Probabilidades", "Probabilities"), elem_id="aba-probabilidades"):
                build_probabilities(writer)
            with gr.Tab(both("Próximo token", "Next token"), elem_id="aba-proximo"):
                build_next_token(writer)
            with gr.Tab(both("Comparar", "Compare"), elem_id="aba-comparar"):
                build_compare(writers)
            if talks:
                with gr.Tab(both("Conversa", "Conversation"), elem_id="aba-conversa"):
                    build_conversation(writer)
            with gr.Tab(both("Modelo", "Model"), elem_id="aba-modelo"):
                build_model_card({name: each.model for name, each in writers.items()})
        add_generate(writer)
    demo.queue(max_size=MAX_WAITING, default_concurrency_limit=writer.slots)
    return demo
