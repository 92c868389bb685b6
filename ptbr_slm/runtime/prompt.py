"""What may be a prompt (text, token ids, a conversation), and how it becomes ids that fit in the context."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.chat import ChatFormat, Message, parse_messages
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.protocol import Engine, check_ids
from ptbr_slm.runtime.sampling.params import SamplingOptions
from ptbr_slm.runtime.sequence import PromptState
from ptbr_slm.text import quoted

_CHARACTERS_A_TOKEN = 32
"""Far more than any text has (Portuguese: 4 to 5); what is longer is not encoded whole to be refused."""

CHAT_SAMPLING: SamplingOptions = {
    "max_new_tokens": 256,
    "temperature": 0.3,
    "top_p": 0.9,
    "repetition_penalty": 1.0,
}
"""What an answer is sampled with unless something else is asked for.

Less chance than in a continuation, for an answer has fewer good next words: the card of
SmolLM2-135M-Instruct asks for temperature 0.2 and top_p 0.9. No repetition penalty: it counts the prompt too
(Keskar et al., 2019, arXiv:1909.05858), so that above about 1.1 it forbids the words of the question, which a
good answer repeats.
"""

Messages = Sequence[Message | Mapping[str, object]]
"""A conversation: `Message`, or {"role": "user", "content": "Oi!"}. Roles: system, user, assistant."""


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt as token ids, read as they are: without a BOS, unless it is among them."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation whose next message the model writes, in the form of its folder's template.

    The last message is the user's. Where the conversation does not fit in the context, its oldest exchanges
    are left out whole (`GenerationResult.dropped_messages`), and the system's message stays.
    """

    messages: Messages
    whole: bool = False
    """Refuse such a conversation in place of leaving any of it out."""


Prompt = str | TokenPrompt | ChatPrompt


def chat_options(sampling: SamplingOptions) -> SamplingOptions:
    """`CHAT_SAMPLING` with what was asked for in its place."""
    return {**CHAT_SAMPLING, **sampling}


class UntunedModelWarning(UserWarning):
    """A conversation was asked of a model that has not learnt to answer."""


def untuned_warning(model: Path) -> str:
    """What to tell a user whose model has a template and has not learnt it.

    `tune` takes the folder of the trained model: an export has no weights that it could train.
    """
    trained = any(model.glob("model*.safetensors"))
    folder = model if trained else "SEU_MODELO"
    which = (
        "" if trained else " (SEU_MODELO: a pasta do modelo treinado, aquela de que este export foi feito)"
    )
    return (
        "este modelo não foi treinado para conversar: ele continua o texto da conversa, e talvez não "
        "responda nem saiba parar. Para ensinar:  "
        f"ptbr-slm tune {quoted(folder)} --data conversas.jsonl -o PASTA{which}"
    )


def check_prompt(text: object) -> str:
    """A prompt that is text and not empty. Raises E_PROMPT."""
    if not isinstance(text, str):
        raise SlmError(
            "E_PROMPT",
            f"o texto inicial deve ser texto (str), e não {type(text).__name__}.",
            where="prompt",
            hint='Exemplo: ptbr_slm.generate("O Brasil é", model=PASTA)',
        )
    if not text:
        raise SlmError(
            "E_PROMPT",
            "o texto inicial está vazio.",
            where="prompt",
            hint='Escreva como o texto começa, por exemplo:  "O Brasil é"',
        )
    return text


def encode_prompt(
    engine: Engine, prompt: object, chat_format: Callable[[], ChatFormat], max_new_tokens: int
) -> PromptState:
    """The ids of a prompt, never cut within a message.

    chat_format: called for a conversation only. max_new_tokens: what an answer may need of the context.
    Raises E_PROMPT, E_PROMPT_TOO_LONG, E_MESSAGES, E_CHAT_TEMPLATE.
    """
    context = engine.config.max_seq_len
    if isinstance(prompt, ChatPrompt):
        messages = parse_messages(prompt.messages)
        return fit_conversation(chat_format(), messages, context, max_new_tokens, whole=prompt.whole)
    if isinstance(prompt, TokenPrompt):
        check_ids(engine.config, prompt.ids)
        if len(prompt.ids) >= context:
            raise _too_long(str(len(prompt.ids)), context)
        return PromptState(prompt.ids)
    return PromptState(_encode_text(engine, check_prompt(prompt)))


def fit_conversation(
    chat_format: ChatFormat,
    messages: Sequence[Message],
    context: int,
    max_new_tokens: int,
    *,
    whole: bool = False,
) -> PromptState:
    """The conversation with as many of its last exchanges as leave room for the answer.

    The room is `max_new_tokens`, at least 1 and a quarter of the context at most. The last exchange and the
    system's messages stay whatever room is left. whole: all of it stays. Raises E_MESSAGES where the last
    message is not the user's, and E_PROMPT_TOO_LONG where what must stay does not fit.
    """
    if messages[-1].role != "user":
        raise SlmError(
            "E_MESSAGES",
            f"a última mensagem é de {messages[-1].role!r}: falta a pergunta a que o modelo responde.",
            where=f"messages[{len(messages) - 1}]",
            hint='Termine com a mensagem do usuário:  {"role": "user", "content": "..."}',
        )
    head = next(i for i, message in enumerate(messages) if message.role != "system")
    starts = [head] if whole else sorted({head, *(i for i, m in enumerate(messages) if m.role == "user")})
    most = context - max(1, min(max_new_tokens, context // 4))
    encoded: dict[int, list[int]] = {}

    def fits(start: int) -> bool:
        kept = [*messages[:head], *messages[start:]]
        if sum(len(message.content) for message in kept) > _CHARACTERS_A_TOKEN * context:
            return False
        encoded[start] = chat_format.prompt(kept)
        return len(encoded[start]) <= most

    start = head if fits(head) else starts[min(bisect_left(starts, True, key=fits), len(starts) - 1)]
    ids = encoded.get(start)
    if ids is None or len(ids) >= context:
        alone = "a mensagem e o texto de sistema têm" if head else "a mensagem tem"
        what = "a conversa tem" if whole else alone
        raise _conversation_too_long(what, [*messages[:head], *messages[start:]], ids, context)
    return PromptState(ids, end_ids=turn_ends(chat_format), dropped_messages=start - head)


def turn_ends(chat_format: ChatFormat) -> frozenset[int]:
    """Tokens that end the assistant's turn; none where the template does not show what the assistant writes:
    then only those that end every text of the model do.
    """
    try:
        return frozenset(chat_format.end_ids)
    except SlmError:
        return frozenset()


def _encode_text(engine: Engine, prompt: str) -> list[int]:
    context = engine.config.max_seq_len
    beginning = prompt[: _CHARACTERS_A_TOKEN * context]
    ids = engine.tokenizer.encode(beginning)
    if len(beginning) < len(prompt):
        if len(ids) >= 2 * context:  # seconds for 2 MB otherwise, only to count them
            raise _too_long(f"cerca de {len(ids) * len(prompt) // len(beginning)}", context)
        ids = engine.tokenizer.encode(prompt)
    if len(ids) >= context:
        raise _too_long(str(len(ids)), context)
    return ids


def _too_long(count: str, context: int) -> SlmError:
    return SlmError(
        "E_PROMPT_TOO_LONG",
        f"o texto inicial tem {count} tokens; o contexto do modelo é de {context}, "
        "e a continuação precisa de pelo menos 1.",
        where="prompt",
        hint=f"Use no máximo {context - 1} tokens, por volta de {int((context - 1) / 1.5)} palavras.",
    )


def _conversation_too_long(
    what: str, kept: Sequence[Message], ids: Sequence[int] | None, context: int
) -> SlmError:
    characters = sum(len(message.content) for message in kept)
    size = f"{characters} caracteres" if ids is None else f"{len(ids)} tokens"
    return SlmError(
        "E_PROMPT_TOO_LONG",
        f"{what} {size}; o contexto do modelo é de {context} tokens, e a resposta precisa de pelo menos 1.",
        where="messages",
        hint=f"Encurte para no máximo umas {int(0.75 * context / 1.5)} palavras.",
    )
