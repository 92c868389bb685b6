"""Exact copies are found, in bounded memory."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest

from ptbr_slm.data.document import DocumentCounts
from ptbr_slm.data.duplicates import exact
from ptbr_slm.data.duplicates.exact import SeenTexts
from ptbr_slm.data.pipeline import prepare
from ptbr_slm.tokenizer import Tokenizer


def test_exact_copies_go_out_and_are_counted(corpus: Path, tmp_path: Path, tokenizer: Tokenizer):
    (corpus / "copia.txt").write_text((corpus / "07.txt").read_text() + "\r\n\r\n")
    (corpus / "copia.jsonl").write_text(json.dumps({"text": (corpus / "07.txt").read_text()}) + "\n")
    counts = DocumentCounts()
    data = prepare([corpus], tmp_path / "dados", tokenizer, counts=counts)
    assert data.split("train").documents + data.split("valid").documents == 40
    assert dict(counts.dropped) == {"duplicate": 2} == data.index.dropped


def test_a_set_of_fingerprints_agrees_with_a_set_and_stays_below_16_bytes_each(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(exact, "_RECENT", 1_000)
    seen, known = SeenTexts(), set()
    pick = random.Random(3)
    for _ in range(60_000):
        identity = pick.getrandbits(15) * 0x9E3779B97F4A7C15 % 2**64
        assert seen.add(identity) == (identity not in known)
        known.add(identity)
    levels = [len(level) for level in seen._levels]
    assert sum(levels) > 26_000 and all(level.itemsize == 8 for level in seen._levels)
    assert all(a > b for a, b in pairwise(levels))  # merging holds at most all of them twice: 16 bytes each
