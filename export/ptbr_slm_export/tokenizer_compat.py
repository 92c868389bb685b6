"""Which tokenizers llama.cpp and onnxruntime-genai can follow: of others they would make other tokens.

llama.cpp knows the splits of byte-level tokenizers by name and normalises nothing; the tokenizer of genai
(onnxruntime-extensions) ignores normalizers too and reads few regular expressions. What they cannot follow is
refused by rule, from tokenizer.json alone. What is accepted agrees on text in Unicode's composed form (NFC),
as keyboards write it; text with accents apart gives other tokens there where the tokenizer composes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import pre_tokenizers

from ptbr_slm.tokenizer import LLAMA_BPE_SPLIT, Tokenizer
from ptbr_slm.tokenizer.spelling import SPACE, is_byte

_SPLITS = {
    LLAMA_BPE_SPLIT: "llama-bpe",  # ours, and Llama 3's
    LLAMA_BPE_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}"): "qwen2",
}
"""Regular expression of a `Split` -> llama.cpp's name of it (llama.cpp, src/llama-vocab.cpp)."""
_ALPHABET = frozenset(pre_tokenizers.ByteLevel.alphabet())
"""GPT-2's 256 stand-ins for bytes."""
_UNCOMMON = ("continuing_subword_prefix", "end_of_word_suffix", "dropout")
"""Settings of a BPE that neither reader has."""


def incompatibility(tokenizer: Tokenizer) -> str:
    """Why the others would make other tokens of a text, in Portuguese; '' where they would not."""
    body = json.loads(tokenizer.to_json())
    model = body["model"]
    if model.get("type") != "BPE" or not (tokenizer.is_byte_level or tokenizer.is_metaspace):
        return f"é do tipo {model.get('type')}"
    used = [name for name in _UNCOMMON if model.get(name)]
    if used:
        return f"usa {', '.join(used)}"
    return _byte_level(body) if tokenizer.is_byte_level else _metaspace(body)


def split_name(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """llama.cpp's name of how a byte-level tokenizer cuts words; None for a way that is not in the table."""
    steps = list(_steps(pre_tokenizer))
    kinds = [step["type"] for step in steps]
    regex = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    own = [bool(step.get("use_regex", True)) for step in steps if step["type"] == "ByteLevel"]
    if kinds == ["Split", "ByteLevel"] and own == [False]:
        isolates = steps[0].get("behavior") == "Isolated" and not steps[0].get("invert")
        return _SPLITS.get(regex[0]) if isolates else None
    if kinds == ["ByteLevel"] and own == [True]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and own == [True] and steps[0].get("individual_digits"):
        return "smollm"
    return None


def _byte_level(body: Mapping[str, Any]) -> str:
    changes = [step["type"] for step in _steps(body["normalizer"]) if step["type"] != "NFC"]
    if changes:
        return f"muda o texto antes de separá-lo ({', '.join(changes)})"
    levels = [step for step in _steps(body["pre_tokenizer"]) if step["type"] == "ByteLevel"]
    if any(step.get("add_prefix_space") for step in levels):
        return "põe um espaço antes do texto (add_prefix_space)"
    if split_name(body["pre_tokenizer"]) is None:
        return "separa as palavras de um jeito que não está na nossa tabela"
    missing = len(_ALPHABET - body["model"]["vocab"].keys())
    # Without a token for the unknown both leave such bytes out, as SmolLM2's 21 of which no text needs 13.
    return f"não tem {missing} dos 256 bytes" if missing and body["model"].get("unk_token") else ""


def _metaspace(body: Mapping[str, Any]) -> str:
    """SentencePiece's rules, in either dialect, and nothing more."""
    steps = list(_steps(body["normalizer"]))
    known = [
        (step["type"] == "Prepend" and step.get("prepend") == SPACE) or _is_space(step) for step in steps
    ]
    if not all(known):
        changes = [step["type"] for step, own in zip(steps, known, strict=True) if not own]
        return f"muda o texto antes de separá-lo ({', '.join(changes)})"
    cuts = list(_steps(body["pre_tokenizer"]))
    if any(step["type"] != "Metaspace" or step.get("replacement", SPACE) != SPACE for step in cuts):
        return "separa as palavras de um jeito que não está na nossa tabela"
    if not cuts and not any(map(_is_space, steps)):
        return f"não escreve os espaços como {SPACE}"
    vocabulary = body["model"]["vocab"]
    if sum(map(is_byte, vocabulary)) < 256 or not body["model"].get("byte_fallback"):
        return "não tem os 256 tokens de bytes (<0x00> a <0xFF>), para o que está fora do vocabulário"
    joined = next((name for name in vocabulary if SPACE in name.strip(SPACE)), None)
    if joined is not None and any(step.get("split", True) for step in cuts):
        return f"tem tokens de mais de uma palavra ({joined}), que não usa"
    return ""


def _is_space(step: Mapping[str, Any]) -> bool:
    """Whether a normalizer turns spaces into `▁`, and does nothing else."""
    return step["type"] == "Replace" and (step["pattern"].get("String"), step["content"]) == (" ", SPACE)


def _steps(part: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The steps of a Sequence, or the one step."""
    if part is None:
        return
    for key in ("normalizers", "pretokenizers"):
        if key in part:
            for step in part[key]:
                yield from _steps(step)
            return
    yield part
