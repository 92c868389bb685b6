"""Messages from JSON: what passes, and what a bad one is told."""

from __future__ import annotations

import pytest

from ptbr_slm.chat import Message, parse_messages
from ptbr_slm.errors import SlmError


def test_json_and_messages_pass_and_other_keys_are_ignored():
    said = Message("user", "Olá!")
    given = [{"role": "system", "content": ""}, said, {"role": "assistant", "content": "Oi.", "name": "x"}]
    assert parse_messages(given) == [Message("system", ""), said, Message("assistant", "Oi.")]
    assert parse_messages(tuple(parse_messages(given))) == parse_messages(given)


def test_the_text_parts_of_openais_form_are_joined():
    parts = [{"type": "text", "text": "um"}, {"type": "text", "text": "dois"}]
    assert parse_messages([{"role": "user", "content": parts}]) == [Message("user", "um\ndois")]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([], "vazia"),
        ("Olá", "lista"),
        ({"role": "user", "content": "a"}, "lista"),
        (None, "lista"),
        (["Olá"], "objeto"),
        ([{"role": "user"}], '"content"'),
        ([{"content": "a"}], '"role"'),
        ([{"role": "user", "content": None}], '"content"'),
        ([{"role": "user", "content": 3}], "não é um texto"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "não é um texto"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], "não é um texto"),
        ([{"role": "tool", "content": "a"}], "'tool'"),
        ([{"role": ["user"], "content": "a"}], "papel"),
        ([{"role": "user", "content": "a\ud800"}], "Unicode"),
        ([Message("user", "a"), Message("robô", "b")], "'robô'"),
    ],
)
def test_what_is_no_conversation_is_refused(value, fault):
    with pytest.raises(SlmError) as caught:
        parse_messages(value, where="linha 3")
    assert caught.value.code == "E_MESSAGES" and fault in caught.value.message
    assert caught.value.where.startswith("linha 3") and "assistant" in caught.value.hint


def test_the_message_at_fault_is_named():
    with pytest.raises(SlmError) as caught:
        parse_messages([{"role": "user", "content": "a"}, {"role": "assistant"}])
    assert caught.value.where == "messages[1]"
