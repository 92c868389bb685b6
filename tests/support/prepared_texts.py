"""The texts of prepared data, decoded."""

from __future__ import annotations

from itertools import pairwise

from ptbr_slm.data.index import SplitName
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.tokenizer import Tokenizer


def texts_of(data: PreparedData, split: SplitName, tokenizer: Tokenizer) -> list[str]:
    """Every document of a split, decoded; its bos and eos are checked on the way."""
    found = []
    for start, stop in pairwise(data.split(split).document_offsets().tolist()):
        ids = data.split(split).read(start, stop)
        assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
        found.append(tokenizer.decode(ids[1:-1].tolist()))
    return found
