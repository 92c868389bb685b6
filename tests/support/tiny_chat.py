"""A tiny tokenizer with its chat format, and files of conversations, for tests of tuning."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ptbr_slm.chat.format import ChatFormat
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tokenizer.tokenizer import CHAT_TEMPLATE

TEXTS = (
    "Qual é a capital do Maranhão? A capital do Maranhão é São Luís.",
    "Você pode me dizer quantos rios há no município? Há três rios, e nenhum é navegável.",
    "Resuma a notícia em uma frase. A prefeitura abriu a biblioteca até a meia-noite.",
    "Traduza para o português: good morning. Bom dia!",
)


@cache
def tiny_tokenizer() -> Tokenizer:
    """About 350 tokens."""
    return Tokenizer.train(TEXTS, 350)


@cache
def tiny_chat() -> ChatFormat:
    """ChatML for `tiny_tokenizer`."""
    return ChatFormat(CHAT_TEMPLATE, tiny_tokenizer(), {"bos_token": "<|bos|>", "eos_token": "<|eos|>"})


def turns(*texts: str, system: str | None = None) -> list[dict[str, str]]:
    """Messages of user and assistant by turns, as JSON has them."""
    first = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    return first + [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    """A JSONL file; a row that is a text is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def conversation_file(path: Path, count: int) -> Path:
    """`count` conversations of one to three exchanges, all different."""
    rows = []
    for at in range(count):
        exchanges = [
            f"{TEXTS[(at + turn) % 4][: 20 + at % 30]} {at}.{turn}" for turn in range(2 * (1 + at % 3))
        ]
        rows.append({"messages": turns(*exchanges, system="Responda em português." if at % 5 == 0 else None)})
    return write_lines(path, rows)
