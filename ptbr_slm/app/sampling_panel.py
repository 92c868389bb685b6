"""The accordion Amostragem: three styles that fill it, and a control for each setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ptbr_slm.app.errors import ENGLISH_LABELS, LABELS
from ptbr_slm.app.language import both
from ptbr_slm.app.writer import Writer
from ptbr_slm.runtime.prompt import CHAT_SAMPLING
from ptbr_slm.runtime.sampling.params import SamplingParams, sampling_params


@dataclass(frozen=True, slots=True)
class Styles:
    """What an accordion begins with, and what its styles set: (temperature, top_p)."""

    defaults: SamplingParams
    """Those of the command line; the style Equilibrado."""
    precise: tuple[float, float]
    creative: tuple[float, float]


TEXT = Styles(SamplingParams(), precise=(0.4, 0.9), creative=(1.1, 1.0))
CONVERSATION = Styles(sampling_params(CHAT_SAMPLING), precise=(0.0, 0.9), creative=(0.8, 0.95))


def sampling_panel(writer: Writer, elem_id: str, styles: Styles = TEXT, *, open: bool = False) -> list[Any]:
    """Add the accordion; its controls in the order of `Writer.write`.

    That is max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed. A style is set in the browser
    alone, so that what follows it at once sees it.
    """
    import gradio as gr

    defaults = styles.defaults
    most = max(2, min(1024, int(writer.model.describe()["context"])))
    with gr.Accordion(both("Amostragem", "Sampling"), open=open, elem_id=elem_id, elem_classes="amostragem"):
        with gr.Row(elem_classes="estilos"):
            precise = _style_button(both("Preciso", "Precise"))
            balanced = _style_button(both("Equilibrado", "Balanced"))
            creative = _style_button(both("Criativo", "Creative"))
        new_tokens = gr.Slider(
            1,
            most,
            min(defaults.max_new_tokens, most),
            step=1,
            label=both(LABELS["max_new_tokens"], ENGLISH_LABELS["max_new_tokens"]),
            info=both("Quanto escrever no máximo.", "How much to write at most."),
        )
        temperature = sampling_slider("temperature", defaults)
        top_p = sampling_slider("top_p", defaults)
        top_k = sampling_slider("top_k", defaults)
        repetition = sampling_slider("repetition_penalty", defaults)
        seed = gr.Textbox(
            "",
            label=both(LABELS["seed"], ENGLISH_LABELS["seed"]),
            placeholder=both("sorteada a cada vez", "drawn each time"),
            max_lines=1,
        )
    middle = (defaults.temperature, defaults.top_p)
    for button, values in (
        (precise, styles.precise),
        (balanced, middle),
        (creative, styles.creative),
    ):
        rest = [defaults.top_k, defaults.repetition_penalty]
        button.click(
            None, None, [temperature, top_p, top_k, repetition], js=f"() => {[*values, *rest]}", queue=False
        )
    return [new_tokens, temperature, top_p, top_k, repetition, seed]


def _style_button(name: Any) -> Any:
    import gradio as gr

    return gr.Button(name, size="sm", min_width=80)


_SLIDERS = {
    "temperature": (0, 2, 0.05, "0 escolhe sempre o mais provável.", "0 always takes the most probable."),
    "top_p": (0.05, 1, 0.05, "Menor: menos surpresas.", "Lower: fewer surprises."),
    "top_k": (0, 200, 1, "0 não limita.", "0 is no limit."),
    "repetition_penalty": (1, 2, 0.05, "Acima de 1, evita repetir.", "Above 1, avoids repeating."),
}
"""Field of `SamplingParams` -> least, most, step, and what it does, in Portuguese and in English."""


def sampling_slider(field: str, defaults: SamplingParams) -> Any:
    """The control of one of `_SLIDERS`."""
    import gradio as gr

    least, most, step, portuguese, english = _SLIDERS[field]
    return gr.Slider(
        least,
        most,
        getattr(defaults, field),
        step=step,
        label=both(LABELS[field], ENGLISH_LABELS[field]),
        info=both(portuguese, english),
    )
