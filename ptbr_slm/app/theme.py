"""How the page looks and behaves in the browser: a font that Gradio ships (nothing is fetched), a serif for
the text, and the files of static/.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

FONT = "IBM Plex Sans"
"""One of the few fonts in Gradio 6.31 with Latin letters in its file: Source Sans 3, Lora, Lexend and others
hold only a Vietnamese or Cyrillic subset, and a page set in them mixes two fonts in a word (a test looks)."""

STYLES = ("page.css", "tokens.css", "compare.css", "model_card.css", "share.css")
SCRIPTS = (
    "page.js",
    "text.js",
    "conversation.js",
    "distribution.js",
    "tokens.js",
    "token_list.js",
    "probabilities.js",
    "next_token.js",
    "compare.js",
    "code.js",
    "share.js",
)
"""Each may use what those before it define."""


def style() -> str:
    """The CSS of the page."""
    return "\n".join(map(_static, STYLES))


def head() -> str:
    """What stands in the page's <head>: its scripts, inside the page, for nothing else is served."""
    return "".join(f"<script>\n{_static(name)}</script>\n" for name in SCRIPTS)


def _static(name: str) -> str:
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def theme() -> Any:
    """A `gradio.themes.Base` in stone and emerald."""
    import gradio as gr
    from gradio.themes.utils.fonts import LocalFont

    return gr.themes.Base(
        primary_hue=gr.themes.colors.emerald,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=(LocalFont(FONT, weights=(400, 700)), "system-ui", "sans-serif"),
        font_mono=("ui-monospace", "Consolas", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",  # 7.2:1 on the background
        body_text_color_subdued_dark="*neutral_400",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_shadow="none",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_900",
        input_border_width="1px",
        button_border_width="0px",
        input_border_color="*neutral_500",  # for the login: page.css takes it away
        input_border_color_dark="*neutral_500",
        input_placeholder_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",  # white on primary_600 has 3.8:1
        button_primary_text_color="white",
        slider_color="*primary_600",
    )
