"""The Conversa tab: its controls, what each of them does, and what the server stores of one conversation."""

from __future__ import annotations

import html
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from ptbr_slm.app.errors import shown_on_the_page
from ptbr_slm.app.figures import READING, READY, stopped
from ptbr_slm.app.writer import Writer
from ptbr_slm.chat import Message
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model

UNTUNED = (
    "**Este modelo não foi treinado para conversar.** Ele continua o texto da conversa, e talvez não "
    "responda nem saiba parar. Quem o treinou pode ensiná-lo com `ptbr-slm tune`."
)
NOTHING_WRITTEN = "O modelo encerrou sem escrever nada."
MAX_CHARACTERS = 200_000
"""Of one conversation in the server's memory; the oldest messages beyond it are forgotten."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation. Immutable: an action gives a new one."""

    messages: tuple[Message, ...] = ()
    """User and assistant in turn; the last is the assistant's."""
    question: str | None = None
    """What the model is answering now."""
    turn: int = 0
    """Number of the question, so that a piece of an earlier answer is known as one."""

    def asking(self, text: str) -> Dialogue:
        """The model is to answer `text`."""
        return replace(self, question=text, turn=self.turn + 1)

    def asking_again(self) -> Dialogue:
        """The model is to answer the last question anew."""
        *before, question, _ = self.messages
        return replace(self, messages=tuple(before)).asking(question.content)

    def answered(self, answer: str) -> Dialogue:
        """The model has answered, or was stopped; an empty answer leaves no trace of its question."""
        if self.question is None:
            return self
        new = (Message("user", self.question), Message("assistant", answer)) if answer else ()
        messages = (*self.messages, *new)
        while sum(len(message.content) for message in messages) > MAX_CHARACTERS:
            messages = messages[2:]
        return replace(self, messages=messages, question=None)

    def prompt(self, system: str) -> list[Message]:
        """What the model reads."""
        head = [Message("system", system)] if system.strip() else []
        return [*head, *self.messages, Message("user", self.question or "")]

    def shown(self, answer: str = "") -> list[dict[str, str]]:
        """The value of the `gr.Chatbot`, which takes a text for HTML even without Markdown (Gradio 6.31)."""
        now = [] if self.question is None else [Message("user", self.question)]
        if answer:
            now.append(Message("assistant", answer))
        shown = [*self.messages, *now]
        return [{"role": m.role, "content": html.escape(m.content, quote=False)} for m in shown]


def has_template(model: Model) -> bool:
    """Whether the model has a form of conversation, learnt or not."""
    try:
        return model.chat_format is not None
    except SlmError:
        return False


@dataclass(frozen=True, slots=True)
class _Controls:
    chatbot: Any
    message: Any
    status: Any
    dialogue: Any
    partial: Any
    """(turn, answer so far): written while the model answers, and by nothing else."""
    send: Any
    stop: Any
    again: Any
    new: Any
    system: Any
    sampling: list[Any]

    @property
    def buttons(self) -> list[Any]:
        return [self.send, self.stop, self.again, self.new]


def build_conversation(writer: Writer, sampling_controls: Callable[[], list[Any]]) -> None:
    """Add the tab's content to the `gr.Tab` that is open. sampling_controls: makes the accordion."""
    import gradio as gr

    dialogue, partial = gr.State(Dialogue()), gr.State((0, ""))
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=320):
            if not writer.model.is_tuned:
                gr.Markdown(UNTUNED, elem_id="sem-conversa")
            chatbot = gr.Chatbot(
                label="Conversa",
                height=420,
                buttons=[],  # "copy" would give the escapes
                feedback_options=None,
                latex_delimiters=[],
                render_markdown=False,
                allow_tags=True,
                group_consecutive_messages=False,
                placeholder="Escreva a primeira mensagem.",
                elem_id="conversa",
            )
            message = gr.Textbox(
                label="Mensagem",
                lines=1,
                max_lines=8,
                placeholder="Escreva uma mensagem… (Enter envia, Esc interrompe)",
                elem_id="mensagem",
            )
            with gr.Row(elem_id="acoes-conversa"):
                send = gr.Button("Enviar", variant="primary", elem_id="enviar", min_width=110)
                stop = gr.Button(
                    "Parar", variant="stop", interactive=False, elem_id="parar-resposta", min_width=90
                )
                again = gr.Button(
                    "Tentar de novo", interactive=False, elem_id="responder-de-novo", min_width=130
                )
                new = gr.Button("Nova conversa", interactive=False, elem_id="nova-conversa", min_width=130)
            status = gr.Markdown(READY, elem_id="estado-conversa")
        with gr.Column(scale=3, min_width=280):
            system = gr.Textbox(
                label="Texto de sistema",
                lines=4,
                max_lines=10,
                placeholder="Como o modelo deve agir (opcional)",
                elem_id="sistema",
            )
            sampling = sampling_controls()
    controls = _Controls(
        chatbot, message, status, dialogue, partial, send, stop, again, new, system, sampling
    )
    _connect(writer, controls)


def _connect(writer: Writer, tab: _Controls) -> None:
    """Enviar and Tentar de novo: begin, answer, settle. Parar cancels the answer and settles.

    An event that has nothing to do (a second click, a message during an answer) changes nothing.
    """
    import gradio as gr

    async def answer(
        dialogue: Dialogue, partial: tuple[int, str], system: Any, *values: Any
    ) -> AsyncGenerator[tuple[Any, ...]]:
        if dialogue.question is None or partial[0] == dialogue.turn:
            yield (gr.skip(),) * 3
            return
        with shown_on_the_page():
            async with aclosing(writer.answer(dialogue.prompt(str(system)), *values)) as texts:
                async for text, line in texts:
                    yield dialogue.shown(text), line, (dialogue.turn, text)

    async def answer_again(
        dialogue: Dialogue, partial: tuple[int, str], system: Any, *values: Any
    ) -> AsyncGenerator[tuple[Any, ...]]:
        # A fixed seed would give the same answer.
        async with aclosing(answer(dialogue, partial, system, *values[:-1], None)) as shown:
            async for update in shown:
                yield update

    quick: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    begun = [tab.chatbot, tab.message, tab.dialogue, tab.status, *tab.buttons]
    state = [tab.dialogue, tab.partial, tab.status, tab.message]

    def answer_after(start: Any, function: Any) -> Any:
        event = start.success(
            function,
            [tab.dialogue, tab.partial, tab.system, *tab.sampling],
            [tab.chatbot, tab.status, tab.partial],
            preprocess=False,  # Writer checks the values, in Portuguese
            concurrency_id="model",
            concurrency_limit=writer.slots,
            show_progress="hidden",
            api_visibility="private",
        )
        for ended in (event.then, event.failure):
            ended(settle, state, begun, **quick)
        return event

    sent = gr.on([tab.send.click, tab.message.submit], begin, [tab.message, tab.dialogue], begun, **quick)
    repeated = tab.again.click(begin_again, tab.dialogue, begun, **quick)
    answering = [answer_after(sent, answer), answer_after(repeated, answer_again)]
    tab.stop.click(None, cancels=answering, queue=False).then(stop_answer, state, begun, **quick)
    gr.on([tab.new.click, tab.chatbot.clear], start_anew, tab.dialogue, begun, **quick)


def begin(text: Any, dialogue: Dialogue) -> tuple[Any, ...]:
    """Enviar was pressed."""
    if dialogue.question is not None or not (isinstance(text, str) and text.strip()):
        return _unchanged()
    dialogue = dialogue.asking(text.strip())
    return dialogue.shown(), "", dialogue, READING, *_busy()


def begin_again(dialogue: Dialogue) -> tuple[Any, ...]:
    """Tentar de novo was pressed."""
    if dialogue.question is not None or not dialogue.messages:
        return _unchanged()
    dialogue = dialogue.asking_again()
    return dialogue.shown(), _same(), dialogue, READING, *_busy()


def settle(dialogue: Dialogue, partial: tuple[int, str], status: str, message: str) -> tuple[Any, ...]:
    """The answer ended, well or not. A question without one goes back to the box, unless another is there."""
    if dialogue.question is None:
        return _unchanged()
    turn, text = partial
    answer = text if turn == dialogue.turn else ""
    box = _same() if answer or message else dialogue.question
    line = _same()  # what Parar has said meanwhile stays: its answer may come first
    if not answer:
        line = READY if status == READING else NOTHING_WRITTEN
    dialogue = dialogue.answered(answer)
    return dialogue.shown(), box, dialogue, line, *_idle(dialogue)


def stop_answer(dialogue: Dialogue, partial: tuple[int, str], status: str, message: str) -> tuple[Any, ...]:
    """Parar was pressed: what is written stays."""
    if dialogue.question is None:
        return (_same(),) * 4 + tuple(_idle(dialogue))
    shown, box, dialogue, _, *buttons = settle(dialogue, partial, status, message)
    return shown, box, dialogue, stopped(status), *buttons


def start_anew(dialogue: Dialogue) -> tuple[Any, ...]:
    """Nova conversa was pressed."""
    if dialogue.question is None:
        dialogue = Dialogue(turn=dialogue.turn)
        return dialogue.shown(), _same(), dialogue, READY, *_idle(dialogue)
    return _unchanged()


def _unchanged() -> tuple[Any, ...]:
    """Each of the chat, the box, the conversation, the status and the buttons as it is."""
    return (_same(),) * 8


def _same() -> Any:
    import gradio as gr

    return gr.skip()


def _busy() -> list[Any]:
    return _buttons(send=False, stop=True, rest=False)


def _idle(dialogue: Dialogue) -> list[Any]:
    return _buttons(send=True, stop=False, rest=bool(dialogue.messages))


def _buttons(*, send: bool, stop: bool, rest: bool) -> list[Any]:
    import gradio as gr

    return [gr.Button(interactive=state) for state in (send, stop, rest, rest)]
