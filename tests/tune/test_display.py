"""The first example as a person reads it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tiny_chat import tiny_chat, tiny_tokenizer

from ptbr_slm.chat.messages import Message
from ptbr_slm.tune.display import show_example
from ptbr_slm.tune.examples import Example

TOKENIZER, CHAT = tiny_tokenizer(), tiny_chat()
MESSAGES = [Message("user", "Não é ação? 🌊"), Message("assistant", "É, sim: «coração».")]


def example(messages=MESSAGES):
    encoded = CHAT.encode(messages)
    return Example(encoded.ids, encoded.answer, "conversas.jsonl:1")


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_without_colours_marks_show_what_is_learnt():
    shown = show_example(example(), TOKENIZER, colour=False)
    assert "\x1b" not in shown
    legend, text = shown.split("\n\n")
    ids = example().ids
    assert legend.startswith(
        f"Exemplo (conversas.jsonl:1): {len(ids)} tokens, {example().targets} treinados."
    )
    assert "treinado" in legend and "especial" in legend
    asked, answered = "user\nNão é ação? 🌊<|im_end|>\n", "assistant\n«É, sim: «coração».<|im_end|>»"
    assert text == f"<|bos|><|im_start|>{asked}<|im_start|>{answered}"


def test_with_colours_the_text_is_the_same_and_the_kinds_differ():
    shown = show_example(example(), TOKENIZER, colour=True)
    text = plain(shown).split("\n\n")[1]
    assert text == show_example(example(), TOKENIZER, colour=False).split("\n\n")[1].replace("«É", "É")[:-1]
    codes = dict(re.findall(r"\x1b\[([0-9;]+)m(.+?)\x1b\[0m", shown.split("\n\n")[1]))
    assert codes == {"2;36": "<|im_start|>", "1;32": "É, sim: «coração».", "1;35": "<|im_end|>"}
    assert "\x1b[1;32mtreinado\x1b[0m" in shown.split("\n\n")[0]


@pytest.mark.parametrize("colour", [False, True])
def test_lines_fit_and_a_long_example_shows_its_ends(colour):
    long = example([Message("user", "Às vezes é à noite. " * 300), Message("assistant", "Sim. " * 300)])
    shown = show_example(long, TOKENIZER, colour=colour)
    assert max(len(line) for line in plain(shown).split("\n")) <= 80
    assert f"[... {len(long.ids) - 400:,} tokens ...]".replace(",", ".") in plain(shown)
    assert "\ufffd" not in shown and len(plain(shown)) < 4000


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_character_is_never_shown_in_part(cut):
    ids = np.array(TOKENIZER.encode("ãõçéíú🌊", special=False)[cut:])
    target = np.ones(len(ids), bool)
    assert "\ufffd" not in show_example(Example(ids, target), TOKENIZER, colour=False)


def test_a_text_cannot_command_the_terminal():
    shown = show_example(
        example([MESSAGES[0], Message("assistant", "a\x1b[31m\x9bb\x07c")]), TOKENIZER, colour=False
    )
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)
