"""The Comparar tab: two models, or two settings of one, continue one text with the same seed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ptbr_slm.app.comparison import Comparison, Side, shown_text, write_both
from ptbr_slm.app.errors import LABELS, shown_on_the_page
from ptbr_slm.app.language import Language, both, current_language
from ptbr_slm.app.model_facts import Words, measured_bits
from ptbr_slm.app.writer import Writer, sampling
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.sampling.params import SamplingParams

BEGINNING = "Era uma vez"
TOKENS = 64
SECOND_TEMPERATURE = 0.4
"""What the right side begins with where there is one model: two settings are to be compared."""
SIDES = ("A", "B")
HOW = (
    "Os dois textos começam iguais e são sorteados com a mesma semente. Escritos ao mesmo tempo, dividem o "
    "processador: sozinho, cada um é mais rápido.",
    "Both texts begin alike and are drawn with the same seed. Written at the same time, they share the "
    "processor: alone, each is faster.",
)


@dataclass(frozen=True, slots=True)
class _SideControls:
    """The components of one side."""

    model: Any
    """None where there is one model."""
    settings: list[Any]
    """temperature, top_p, top_k, repetition_penalty."""
    shown: Any
    status: Any


def build_compare(writers: Mapping[str, Writer]) -> None:
    """Add the tab's content to the `gr.Tab` that is open. writers: by what the page calls their models."""
    import gradio as gr

    contexts = [int(writer.model.describe()["context"]) for writer in writers.values()]
    most = max(2, min(1024, *contexts))
    prompt = gr.Textbox(
        BEGINNING,
        label=both("Começo dos dois textos", "Beginning of both texts"),
        lines=2,
        max_lines=8,
        elem_id="comp-texto",
    )
    with gr.Row(equal_height=False):
        chosen = [_settings_of(side, writers) for side in (0, 1)]
    with gr.Row(equal_height=True):
        tokens = gr.Slider(
            1,
            most,
            min(TOKENS, most),
            step=1,
            label=both(LABELS["max_new_tokens"], "New tokens"),
            elem_id="comp-tokens",
        )
        seed = gr.Textbox(
            "",
            label=both(LABELS["seed"], "Seed"),
            placeholder=both("sorteada a cada vez", "drawn each time"),
            max_lines=1,
        )
    with gr.Row(elem_id="comp-acoes"):
        go = gr.Button(both("Comparar", "Compare"), variant="primary", elem_id="comp-comparar", min_width=130)
        stop = gr.Button(
            both("Parar", "Stop"), variant="stop", interactive=False, elem_id="comp-parar", min_width=90
        )
    summary = gr.Markdown(both(*HOW), elem_id="comp-resumo")
    with gr.Row(equal_height=False):
        results = [_result(name) for name in SIDES]
    sides = [_SideControls(*made, *seen) for made, seen in zip(chosen, results, strict=True)]
    _connect(writers, [prompt, tokens, seed], sides, summary, go, stop)


def _settings_of(side: int, writers: Mapping[str, Writer]) -> tuple[Any, list[Any]]:
    """The left or right column of controls: the choice of the model, where there is one, and the settings."""
    import gradio as gr

    defaults, letter = SamplingParams(), SIDES[side].lower()
    names = list(writers)
    one = len(names) == 1
    temperature = SECOND_TEMPERATURE if one and side else defaults.temperature
    with gr.Column(min_width=300):
        model = None
        if not one:
            label = both(f"Modelo {SIDES[side]}", f"Model {SIDES[side]}")
            model = gr.Dropdown(names, value=names[side], label=label, elem_id=f"comp-modelo-{letter}")
        title = both(f"Amostragem {SIDES[side]}", f"Sampling {SIDES[side]}")
        with gr.Accordion(title, open=one, elem_id=f"comp-amostragem-{letter}"):
            settings = [
                gr.Slider(0, 2, temperature, step=0.05, label=both(LABELS["temperature"], "Temperature")),
                gr.Slider(0.05, 1, defaults.top_p, step=0.05, label=LABELS["top_p"]),
                gr.Slider(0, 200, defaults.top_k, step=1, label=LABELS["top_k"]),
                gr.Slider(
                    1,
                    2,
                    defaults.repetition_penalty,
                    step=0.05,
                    label=both(LABELS["repetition_penalty"], "Repetition"),
                ),
            ]
    return model, settings


def _result(name: str) -> tuple[Any, Any]:
    """Where a side's text and its figures are shown."""
    import gradio as gr

    with gr.Column(min_width=300, elem_classes="comp-lado"):
        shown = gr.HTML(
            "",
            label=name,
            show_label=True,
            elem_id=f"comp-{name.lower()}",
            container=True,
            padding=True,
            min_height=120,
        )
        status = gr.Markdown(both("Pronto.", "Ready."), elem_id=f"comp-estado-{name.lower()}")
    return shown, status


def _connect(
    writers: Mapping[str, Writer],
    shared: Sequence[Any],
    sides: Sequence[_SideControls],
    summary: Any,
    go: Any,
    stop: Any,
) -> None:
    """Comparar writes, in one event, so that a second click starts nothing; Parar cancels it."""
    import gradio as gr

    several = len(writers) > 1

    async def compare(prompt: Any, tokens: Any, seed: Any, *given: Any) -> AsyncGenerator[tuple[Any, ...]]:
        half, language = len(given) // 2, current_language()
        with shown_on_the_page():
            made = [
                _side(writers, values if several else [next(iter(writers)), *values], tokens, seed)
                for values in (given[:half], given[half:])
            ]
            made[1].options["seed"] = made[0].options["seed"]
            yield "", "", "", "", "", *_buttons(busy=True)
            comparison = Comparison(*made)
            async with aclosing(write_both(prompt, comparison)) as growing:
                async for _ in growing:
                    yield *_updates(prompt, comparison, language), *_buttons(busy=True)
            *shown, line = _updates(prompt, comparison, language)
            yield *shown, " ".join(filter(None, [line, _bits(made, language)])), *_buttons(busy=False)

    inputs = [*shared]
    for side in sides:
        inputs += ([side.model] if several else []) + side.settings
    lines = [side.status for side in sides]
    outputs = [*[side.shown for side in sides], *lines, summary, go, stop]
    quick: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    event = gr.on(
        [go.click, shared[0].submit],
        compare,
        inputs,
        outputs,
        preprocess=False,  # Writer checks the values, in Portuguese
        concurrency_id="model",
        concurrency_limit=next(iter(writers.values())).slots,
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="once",
    )
    event.failure(lambda: _buttons(busy=False), None, [go, stop], **quick)
    stopping = stop.click(None, cancels=event, queue=False)
    stopping.then(stop_both, lines, [*lines, go, stop], **quick)


def stop_both(*lines: str) -> tuple[Any, ...]:
    """Parar was pressed: what is written stays."""
    word = "stopped" if current_language() == "en" else "parado"
    return *(f"{line} · {word}" if line else f"{word.capitalize()}." for line in lines), *_buttons(busy=False)


def _side(writers: Mapping[str, Writer], values: Sequence[Any], tokens: Any, seed: Any) -> Side:
    """values: the name of a model, temperature, top_p, top_k, repetition_penalty. Raises E_USAGE."""
    name, temperature, top_p, top_k, repetition_penalty = values
    if not isinstance(name, str) or name not in writers:
        raise SlmError(
            "E_USAGE",
            f"o modelo {str(name)[:80]!r} não está nesta página.",
            where="model",
            hint=f"Escolha um destes: {', '.join(writers)}.",
        )
    options = sampling(tokens, temperature, top_p, top_k, repetition_penalty, seed)
    return Side(writers[name], options)


def _updates(prompt: str, comparison: Comparison, language: Language) -> tuple[str, ...]:
    """The texts of both sides as HTML, their lines of figures, and the line that compares them."""
    shown = [shown_text(prompt, comparison.split(side)) for side in (0, 1)]
    lines = [side.progress.line() if side.tokens and side.progress else "" for side in comparison.sides]
    return *shown, *lines, outcome(comparison, language)


def outcome(comparison: Comparison, language: Language = "pt") -> str:
    """How far the two texts are the same, as a sentence."""
    common, ended = comparison.common, all(side.ended for side in comparison.sides)
    english = language == "en"
    count = Words(language).number(common)
    if comparison.by_token:
        unit = ("token", "tokens")
    else:
        unit = ("character", "characters") if english else ("caractere", "caracteres")
    many = f"{count} {unit[common != 1]}"
    if not comparison.parted:
        if ended:
            return f"Both texts are the same: {many}." if english else f"Os dois textos são iguais: {many}."
        return f"The same so far: {many}." if english else f"Iguais até agora: {many}."
    if not common:
        return (
            f"They differ from the first {unit[0]} on."
            if english
            else f"São diferentes desde o primeiro {unit[0]}."
        )
    if english:
        return f"The same for {many}; then the texts part, where the mark stands."
    return f"Iguais por {many}; então os textos se separam, onde está a marca."


def _bits(sides: Sequence[Side], language: Language) -> str:
    """The bits per byte of two models on one text: a pair of texts says little of how good they are."""
    first, second = (side.writer.model for side in sides)
    known = None if first is second else (measured_bits(first), measured_bits(second))
    if known is None or known[0] is None or known[1] is None or known[0][1] != known[1][1]:
        return ""
    say = Words(language)
    values = " · ".join(
        f"{name} {say.number(each[0], 3)}" for name, each in zip(SIDES, known, strict=True) if each
    )
    targets = say.number(known[0][1]["targets"])
    return say(
        f"Bits por byte, medidos nos mesmos {targets} tokens: {values}.",
        f"Bits per byte, measured on the same {targets} tokens: {values}.",
    )


def _buttons(*, busy: bool) -> tuple[Any, Any]:
    import gradio as gr

    return gr.Button(interactive=not busy), gr.Button(interactive=busy)
