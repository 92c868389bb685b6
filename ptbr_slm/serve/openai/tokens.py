"""/tokenize, /detokenize and /tokenizer_info, under vLLM's names and llama.cpp's.

lm-evaluation-harness asks for the token of a name such as `<|bos|>` by tokenising it without special tokens,
and for vLLM and llama.cpp any text may spell one. Here no text does, in a prompt: only to that question, a
special token's name alone, /tokenize answers with the token.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from ptbr_slm.chat import parse_messages
from ptbr_slm.chat.format import special_names
from ptbr_slm.errors import SlmError
from ptbr_slm.serve.openai.body import Body, TokenId
from ptbr_slm.serve.openai.chat import ChatMessage
from ptbr_slm.serve.openai.documented import ERRORS
from ptbr_slm.serve.openai.refusals import invalid, refusal
from ptbr_slm.serve.served import ServedModel
from ptbr_slm.storage.model_folder import ModelFolder

router = APIRouter()


class TokenizeBody(Body):
    """The body of /tokenize: one of `prompt` (vLLM), `content` (llama.cpp) and `messages`."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    """Whether the text begins with the model's BOS: true with `prompt`, as at vLLM."""
    add_special: bool | None = None
    """llama.cpp's name; false with `content`."""
    add_generation_prompt: bool | None = None
    """Whether `messages` end where the assistant begins; true where absent."""
    return_token_strs: bool | None = None
    with_pieces: bool | None = None
    """llama.cpp's: `tokens` are objects of id and piece; a piece that is no UTF-8 is a list of bytes."""


class DetokenizeBody(Body):
    """The body of /detokenize."""

    model: str | None = None
    tokens: list[TokenId]


@router.post("/tokenize", responses=ERRORS)
async def tokenize(request: Request, body: TokenizeBody) -> dict[str, Any]:
    """Token ids of a text or a conversation."""
    served: ServedModel = request.app.state.models.find(body.model)
    tokenizer = served.model.engine.tokenizer
    ids = await asyncio.to_thread(_ids, served, body)
    found: dict[str, Any] = {
        "count": len(ids),
        "max_model_len": served.model.engine.config.max_seq_len,
        "tokens": ids,
    }
    if body.return_token_strs:
        found["token_strs"] = [tokenizer.token_name(token) for token in ids]
    if body.with_pieces:
        found["tokens"] = [{"id": token, "piece": _piece(tokenizer.token_bytes(token))} for token in ids]
    return found


def _ids(served: ServedModel, body: TokenizeBody) -> list[int]:
    model = served.model
    try:
        if body.messages is not None:
            messages = parse_messages([each.model_dump(exclude_none=True) for each in body.messages])
            if body.add_generation_prompt is False:
                return [int(token) for token in model.chat_format.encode(messages).ids]
            return model.chat_format.prompt(messages)
        text, special = body.prompt, True
        if text is None:
            text, special = body.content, False
        if text is None:
            raise invalid("prompt", "Falta o texto: envie prompt, content ou messages.")
        for asked in (body.add_special, body.add_special_tokens):
            special = special if asked is None else asked
        tokenizer = model.engine.tokenizer
        named = None if special else tokenizer.token_id(text)
        return [named] if named in tokenizer.special_ids else tokenizer.encode(text, special=special)
    except SlmError as error:
        raise refusal(error, model, (), "prompt" if body.messages is None else "messages") from error


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return list(raw)


@router.post("/detokenize", responses=ERRORS)
async def detokenize(request: Request, body: DetokenizeBody) -> dict[str, str]:
    """The text of token ids, without special tokens: as a prompt it becomes the same ids again."""
    served: ServedModel = request.app.state.models.find(body.model)
    tokenizer = served.model.engine.tokenizer
    if max(body.tokens, default=0) >= tokenizer.vocab_size:
        raise invalid("tokens", f"Há um token fora do vocabulário (0 a {tokenizer.vocab_size - 1}).")
    text = await asyncio.to_thread(tokenizer.decode, body.tokens)
    return {"prompt": text, "content": text}


@router.get("/tokenizer_info", responses=ERRORS)
async def tokenizer_info(request: Request, model: str | None = None) -> dict[str, Any]:
    """What vLLM tells of a tokenizer, and lm-evaluation-harness reads."""
    served: ServedModel = request.app.state.models.find(model)
    folder = ModelFolder.of(served.model.path)
    config, tokenizer = folder.config, served.model.engine.tokenizer
    ids = {
        "bos_token": config.bos_token_id,
        "eos_token": next(iter(config.eos_token_ids), None),
        "pad_token": config.pad_token_id,
    }
    names = {key: None if token is None else tokenizer.token_name(token) for key, token in ids.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_seq_len,
        **names,
        **special_names(folder),
        "chat_template": folder.chat_template,
    }
