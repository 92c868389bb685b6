"""A conversation at the command line: its history, its commands (/novo, ...), the answers as they come."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptbr_slm.chat import Message
from ptbr_slm.cli.chat_file import ConversationFile
from ptbr_slm.cli.chat_lines import Interrupts
from ptbr_slm.cli.output import Mode, Output
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import ChatPrompt
from ptbr_slm.runtime.results import GenerationResult
from ptbr_slm.runtime.sampling.params import SamplingOptions
from ptbr_slm.text import number

COMMANDS = {
    "/novo": "começa outra conversa; o texto de sistema fica",
    "/sistema TEXTO": "diz ao modelo como agir; sem TEXTO, mostra; com -, apaga",
    "/salvar ARQUIVO": "põe a conversa no fim de ARQUIVO, como o tune lê",
    "/ajuda": "mostra isto",
    "/sair": "encerra, como Ctrl-D",
}
_NAMES = [command.split()[0] for command in COMMANDS]
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What could move the cursor or rename the window of a terminal: all but line feed and tab."""


@dataclass(slots=True)
class Conversation:
    """What was said so far."""

    system: str = ""
    messages: list[Message] = field(default_factory=list)
    """User and assistant in turn; the last is the assistant's."""
    unfinished: list[int] = field(default_factory=list)
    """Indexes of answers that were stopped or cut."""
    file: ConversationFile = field(default_factory=ConversationFile)

    def asking(self, text: str) -> list[Message]:
        """All the messages, with one more of the user."""
        return [*self._head(), *self.messages, Message("user", text)]

    def add(self, text: str, result: GenerationResult) -> None:
        """A message of the user was answered."""
        self.messages += [Message("user", text), Message("assistant", result.text)]
        if result.finish_reason not in ("eos", "stop"):
            self.unfinished.append(len(self.messages) - 1)

    def row(self) -> dict[str, Any]:
        """The conversation as a row of a data set; `unfinished` are indexes of `messages`."""
        messages = [*self._head(), *self.messages]
        row: dict[str, Any] = {"messages": [{"role": m.role, "content": m.content} for m in messages]}
        if self.unfinished:
            row["unfinished"] = [len(self._head()) + index for index in self.unfinished]
        return row

    def _head(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []


class ChatSession:
    """Takes lines, which are messages or commands, and prints what they lead to."""

    def __init__(
        self,
        out: Output,
        model: Model,
        options: SamplingOptions,
        *,
        system: str = "",
        interrupts: Interrupts | None = None,
    ) -> None:
        """interrupts: where a person may stop answers; None in a pipe, where errors end the session."""
        self.answers = 0
        self._out, self._model, self._options = out, model, options
        self._interrupts = interrupts
        self._terminal = sys.stdout.isatty()
        self._conversation = Conversation(system)
        self._commands: dict[str, Callable[[str], None]] = {
            "/novo": self._new,
            "/sistema": self._system,
            "/salvar": self._save,
            "/ajuda": self._help,
        }

    def take(self, line: str) -> bool:
        """Answer a message or follow a command; False where the session is to end.

        A person is told what is wrong and goes on; for lines of a pipe, SlmError is raised.
        """
        line = line.strip()
        if not line:
            return True
        try:
            if line.startswith("/") and not line.startswith("//"):
                return self._follow(line)
            self._answer(line[1:] if line.startswith("//") else line)
        except SlmError as error:
            if self._interrupts is None or error.code in ("E_CLOSED", "E_INTERNAL"):
                raise
            self._out.error(str(error))
        return True

    def _follow(self, line: str) -> bool:
        name, _, argument = line.partition(" ")
        name = name.lower()
        if name == "/sair":
            return False
        if name not in self._commands:
            near = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.5)
            guess = f"Quis dizer {near[0]}?  " if near else ""
            raise SlmError(
                "E_USAGE",
                f"o comando {name[:40]} não existe.",
                where="conversa",
                hint=f"{guess}/ajuda mostra todos; uma mensagem que começa com / vai com // no começo.",
            )
        self._commands[name](argument.strip())
        return True

    def _answer(self, text: str) -> None:
        if self._interrupts is None:
            result = self._stream(text, {})
        else:
            with self._interrupts.answering() as cancel:
                result = self._stream(text, {"cancel": cancel})
        self.answers += 1
        if result.text:
            self._conversation.add(text, result)
        self._out.event(_event(text, result))
        for note in self._notes(result):
            self._out.note(note)

    def _stream(self, text: str, cancelled_by: dict[str, Any]) -> GenerationResult:
        """Print the answer as it comes."""
        prompt = ChatPrompt(self._conversation.asking(text))
        options = self._options.copy()
        if (seed := options.get("seed")) is not None:  # else every answer would begin with the same draw
            options["seed"] = seed + len(self._conversation.messages) // 2
        chunks = self._model.stream(prompt, **cancelled_by, **options)
        if self._interrupts is None and self.answers:
            self._out.stream("\n")  # a blank line between the answers to a pipe
        if self._interrupts is not None and self._terminal and self._out.mode is Mode.HUMAN:
            self._out.stream("Modelo: ")
        try:
            for chunk in chunks:
                self._out.stream(_CONTROL.sub("\ufffd", chunk.text) if self._terminal else chunk.text)
                result = chunk.result
        finally:
            chunks.close()
            self._out.stream("\n")
        assert result is not None
        return result

    def _notes(self, result: GenerationResult) -> list[str]:
        """What a reader would not expect of an answer."""
        notes = []
        if result.dropped_messages:
            many = result.dropped_messages > 1
            what = (
                f"As {result.dropped_messages} mensagens mais antigas" if many else "A mensagem mais antiga"
            )
            verbs = "não couberam no contexto, e o modelo não as leu" if many else (
                "não coube no contexto, e o modelo não a leu"
            )  # fmt: skip
            notes.append(f"({what} {verbs}.)")
        context = number(self._model.engine.config.max_seq_len)
        kept = "o que saiu fica na conversa"
        match result.finish_reason:
            case "cancelled":
                notes.append(
                    f"(Resposta interrompida; {kept}.)" if result.text else "(Resposta interrompida.)"
                )
            case "length":
                most = number(len(result.tokens))
                notes.append(f"(Resposta cortada em {most} tokens: aumente com --max-tokens.)")
            case "context":
                notes.append(
                    f"(O contexto do modelo acabou, com {context} tokens: /novo começa outra conversa.)"
                )
            case "timeout":
                notes.append(f"(O tempo acabou; {kept}.)")
        if not result.text and result.finish_reason != "cancelled":
            notes.append("(O modelo encerrou sem escrever nada; a mensagem não fica na conversa.)")
        return notes

    def _new(self, _: str) -> None:
        self._conversation = Conversation(self._conversation.system)
        self._out.note("(Conversa nova.)")

    def _system(self, text: str) -> None:
        conversation = self._conversation
        if text:
            conversation.system = "" if text == "-" else text
        now = (
            f"(Texto de sistema: {conversation.system})" if conversation.system else "(Sem texto de sistema.)"
        )
        self._out.note(now) if text else self._out.error(now)

    def _save(self, name: str) -> None:
        conversation = self._conversation
        path = Path(name).expanduser() if name else conversation.file.path
        if path is None:
            raise SlmError(
                "E_USAGE", "falta o arquivo.", where="/salvar", hint="Exemplo:  /salvar conversa.jsonl"
            )
        if not conversation.messages:
            raise SlmError(
                "E_USAGE", "ainda não há conversa para salvar.", where="/salvar", hint="Escreva uma mensagem."
            )
        row = conversation.row()
        conversation.file.save(path, row)
        count = len(row["messages"])
        self._out.event({"event": "saved", "path": str(path), "messages": count})
        self._out.note(f"(Conversa salva em {path}: {count} mensagens.)")
        if conversation.unfinished:
            self._out.note(
                f"(Respostas pela metade, marcadas em unfinished: {len(conversation.unfinished)}. "
                "Complete-as no arquivo antes de treinar com ele.)"
            )

    def _help(self, _: str) -> None:
        width = max(map(len, COMMANDS))
        lines = [f"  {command.ljust(width)}  {what}" for command, what in COMMANDS.items()]
        self._out.error(
            "\n".join(
                [*lines, "Ctrl-C interrompe a resposta. Uma mensagem pode começar com / se vier com //."]
            )
        )


def _event(text: str, result: GenerationResult) -> dict[str, Any]:
    """The JSON line of an answer, with the names of `GenerationResult`."""
    return {
        "event": "answer",
        "message": text,
        "text": result.text,
        "finish_reason": result.finish_reason,
        "tokens": list(result.tokens),
        "prompt_tokens": result.prompt_tokens,
        "reused_tokens": result.reused_tokens,
        "dropped_messages": result.dropped_messages,
        "seed": result.seed,
        "time_to_first_token_s": result.time_to_first_token_s,
        "tokens_per_second": result.tokens_per_second,
    }
