"""Folders with chat templates of every style, as small as they can be: ours, and others' written anew here.

The templates follow the published forms of Llama 2, Zephyr, Gemma, Llama 3 and Alpaca; tokenizers are trained
on a few sentences, with the control tokens that each of these models has.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from ptbr_slm.chat import ChatFormat, Message
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tokenizer.training import LLAMA_BPE_SPLIT

Conversation = list[Message]

LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = false %}{% endif %}{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}\
{% endfor %}"""
"""The system message stands inside the first turn of the user; contents are stripped."""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
"""Written over lines, which trim_blocks and lstrip_blocks clean up. Its prompt ends without a line break."""

GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
{{ raise_exception('System role not supported') }}\
{% endif %}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}\
{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""

LLAMA3 = """{% set loop_messages = messages %}{% for message in loop_messages %}\
{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'\
+ message['content'] | trim + '<|eot_id|>' %}\
{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}\
{% endfor %}{% if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

ALPACA = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}\
### Instrução:\\n{{ message['content'] }}\\n\\n{% elif message['role'] == 'assistant' %}\
### Resposta: {{ message['content'] }}\\n\\n{% else %}{{ message['content'] }}\\n\\n{% endif %}{% endfor %}\
{% if add_generation_prompt %}### Resposta: {% endif %}""".replace("\\n", "\n")
"""Headings of plain text: no token ends a turn, and the prompt ends with a space."""

STYLES: dict[str, tuple[str, str, Sequence[str]]] = {
    # name -> (template, kind of tokenizer, control tokens: the first begins a text, the second ends it)
    "llama2": (LLAMA2, "prepend", ["<s>", "</s>", "<unk>"]),
    "llama2-metaspace": (LLAMA2, "metaspace", ["<s>", "</s>", "<unk>"]),
    "zephyr": (ZEPHYR, "prepend", ["<s>", "</s>", "<unk>"]),
    "gemma": (GEMMA, "replace", ["<bos>", "<eos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]),
    "llama3": (
        LLAMA3,
        "bytes",
        [
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            "<|finetune_right_pad_id|>",
        ],
    ),
    "alpaca": (ALPACA, "bytes", ["<|begin_of_text|>", "<|end_of_text|>", "<pad>"]),
}


def foreign_tokenizer(kind: str, names: Sequence[str], texts: Sequence[str]) -> Tokenizer:
    """A BPE of at most 600 tokens. kind: `bytes`, or SentencePiece's dialects: `prepend` (Llama 2's: a `▁`
    before every text), `metaspace` (before the first alone) and `replace` (Gemma's: before none).
    """
    spelled_bytes = [] if kind == "bytes" else [f"<0x{i:02X}>" for i in range(256)]
    unknown = "<unk>" if "<unk>" in names else None
    inner = Library(models.BPE(byte_fallback=bool(spelled_bytes), unk_token=unknown, fuse_unk=True))
    if kind == "bytes":
        split = pre_tokenizers.Split(_regex(), "isolated")
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        inner.decoder = decoders.ByteLevel()
    else:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        inner.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else []
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*names, *spelled_bytes],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    inner.train_from_iterator(list(texts) * 3, trainer)
    if kind == "prepend":
        inner.pre_tokenizer = None
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif kind == "replace":
        inner.pre_tokenizer = None
        inner.normalizer = normalizers.Replace(" ", "▁")
        inner.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    elif kind == "metaspace":
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{names[0]} $A", pair=f"{names[0]} $A $B", special_tokens=[(names[0], 0)]
    )
    body = json.loads(inner.to_str())
    body["added_tokens"] = [token for token in body["added_tokens"] if token["content"] in names]
    return Tokenizer(Library.from_str(json.dumps(body)))


def write_foreign(folder: Path, style: str, texts: Sequence[str], *, place: str = "config") -> ModelFolder:
    """The tokenizer's files of a folder in one of `STYLES`. place: `config`, `list` or `jinja`."""
    template, kind, names = STYLES[style]
    folder.mkdir(parents=True)
    tokenizer = foreign_tokenizer(kind, names, texts)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": names[0], "eos_token": names[1],
        "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    if place == "config":
        settings["chat_template"] = template
    elif place == "list":
        other = {"name": "tool_use", "template": "{{ 'outro' }}"}
        settings["chat_template"] = [other, {"name": "default", "template": template}]
    else:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return ModelFolder(folder)


def write_ours(folder: Path, texts: Sequence[str]) -> ModelFolder:
    """The tokenizer's files of a folder of ours."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer.train(list(texts) * 4, 400)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    settings = tokenizer.hf_config(512, bos=tokenizer.bos_id, eos=tokenizer.eos_id, pad=tokenizer.pad_id)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return ModelFolder(folder)


def as_json(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The form in which other libraries take messages."""
    return [{"role": message.role, "content": message.content} for message in messages]


def conversation(*contents: str, system: str | None = None) -> Conversation:
    """User and assistant in turn."""
    turns = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(contents)]
    return turns if system is None else [Message("system", system), *turns]


def read_back(format: ChatFormat, folder: ModelFolder, messages: Sequence[Message]) -> str:
    """The text of a conversation's ids, control tokens left out."""
    return folder.tokenizer.decode(format.encode(messages).ids.tolist())


def _regex() -> Any:
    from tokenizers import Regex

    return Regex(LLAMA_BPE_SPLIT)
