"""A tokenizer.json as llama.cpp wants it: tokens, their kinds, merges or scores, and which split it uses.

llama.cpp knows byte-level splits by name only, and its converter refuses those that it has no hash for; here
the regular expression itself is looked up (`tokenizer_compat.py`). SentencePiece-style BPE goes over with the
rank of its merges as scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tokenizer.spelling import is_byte
from ptbr_slm_export.tokenizer_compat import incompatibility, split_name


def check_tokenizer(tokenizer: Tokenizer, config: ModelConfig, folder: Path) -> None:
    """Refuse what llama.cpp would read with other tokens, or end elsewhere. Raises E_MODEL_INVALID."""
    fault = incompatibility(tokenizer)
    if fault:
        raise SlmError(
            "E_MODEL_INVALID",
            "o tokenizador deste modelo não pode ir para um GGUF, pois o llama.cpp veria outros tokens: "
            f"{fault}.",
            where=folder / "tokenizer.json",
            hint="Use o formato ONNX:  ptbr-slm export MODELO -o PASTA --format onnx",
        )
    if not config.eos_token_ids:
        raise SlmError(
            "E_MODEL_INVALID",
            "este modelo não tem token de fim, e o llama.cpp sempre para em algum: ele inventaria um.",
            where=folder / "config.json",
            hint='Ponha em config.json o token que encerra um texto:  "eos_token_id": NÚMERO',
        )


def add_tokenizer(writer: gguf.GGUFWriter, folder: ModelFolder) -> None:
    """Write the vocabulary of `folder`, which `check_tokenizer` accepted, into the metadata."""
    tokenizer, config = folder.tokenizer, folder.config
    body = json.loads(tokenizer.to_json())
    model = body["model"]
    if tokenizer.is_byte_level:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(str(split_name(body["pre_tokenizer"])))
        writer.add_token_merges([" ".join(pair) for pair in _merges(model)])
    else:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(model, config.vocab_size))
        writer.add_add_space_prefix(tokenizer.marks_start)
    names = [_name(tokenizer, i) for i in range(config.vocab_size)]
    writer.add_token_list(names)
    added = {token["id"] for token in body["added_tokens"]}
    unknown = model.get("unk_token")
    writer.add_token_types([_kind(tokenizer, i, added, unknown) for i in range(config.vocab_size)])
    _add_special(writer, tokenizer, model, config)
    if folder.chat_templates:
        from ptbr_slm.chat.template import without_generation_marks  # brings jinja2

        named = {name: without_generation_marks(source) for name, source in folder.chat_templates.items()}
        writer.add_chat_template([{"name": name, "template": named[name]} for name in sorted(named)])


def _add_special(
    writer: gguf.GGUFWriter, tokenizer: Tokenizer, model: dict[str, Any], config: ModelConfig
) -> None:
    if config.bos_token_id is not None:
        writer.add_bos_token_id(config.bos_token_id)
    ends = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, end in zip(ends, config.eos_token_ids, strict=False):  # llama.cpp stops at any of the three
        add(end)
    if config.pad_token_id is not None:
        writer.add_pad_token_id(config.pad_token_id)
    unknown = model.get("unk_token")
    if unknown is not None and (found := tokenizer.token_id(unknown)) is not None:
        writer.add_unk_token_id(found)
    around = tokenizer.encode("a")
    writer.add_add_bos_token(around[:1] == [config.bos_token_id])
    writer.add_add_eos_token(around[-1] in config.eos_token_ids)


def _name(tokenizer: Tokenizer, token_id: int) -> str:
    """The token as it stands in the vocabulary; rows of the embedding beyond it get a name of their own."""
    return tokenizer.token_name(token_id) or f"[PAD{token_id}]"


def _kind(tokenizer: Tokenizer, token_id: int, added: set[int], unknown: str | None) -> gguf.TokenType:
    """What llama.cpp makes of a token: a control token, for one, never comes out of a user's text."""
    name = tokenizer.token_name(token_id)
    if name is None:
        return gguf.TokenType.UNUSED
    if name == unknown:
        return gguf.TokenType.UNKNOWN
    if token_id in tokenizer.special_ids:
        return gguf.TokenType.CONTROL
    if tokenizer.is_metaspace and is_byte(name):
        return gguf.TokenType.BYTE
    return gguf.TokenType.USER_DEFINED if token_id in added else gguf.TokenType.NORMAL


def _merges(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Pairs in their order; older files write each as one text."""
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _scores(model: dict[str, Any], size: int) -> list[float]:
    """Minus the rank of the first merge that makes a token: llama.cpp joins the pair of the highest score."""
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(_merges(model)):
        ranks.setdefault(left + right, rank)
    scores = [float(-len(ranks) - 1)] * size
    for token, token_id in model["vocab"].items():
        if token in ranks:
            scores[token_id] = float(-ranks[token])
    return scores
