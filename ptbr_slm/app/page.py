"""The page: its controls, and what each of them does. Gradio is imported inside the functions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from ptbr_slm.app.conversation import build_conversation, has_template
from ptbr_slm.app.errors import LABELS, shown_on_the_page
from ptbr_slm.app.figures import READING, READY, model_card, stopped
from ptbr_slm.app.writer import Writer
from ptbr_slm.runtime.prompt import CHAT_SAMPLING
from ptbr_slm.runtime.sampling.params import SamplingParams, sampling_params

TITLE = "ptbr-slm"
WARNING = (
    "Escreva um começo e o modelo **continua** o texto. Ele é pequeno, não conversa nem consulta nada, "
    "e **inventa fatos**: não confie no que ele afirma."
)
WARNING_TUNED = (
    "Escreva um começo e o modelo **continua** o texto, ou faça uma pergunta na aba **Conversa**. Ele é "
    "pequeno, não consulta nada, e **inventa fatos**: não confie no que ele afirma."
)
EXAMPLES = [
    "Era uma vez",
    "O Brasil é",
    "Naquela manhã de domingo, Helena",
    "Segundo os pesquisadores,",
    "No Recife, à beira do rio,",
]
API_DESCRIPTION = (
    "Continua um texto. Devolve, à medida que cresce, o texto inteiro e uma linha com tokens, velocidade e "
    "semente."
)
MAX_WAITING = 16
"""Visitors who wait while the model's slots are taken; the next one is told to come back."""

MAX_SNAPSHOTS = 20
MAX_CHARACTERS = 200_000
"""Of one snapshot: a pasted megabyte that the model refuses anyway is not stored in the server's memory."""


def build_demo(writer: Writer) -> Any:
    """The page as a `gradio.Blocks`; launch it with `launch_options`, which carry its looks."""
    import gradio as gr

    talks = has_template(writer.model)
    with gr.Blocks(title=f"{TITLE}: continua textos em português", analytics_enabled=False) as demo:
        tuned = talks and writer.model.is_tuned
        gr.Markdown(f"# {TITLE}\n\n{WARNING_TUNED if tuned else WARNING}", elem_id="topo")
        if talks:
            with gr.Tabs(elem_id="abas"):
                with gr.Tab("Continuar", elem_id="aba-continuar"):
                    _build_continuation(writer)
                with gr.Tab("Conversa", elem_id="aba-conversa"):
                    chat = sampling_params(CHAT_SAMPLING)
                    build_conversation(
                        writer, lambda: _sampling_controls(writer, chat, "amostragem-conversa")
                    )
        else:
            _build_continuation(writer)
    demo.queue(max_size=MAX_WAITING, default_concurrency_limit=writer.slots)
    return demo


def _build_continuation(writer: Writer) -> None:
    """The text box that the model continues, and its controls."""
    import gradio as gr

    history = gr.State(UndoHistory())
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=320):
            text = gr.Textbox(
                label="Texto",
                lines=12,
                max_lines=22,
                placeholder="Comece uma frase… (Ctrl+Enter continua, Esc para)",
                buttons=["copy"],
                autofocus=True,
                elem_id="texto",
            )
            with gr.Row(elem_id="acoes"):
                go = gr.Button("Continuar", variant="primary", elem_id="continuar", min_width=130)
                stop = gr.Button("Parar", variant="stop", interactive=False, elem_id="parar", min_width=90)
                again = gr.Button("Tentar de novo", interactive=False, elem_id="de-novo", min_width=130)
                undo = gr.Button("Desfazer", interactive=False, elem_id="desfazer", min_width=90)
            status = gr.Markdown(READY, elem_id="estado")
            examples = gr.Dataset(
                components=[text],
                samples=[[example] for example in EXAMPLES],
                label="Começos para experimentar",
                type="values",
            )
        with gr.Column(scale=3, min_width=280):
            gr.HTML(model_card(writer.model.describe()), elem_id="ficha", container=True, padding=True)
            sampling = _sampling_controls(writer, SamplingParams(), "amostragem")
    _connect(writer, _Controls(text, status, history, go, stop, again, undo, examples, sampling))


@dataclass(frozen=True, slots=True)
class _Controls:
    """The components that events read and write."""

    text: Any
    status: Any
    history: Any
    go: Any
    stop: Any
    again: Any
    undo: Any
    examples: Any
    sampling: list[Any]
    """max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed: the order of `Writer.write`."""

    @property
    def buttons(self) -> list[Any]:
        return [self.go, self.stop, self.again, self.undo]


def _sampling_controls(writer: Writer, defaults: SamplingParams, elem_id: str) -> list[Any]:
    """The accordion; its starting values are those of the command line."""
    import gradio as gr

    most = max(2, min(1024, int(writer.model.describe()["context"])))
    tokens = min(defaults.max_new_tokens, most)
    with gr.Accordion("Amostragem", open=False, elem_id=elem_id):
        new_tokens = gr.Slider(
            1, most, tokens, step=1, label=LABELS["max_new_tokens"], info="Quanto escrever no máximo."
        )
        temperature = gr.Slider(
            0,
            2,
            defaults.temperature,
            step=0.05,
            label=LABELS["temperature"],
            info="0 escolhe sempre o mais provável.",
        )
        top_p = gr.Slider(
            0.05, 1, defaults.top_p, step=0.05, label=LABELS["top_p"], info="Menor: menos surpresas."
        )
        top_k = gr.Slider(0, 200, defaults.top_k, step=1, label=LABELS["top_k"], info="0 não limita.")
        repetition = gr.Slider(
            1,
            2,
            defaults.repetition_penalty,
            step=0.05,
            label=LABELS["repetition_penalty"],
            info="Acima de 1, evita repetir.",
        )
        seed = gr.Textbox("", label=LABELS["seed"], placeholder="sorteada a cada vez", max_lines=1)
    return [new_tokens, temperature, top_p, top_k, repetition, seed]


def _connect(writer: Writer, page: _Controls) -> None:
    """Continuar and Tentar de novo: prepare, write, settle. Parar cancels the writing and settles."""
    import gradio as gr

    async def generate(
        prompt: Any,
        max_new_tokens: Any,
        temperature: Any,
        top_p: Any,
        top_k: Any,
        repetition_penalty: Any,
        seed: Any,
    ) -> AsyncGenerator[tuple[str, str]]:
        values = (max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
        with shown_on_the_page():
            async with aclosing(writer.write(prompt, *values)) as texts:
                async for shown in texts:
                    yield shown

    async def generate_again(prompt: Any, *values: Any) -> AsyncGenerator[tuple[str, str]]:
        values = (*values[:-1], None)  # a fixed seed would give the same text
        with shown_on_the_page():
            async with aclosing(writer.write(prompt, *values)) as texts:
                async for shown in texts:
                    yield shown

    quick: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    box, state = [page.text, page.history], [page.text, page.status, page.history]
    settled = [page.history, page.status, *page.buttons]

    def write_after(start: Any, function: Any, **api: str) -> Any:
        event = start.success(
            function,
            [page.text, *page.sampling],
            [page.text, page.status],
            # Gradio would turn a dict into its str and refuse a range in English; Writer checks everything.
            preprocess=False,
            concurrency_id="model",
            concurrency_limit=writer.slots,
            show_progress="hidden",
            **api,
        )
        for ended in (event.then, event.failure):  # in Gradio 6.31 `then` alone does not follow an error
            ended(settle, state, settled, **quick)
        return event

    started = gr.on([page.go.click, page.text.submit], begin, box, settled, **quick)
    restarted = page.again.click(begin_again, box, [page.text, *settled], **quick)
    writing = [
        write_after(started, generate, api_name="generate", api_description=API_DESCRIPTION),
        write_after(restarted, generate_again, api_visibility="private"),
    ]
    # First the cancelling, then the status line: an update still on its way would overwrite it.
    page.stop.click(None, cancels=writing, queue=False).then(stop_writing, state, settled, **quick)
    page.undo.click(undo_last, box, [page.text, *settled], **quick)
    page.examples.click(choose_example, [page.examples, *box], [page.text, *settled], **quick)


def begin(text: Any, history: UndoHistory) -> tuple[Any, ...]:
    """Continuar was pressed."""
    history = history.before_continuing(text) if isinstance(text, str) else history
    return history, READING, *_busy()


def begin_again(text: Any, history: UndoHistory) -> tuple[Any, ...]:
    """Tentar de novo was pressed: the box returns to what was last continued; Desfazer brings `text` back."""
    return history.base, history.remember(str(text)), READING, *_busy()


def settle(text: Any, status: str, history: UndoHistory) -> tuple[Any, ...]:
    """The writing ended, well or not. What Parar has said meanwhile stays: its answer may come first."""
    import gradio as gr

    history = history.settled(str(text))
    return history, READY if status == READING else gr.skip(), *_idle(history)


def stop_writing(text: Any, status: str, history: UndoHistory) -> tuple[Any, ...]:
    """Parar was pressed: what is written stays."""
    history = history.settled(str(text))
    return history, stopped(status), *_idle(history)


def undo_last(text: Any, history: UndoHistory) -> tuple[Any, ...]:
    """Desfazer was pressed."""
    before, history = history.undone()
    return text if before is None else before, history, READY, *_idle(history)


def choose_example(sample: list[str], text: Any, history: UndoHistory) -> tuple[Any, ...]:
    """An example was chosen; Desfazer brings the text back."""
    history = history.remember(str(text)) if text else history
    return sample[0], history, READY, *_idle(history)


def _busy() -> list[Any]:
    return _buttons(go=False, stop=True, again=False, undo=False)


def _idle(history: UndoHistory) -> list[Any]:
    return _buttons(go=True, stop=False, again=history.base is not None, undo=bool(history.snapshots))


def _buttons(*, go: bool, stop: bool, again: bool, undo: bool) -> list[Any]:
    import gradio as gr

    return [gr.Button(interactive=state) for state in (go, stop, again, undo)]


@dataclass(frozen=True, slots=True)
class UndoHistory:
    """What Desfazer and Tentar de novo remember of one text box. Immutable: an action gives a new one."""

    base: str | None = None
    """The text that was last continued: what Tentar de novo starts from. None before the first time."""
    snapshots: tuple[tuple[str, str | None], ...] = ()
    """(text, base) before each action, newest last."""

    def before_continuing(self, text: str) -> UndoHistory:
        """`text` is about to be continued."""
        return replace(self.remember(text), base=text if len(text) <= MAX_CHARACTERS else None)

    def remember(self, text: str) -> UndoHistory:
        """The box is about to change and holds `text`."""
        if len(text) > MAX_CHARACTERS or (self.snapshots and self.snapshots[-1][0] == text):
            return self
        return replace(self, snapshots=(*self.snapshots, (text, self.base))[-MAX_SNAPSHOTS:])

    def undone(self) -> tuple[str | None, UndoHistory]:
        """The text before the last action (None where there is none), and the history before it."""
        if not self.snapshots:
            return None, self
        text, base = self.snapshots[-1]
        return text, UndoHistory(base, self.snapshots[:-1])

    def settled(self, text: str) -> UndoHistory:
        """The action is over and left `text`: one that changed nothing (an error) is forgotten."""
        if self.snapshots and self.snapshots[-1][0] == text:
            return self.undone()[1]
        return self
