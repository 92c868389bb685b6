"""Lines of two million characters without a space, and other text that makes expressions crawl."""

from __future__ import annotations

import time

import pytest
from page_text import PAGE

from ptbr_slm.data.document import Document
from ptbr_slm.data.presets import PRESETS, preset
from ptbr_slm.data.stages.stage import run

SIZE = 400_000
MARKS = "ü � ¬ é Ã£ { а â€œ\n"
"""One of each character that a stage looks for before it works."""
HOSTILE = {
    "letters": "QWxhZGRpbg" * (SIZE // 10),
    "periods": "." * SIZE,
    "brackets": "(" * SIZE,
    "hyphens": "a-" * (SIZE // 2),
    "addresses": "a:b@" * (SIZE // 4),
    "not sign and spaces": "a¬" + " " * SIZE,
    "broken letters": "nÃ£o" * (SIZE // 4),
    "lost letters": "n�" * (SIZE // 2),
    "short lines": "a\n" * (SIZE // 2),
    "one word": "casa " * (SIZE // 5),
    "bars": "Home | " * (SIZE // 7),
    "carriage returns": "a\r" * (SIZE // 2),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_time_grows_with_the_size_and_not_its_square(kind: str):
    made = [preset(name) for name in PRESETS]
    found = [stage for p in made for stage in (*p.cleaning, *p.tagging, *p.filtering)]
    stages = tuple({stage.name: stage for stage in found}.values())
    text = PAGE + MARKS + HOSTILE[kind]
    begin = time.process_time()
    for stage in stages:
        answer = run((stage,), Document(text, "a.txt"))
        text = answer.text if isinstance(answer, Document) and answer.text.strip() else text
    assert time.process_time() - begin < 8  # half a second where nothing crawls; minutes where one does
