"""Usar no meu código: programs that do what Continuar does, with the text and the settings as they are now.

static/code.js makes them in the browser: they follow the controls at once, and no text is sent for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.app.language import both
from ptbr_slm.demo import MACHADO, model_path


@dataclass(frozen=True, slots=True)
class Api:
    """The OpenAI-compatible API of the server that shows the page."""

    path: str
    """Relative to the page's address."""
    keys: bool
    """Whether it asks for one."""


@dataclass(frozen=True, slots=True)
class ModelAddress:
    """How a program reaches a model of the page: what static/code.js is told."""

    name: str
    """What a server calls it."""
    path: str
    """Its folder, as Python opens it from where the page was opened."""
    api: str | None
    """None: no server runs, and the program says how to start one."""
    keys: bool


def address_of(name: str, folder: Path, api: Api | None) -> ModelAddress:
    """folder: as seen from the working folder where it lies below it: visitors need not read the rest.

    The demonstration model goes by its name, which is the same everywhere.
    """
    here, path = Path().resolve(), folder.resolve()
    shown = path.relative_to(here) if path.is_relative_to(here) else folder
    if path == model_path(MACHADO).resolve():
        shown = Path(MACHADO)
    return ModelAddress(name, shown.as_posix(), api.path if api else None, bool(api and api.keys))


def build_code(model: ModelAddress, inputs: Sequence[Any]) -> None:
    """Add the accordion. model: of the text.

    inputs: the components of the text, of max_new_tokens, temperature, top_p, top_k, repetition_penalty and
    seed.
    """
    import gradio as gr

    with gr.Accordion(
        both("Usar no meu código", "Use in my code"), open=False, elem_id="codigo"
    ) as accordion:
        outputs = []
        with gr.Tabs():
            for title, language in (("Python", "python"), ("curl", "shell"), ("openai", "python")):
                with gr.Tab(title, elem_id=f"codigo-{title.lower()}"):
                    outputs.append(
                        gr.Code(
                            language=language,
                            label=title,
                            interactive=False,
                            wrap_lines=True,
                            show_line_numbers=False,
                            max_lines=24,
                            buttons=["copy"],
                        )
                    )
    changes = [component.change for component in inputs]
    gr.on(
        [accordion.expand, *changes],
        None,
        list(inputs),
        outputs,
        js=f"(...values) => ptbrCode.all({json.dumps(asdict(model))}, values)",
        queue=False,
        api_visibility="private",
    )
