"""Conversations without a browser: the page writes what `Model.chat` writes."""

from __future__ import annotations

import asyncio
import warnings
from itertools import pairwise
from types import ModuleType

import pytest

from ptbr_slm.app.page import build_demo
from ptbr_slm.app.tabs.conversation import has_template
from ptbr_slm.app.writer import Writer
from ptbr_slm.chat import Message
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model

VALUES = (20, 0.7, 0.9, 0, 1.0)  # max_new_tokens, temperature, top_p, top_k, repetition_penalty
NAMES = ("max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty")


def answers(model: Model, messages: list[dict[str, str]], *values: object) -> list[tuple[str, str]]:
    """All that the page shows of one answer."""

    async def read() -> list[tuple[str, str]]:
        return [shown async for shown in Writer(model).answer(messages, *values)]

    return asyncio.run(read())


def test_the_page_writes_the_text_of_model_chat_for_the_same_seed(model_folder):
    with Model(model_folder) as model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for system in ("", "Responda em uma frase."):
            said = [
                *([{"role": "system", "content": system}] if system else []),
                {"role": "user", "content": "Quem abriu a janela?"},
                {"role": "assistant", "content": "Maria."},
                {"role": "user", "content": "E depois, São João?"},
            ]
            shown = [text for text, _ in answers(model, said, *VALUES, "7")]
            assert shown[-1] == model.chat(said, seed=7, **dict(zip(NAMES, VALUES, strict=True)))
            assert all(later.startswith(earlier) for earlier, later in pairwise(shown))


def test_the_status_says_how_the_answer_ended_and_what_was_left_out(model_folder):
    with Model(model_folder) as model:
        said = [Message("user", "casa amarela " * 300), Message("assistant", "Sim.")] * 3
        *_, (_, line) = answers(model, [*said, Message("user", "Oi")], *VALUES, 1)
        assert "mensagens antigas fora do contexto" in line and "semente 1" in line
        with pytest.raises(SlmError, match="contexto do modelo"):
            answers(model, [Message("user", "casa amarela " * 3000)], *VALUES, 1)


def test_a_model_without_a_template_has_no_tab(gradio: ModuleType, model_folder, tmp_path):
    bare = tmp_path / "sem"
    bare.mkdir()
    for file in model_folder.iterdir():
        if file.name not in ("tokenizer_config.json", "manifest.json"):
            (bare / file.name).symlink_to(file)
    for folder, talks in ((bare, False), (model_folder, True)):
        with Model(folder) as model:
            assert has_template(model) == talks
            demo = build_demo({"modelo": Writer(model)}, "chave")
            tabs = [block.elem_id for block in demo.blocks.values() if isinstance(block, gradio.Tab)]
            assert ("aba-conversa" in tabs) == talks
