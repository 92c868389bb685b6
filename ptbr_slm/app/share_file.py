"""Save and share: the text and its settings in a link, or in a small file.

static/share.js does all of it in the browser. The link has them behind its #, which browsers do not send; the
file is written and read there, too: the server neither stores texts nor takes files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ptbr_slm.app.language import both


def build_share(demo: Any, name: str, fingerprint: str, inputs: Sequence[Any]) -> None:
    """Add the buttons. demo: the `gradio.Blocks` that is open. name, fingerprint: of the model of the text.

    inputs: the components of the text, of max_new_tokens, temperature, top_p, top_k, repetition_penalty and
    seed, which a link or a file fills.
    """
    import gradio as gr

    with gr.Row(elem_id="compartilhar"):
        copy = gr.Button(both("Copiar link", "Copy link"), size="sm", elem_id="copiar-link")
        save = gr.Button(both("Guardar num arquivo", "Save in a file"), size="sm", elem_id="guardar-arquivo")
        load = gr.Button(both("Abrir arquivo", "Open a file"), size="sm", elem_id="abrir-arquivo")
    status = gr.Markdown("", elem_id="compartilhar-estado")
    follow = gr.Button(visible="hidden", elem_id="abrir-link")

    settings = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty")
    limits = {
        name: [slider.minimum, slider.maximum] for name, slider in zip(settings, inputs[1:6], strict=True)
    }
    panel = json.dumps({"limits": limits, "name": name, "fingerprint": fingerprint})
    quick: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    controls = list(inputs)
    given = f"(...given) => ptbrShare.%s({panel}, given)"
    copy.click(None, controls, [status], js=given % "copyLink", **quick)
    save.click(None, controls, [status], js=given % "saveFile", **quick)
    load.click(None, controls, [*controls, status], js=given % "openFile", **quick)
    for arrives in (demo.load, follow.click):
        arrives(None, controls, [*controls, status], js=given % "openLink", **quick)
