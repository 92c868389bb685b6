"""Random data and random models: speed depends neither on what a token is nor on what a model has learned."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as _Tokenizer
from tokenizers import models, pre_tokenizers

from ptbr_slm.config import ModelConfig
from ptbr_slm.data.index import SPLITS, Index, write_index
from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.data.shards import SHARD_TOKENS, SplitWriter, token_dtype
from ptbr_slm.storage.atomic import atomic_folder, write_text
from ptbr_slm.storage.model_folder import seal_model_folder, write_model_files
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
    for i in range(tokens):
        current = int(fresh[i]) if jumps[i] else int(follows[current])
        ids[i] = current
    return write_ids(folder, vocab_size, ids + first)


def write_ids(folder: Path, vocab_size: int, ids: npt.NDArray[np.int64]) -> PreparedData:
    """Write a prepared folder whose training split is `ids` (tokens,), nothing held out."""
    folder.mkdir(parents=True)
    tokenizer = invented_tokenizer(vocab_size)
    tokens = len(ids)
    splits = {}
    for name in SPLITS:
        with SplitWriter(folder, name, vocab_size, SHARD_TOKENS) as writer:
            if name == "train":
                writer.write(ids, text_bytes=4 * tokens, words=tokens)
            splits[name] = writer.finish()
    write_text(folder / "tokenizer.json", tokenizer.to_json())
    index = Index(
        dtype=token_dtype(vocab_size).name,
        vocab_size=vocab_size,
        tokenizer_sha256=tokenizer.sha256,
        bos_id=0,
        eos_id=1,
        splits=splits,
    )
    write_index(folder, index)
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


_ONSETS = (*"bcdfghjlmnprstvxz", "br", "cr", "dr", "gr", "pr", "tr", "bl", "cl", "pl", "ch", "lh", "nh", "qu")
_RIMES = (*"aeiouãõáéíóú", "ar", "er", "or", "as", "es", "os", "am", "em", "om", "al", "el", "ol", "ão", "ai")


def invented_words(count: int, *, seed: int = 0) -> Iterator[str]:
    """Lines of ten words of one to five Portuguese-looking syllables, `count` words in all."""
    draw = random.Random(seed)
    words = (
        "".join(draw.choice(_ONSETS) + draw.choice(_RIMES) for _ in range(draw.randint(1, 5)))
        for _ in range(count)
    )
    while line := " ".join(word for word, _ in zip(words, range(10), strict=False)):
        yield line


def write_random_model(folder: Path, config: ModelConfig, *, seed: int = 0) -> None:
    """Write a sealed model folder of random weights in `config`'s shape.

    The tokenizer is a real byte-level BPE of that size, trained on invented words, so that every peer's
    converter takes the folder as it takes a trained one. Raises ValueError where the vocabulary falls short.
    """
    tokenizer = Tokenizer.train(invented_words(5 * config.vocab_size, seed=seed), config.vocab_size)
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(f"the invented text gave {tokenizer.vocab_size} tokens, not {config.vocab_size}")
    with atomic_folder(folder) as building:
        write_model_files(building, config, random_weights(config, seed), tokenizer)
        seal_model_folder(building)


def random_weights(config: ModelConfig, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Llama's names -> weights, drawn as `Llama.initialize` draws them, but for two things that make a
    converter's fault show in the logits: uneven norms, and queries and keys doubled.

    Fresh attention is nearly uniform: leaving out llama.cpp's reordering of q and k gave a cosine of 0.990
    with PyTorch's logits, and 0.807 with them doubled (f16 conversion done right: 1.000; 85m, 2026-11-22).
    """
    draw = np.random.default_rng(seed)
    hidden, wide = config.hidden_size, config.intermediate_size
    residual = 0.02 / math.sqrt(2 * config.num_layers)

    def matrix(rows: int, columns: int, std: float = 0.02) -> npt.NDArray[np.float32]:
        return draw.standard_normal((rows, columns), dtype=np.float32) * np.float32(std)

    def gain(width: int = hidden) -> npt.NDArray[np.float32]:
        return 1 + np.float32(0.2) * draw.standard_normal(width, dtype=np.float32)

    weights = {"model.embed_tokens.weight": matrix(config.vocab_size, hidden), "model.norm.weight": gain()}
    if not config.tie_embeddings:
        weights["lm_head.weight"] = matrix(config.vocab_size, hidden)
    for layer in range(config.num_layers):
        attention, feed_forward = f"model.layers.{layer}.self_attn.", f"model.layers.{layer}.mlp."
        weights |= {
            f"model.layers.{layer}.input_layernorm.weight": gain(),
            f"model.layers.{layer}.post_attention_layernorm.weight": gain(),
            attention + "q_proj.weight": matrix(config.q_size, hidden, 0.04),
            attention + "k_proj.weight": matrix(config.kv_size, hidden, 0.04),
            attention + "v_proj.weight": matrix(config.kv_size, hidden),
            attention + "o_proj.weight": matrix(hidden, config.q_size, residual),
            feed_forward + "gate_proj.weight": matrix(wide, hidden),
            feed_forward + "up_proj.weight": matrix(wide, hidden),
            feed_forward + "down_proj.weight": matrix(hidden, wide, residual),
        }
        if config.qk_norm:
            weights[attention + "q_norm.weight"] = gain(config.head_dim)
            weights[attention + "k_norm.weight"] = gain(config.head_dim)
    return weights
