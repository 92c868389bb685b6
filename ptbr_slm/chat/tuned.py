"""What makes a folder that of a tuned model: its form of conversation, and the token that ends a turn.

A base folder of ours carries a template too, for tools that ask for one; a model has learnt the form when the
token that ends a turn is among those that end its texts.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ptbr_slm.chat.format import ChatFormat, special_names
from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder, generation_defaults
from ptbr_slm.tokenizer.tokenizer import CHAT_TEMPLATE
from ptbr_slm.tokenizer.training import CHAT_TOKENS

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
"""Zephyr's form, for a vocabulary without tokens for a conversation: names of roles are text, and the token
that ends a text ends a turn."""


def is_tuned(config: ModelConfig, format: ChatFormat) -> bool:
    """Whether a model has learnt the form: the token that ends a turn is one that ends its texts."""
    return not set(format.end_ids).isdisjoint(config.eos_token_ids)


def tuning_format(folder: ModelFolder) -> ChatFormat:
    """The form to teach a base model: its own template; else ChatML, where the vocabulary has its tokens;
    else `PLAIN_TEMPLATE`.

    Raises E_CHAT_TEMPLATE for a template that is broken, or a model without an end token.
    """
    if folder.chat_template is not None:
        return ChatFormat.of(folder)
    config, tokenizer = folder.config, folder.tokenizer
    ids = {"bos_token": config.bos_token_id, "eos_token": next(iter(config.eos_token_ids), None)}
    names = {key: tokenizer.token_name(token) for key, token in ids.items() if token is not None}
    special = {key: name for key, name in names.items() if name is not None} | special_names(folder)
    where = folder.path / "tokenizer_config.json"
    if all(tokenizer.token_id(name) is not None for name in CHAT_TOKENS):
        return ChatFormat(CHAT_TEMPLATE, tokenizer, special, where)
    if "eos_token" not in special:
        raise SlmError(
            "E_CHAT_TEMPLATE",
            "o modelo não tem um token de fim, e nada encerraria uma resposta.",
            where=folder.path / "config.json",
            hint='Ponha em config.json o token que encerra um texto:  "eos_token_id": NÚMERO',
        )
    return ChatFormat(PLAIN_TEMPLATE, tokenizer, special, where)


def tuned_config(config: ModelConfig, format: ChatFormat) -> ModelConfig:
    """The shape of the tuned model: beside the base's tokens, the one that ends a turn ends its texts."""
    new = [token for token in format.end_ids if token not in config.eos_token_ids]
    return replace(config, eos_token_ids=(*config.eos_token_ids, *new))


def tuned_companions(folder: ModelFolder, format: ChatFormat) -> dict[str, bytes]:
    """The companions of a model tuned from `folder`, by name, for `write_model_files`.

    They are the base's, with two changes. generation_config.json ends at a turn's end, as `tuned_config`
    does: transformers, vLLM and our runtime stop there. tokenizer_config.json, or chat_template.jinja where
    the base has that, holds the template. Other settings stay as they are.
    """
    config, found = tuned_config(folder.config, format), folder.companions
    known = "generation_config.json" in found
    generation = folder.parse("generation_config.json") if known else generation_defaults(config)
    generation["eos_token_id"] = config.eos_token_id
    found["generation_config.json"] = _json(generation)
    if "tokenizer_config.json" in found:
        settings = folder.parse("tokenizer_config.json")
    else:
        settings = folder.tokenizer.hf_config(
            config.max_seq_len,
            bos=config.bos_token_id,
            eos=next(iter(config.eos_token_ids), None),
            pad=config.pad_token_id,
        )
        settings.pop("chat_template", None)
    settings = format.special | settings
    if "chat_template.jinja" in found:
        found["chat_template.jinja"] = format.template.encode("utf-8")
    elif folder.chat_template != format.template or "chat_template" not in settings:
        settings["chat_template"] = format.template
    found["tokenizer_config.json"] = _json(settings)
    return found


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode("utf-8")
