"""The Modelo tab: what is known of each model of the page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from ptbr_slm.app.card_markdown import card_html
from ptbr_slm.app.model_facts import Section, sections
from ptbr_slm.runtime.model import Model


def build_model_card(models: Mapping[str, Model]) -> None:
    """Add the tab's content to the `gr.Tab` that is open. models: by what the page calls them."""
    import gradio as gr

    with gr.Row(equal_height=False):
        for index, (name, model) in enumerate(models.items()):
            with gr.Column(min_width=460):
                gr.HTML(
                    _in_both_languages(name, model),
                    elem_id=f"modelo-{index}",
                    elem_classes="modelo",
                    container=True,
                    padding=True,
                )


def _in_both_languages(name: str, model: Model) -> str:
    """Both cards; page.css shows the one of the browser's language."""
    title = f"<h2>{html.escape(name)}</h2>"
    portuguese, english = card(sections(model, "pt")), card(sections(model, "en"))
    return (
        f'<div class="so-pt" lang="pt-BR">{title}{portuguese}</div>'
        f'<div class="so-en" lang="en">{title}{english}</div>'
    )


def card(parts: Sequence[Section]) -> str:
    """The sections as HTML; everything in it is escaped, or was made harmless by `card_html`."""
    return "".join(map(_section, parts))


def _section(part: Section) -> str:
    title = f"<h3>{html.escape(part.title)}</h3>"
    if part.markdown:
        return f'<section class="modelo-texto">{title}{card_html(part.markdown)}</section>'
    rows = "".join(
        f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>" for label, value in part.rows
    )
    if part.folded:
        return f"<details><summary>{html.escape(part.title)}</summary><dl>{rows}</dl></details>"
    return f"<section>{title}<dl>{rows}</dl></section>"
