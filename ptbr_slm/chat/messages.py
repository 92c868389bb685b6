"""A conversation as a list of messages, read from what JSON gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ptbr_slm.errors import SlmError

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """What one side of a conversation said."""

    role: str
    """One of `ROLES`."""
    content: str


def parse_messages(value: object, where: str = "messages") -> list[Message]:
    """From `[{"role": ..., "content": ...}, ...]`; `Message` objects pass as they are.

    content: a text, or OpenAI's list of `{"type": "text", "text": ...}`, joined by line breaks as vLLM does.
    Other keys are ignored. where: what an error names. Raises E_MESSAGES.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise _refused("a conversa não é uma lista de mensagens", where)
    if not value:
        raise _refused("a conversa está vazia", where)
    return [_message(entry, f"{where}[{number}]") for number, entry in enumerate(value)]


def _message(value: object, where: str) -> Message:
    if isinstance(value, Message):
        role, content = value.role, value.content
    elif isinstance(value, Mapping):
        for key in ("role", "content"):
            if value.get(key) is None:
                raise _refused(f'a mensagem não tem "{key}"', where)
        role, content = value["role"], _text(value["content"], where)
    else:
        raise _refused("a mensagem não é um objeto", where)
    if role not in ROLES:
        raise _refused(f"não existe o papel {role!r}", where)
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _refused("o conteúdo tem caracteres que não são Unicode válido", where) from error
    return Message(str(role), content)


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and not isinstance(content, bytes):
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        if len(texts) == len(content):
            return "\n".join(texts)
    raise _refused("o conteúdo não é um texto", where)


def _refused(fault: str, where: str) -> SlmError:
    return SlmError(
        "E_MESSAGES",
        f"{fault}.",
        where=where,
        hint='Escreva cada mensagem como {"role": "user", "content": "Olá!"}; '
        f"os papéis são {', '.join(ROLES[:-1])} e {ROLES[-1]}.",
    )
