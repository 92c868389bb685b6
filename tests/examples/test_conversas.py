"""examples/conversas.jsonl: every row is a conversation, and nothing in it is wrong."""

from __future__ import annotations

import operator
import re
import unicodedata
from pathlib import Path

import pytest

from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.tune.conversations import Conversation, read_items

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    counts = DocumentCounts()
    items = list(read_items([EXAMPLES / "conversas.jsonl"], counts=counts))
    assert not counts.dropped
    assert all(isinstance(item, Conversation) for item in items)
    return items


def test_no_row_is_skipped_and_the_pages_say_how_many_there_are(conversations):
    for page in (EXAMPLES / "conversas.md", EXAMPLES / "kaggle" / "treinar_no_kaggle.py"):
        (said,) = re.findall(r"(\d+) conversas (?:curtas|de exemplo)", page.read_text(encoding="utf-8"))
        assert int(said) == len(conversations)


def test_every_kind_of_turn_is_shown_and_no_question_twice(conversations):
    asked = [tuple(m.content for m in item.messages if m.role != "assistant")[:2] for item in conversations]
    assert len(set(asked)) == len(conversations)
    assert sum(item.messages[0].role == "system" for item in conversations) >= 2
    assert sum(len(item.messages) > 3 for item in conversations) >= 3


def test_the_texts_are_short_clean_and_composed(conversations):
    for text in (message.content for item in conversations for message in item.messages):
        assert text == text.strip() and len(text) <= 160
        assert text == unicodedata.normalize("NFC", text) and not re.search(r"[^\n -\u00ff]|  ", text), text


def test_the_sums_are_right(conversations):
    answers = "\n".join(m.content for item in conversations for m in item.messages if m.role == "assistant")
    sums = re.findall(r"(\d+) (mais|menos|vezes) (\d+) são (\d+)", answers)
    assert len(sums) >= 6
    of = {"mais": operator.add, "menos": operator.sub, "vezes": operator.mul}
    assert all(of[name](int(a), int(b)) == int(result) for a, name, b, result in sums)
