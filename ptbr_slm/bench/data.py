"""Prepared data of random tokens: what a token is makes no difference to the time of a step."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as _Tokenizer
from tokenizers import models, pre_tokenizers

from ptbr_slm.data import index
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.shards import SHARD_TOKENS, SplitWriter, token_dtype
from ptbr_slm.storage.atomic import write_text
from ptbr_slm.tokenizer import SPECIAL_TOKENS, Tokenizer

TOKENS = 1 << 20


def random_data(folder: Path, vocab_size: int, tokens: int = TOKENS) -> PreparedData:
    """Write a prepared folder of uniformly drawn ids, nothing held out."""
    return write_ids(
        folder, vocab_size, np.random.default_rng(0).integers(len(SPECIAL_TOKENS), vocab_size, tokens)
    )


def learnable_data(folder: Path, vocab_size: int, tokens: int) -> PreparedData:
    """The same with something to learn in a few steps: each id mostly decides the next one.

    A chain of ids by a fixed permutation, a fifth of them drawn anew, the frequent ones much more often.
    """
    draw = np.random.default_rng(0)
    first = len(SPECIAL_TOKENS)
    follows = draw.permutation(vocab_size - first)
    fresh = np.minimum(draw.zipf(1.3, tokens), vocab_size - first) - 1
    jumps = draw.random(tokens) < 0.2
    ids = np.empty(tokens, dtype=np.int64)
    current = 0
    for place in range(tokens):
        current = int(fresh[place]) if jumps[place] else int(follows[current])
        ids[place] = current
    return write_ids(folder, vocab_size, ids + first)


def write_ids(folder: Path, vocab_size: int, ids: npt.NDArray[np.int64]) -> PreparedData:
    """Write a prepared folder whose training split is `ids` (tokens,), nothing held out."""
    folder.mkdir(parents=True)
    tokenizer = invented_tokenizer(vocab_size)
    tokens = len(ids)
    splits = {}
    for name in index.SPLITS:
        with SplitWriter(folder, name, vocab_size, SHARD_TOKENS) as writer:
            if name == "train":
                writer.write(ids, text_bytes=4 * tokens, words=tokens)
            splits[name] = writer.finish()
    write_text(folder / "tokenizer.json", tokenizer.to_json())
    body = {
        "dtype": token_dtype(vocab_size).name,
        "vocab_size": vocab_size,
        "tokenizer_sha256": tokenizer.sha256,
        "bos_id": 0,
        "eos_id": 1,
        "splits": splits,
    }
    index.write_index(folder, body)
    return PreparedData.open(folder, verify=False)


def invented_tokenizer(vocab_size: int) -> Tokenizer:
    """A byte-level BPE of exactly so many tokens that joins letters in no sensible order: made at once."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    joined = itertools.islice(
        itertools.product(letters, letters), vocab_size - len(letters) - len(SPECIAL_TOKENS)
    )
    merges = list(joined)
    words = [*SPECIAL_TOKENS, *letters, *("".join(pair) for pair in merges)]
    inner = _Tokenizer(models.BPE(vocab={word: id for id, word in enumerate(words)}, merges=merges))
    inner.add_special_tokens(SPECIAL_TOKENS)
    return Tokenizer(inner)
