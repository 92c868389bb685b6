"""From messages to ids, by the template of a model: the only way there is.

A template writes one text, in which nothing tells its own `<|im_end|>` from one that a user typed. So the
names of control tokens that stand in contents are escaped before the template runs. What it wrote is then cut
into pieces: the names left are control tokens, the rest is text, and `ControlEncoder` turns both into ids.

Control tokens are the special ones, and others of the vocabulary that the template writes (as transformers'
`sanitize_control_tokens` takes them). An answer may hold the latter, such as `<think>`.

The ids are those of transformers' `apply_chat_template(tokenize=True)`, but for two cases. A control token's
name in a content is text here. Where an answer begins with a line break (or the template ends its prompt with
a space), the tokenizer may join that and the end of the prompt into one token; here the prompt keeps the ids
that it has while the answer is not there yet, as a model meets it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from ptbr_slm.chat.encoder import ControlEncoder, EncodedChat
from ptbr_slm.chat.escape import Escape
from ptbr_slm.chat.messages import ROLES, Message
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ptbr_slm.chat.template import ChatTemplate

_EXAMPLE = (Message("user", "a"), Message("assistant", "b"))


class ChatFormat:
    """Messages to ids for one model folder. Safe to use from several threads."""

    def __init__(
        self, template: str, tokenizer: Tokenizer, special: Mapping[str, str], where: str | Path = ""
    ) -> None:
        """special: names of tokens as the template knows them, `bos_token` and its like.

        where: the file that errors name. Raises E_CHAT_TEMPLATE for a template that is not valid Jinja.
        """
        self.template = template
        self.special = dict(special)
        self._where = where
        added = {token: str(tokenizer.token_name(token)) for token in tokenizer.added_ids}
        named = {tokenizer.token_id(name): name for name in special.values()}
        strict = {t: name for t, name in (added | named).items() if t in tokenizer.special_ids | set(named)}
        written = {t: name for t, name in added.items() if name in template and not name.isspace()}
        controls = {name: token for token, name in (written | strict).items() if token is not None}
        self._control_of = controls
        self._encoder = ControlEncoder(tokenizer, controls.values())
        nonce = str(secrets.randbits(64))
        self._start, self._end = f"\ue000{nonce}<\ue001", f"\ue000{nonce}>\ue001"
        self._escapes = {role: Escape(list(controls), nonce) for role in ROLES}
        self._escapes["assistant"] = Escape([name for name in controls if controls[name] in strict], nonce)
        marks = [self._start, self._end, *sorted(controls, key=len, reverse=True)]
        self._parts = re.compile("|".join([Escape.pattern(nonce), *map(re.escape, marks)]))

    @classmethod
    def of(cls, folder: ModelFolder) -> ChatFormat:
        """The format of a model folder. Raises E_CHAT_TEMPLATE where it has no template, or a broken one."""
        template = folder.chat_template
        if template is None:
            raise SlmError(
                "E_CHAT_TEMPLATE",
                "este modelo não traz um modelo de conversa (chat template): ele só continua textos.",
                where=folder.path,
                hint="Ensine-o a conversar com:  ptbr-slm tune MODELO --data CONVERSAS -o PASTA",
            )
        own_file = folder.read("chat_template.jinja") is not None
        where = folder.path / ("chat_template.jinja" if own_file else "tokenizer_config.json")
        return cls(template, folder.tokenizer, special_names(folder), where)

    @cached_property
    def sha256(self) -> str:
        """Identity of the template."""
        return hashlib.sha256(self.template.encode("utf-8")).hexdigest()

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """The control token that ends a turn of the assistant; empty where the template writes none.

        Raises E_CHAT_TEMPLATE.
        """
        encoded = self.encode(_EXAMPLE)
        last = int(encoded.ids[encoded.answer][-1])
        return (last,) if last in self._control_of.values() else ()

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids up to where the assistant begins to write. Raises E_CHAT_TEMPLATE.

        They are the first ids of `encode` of the same messages with the answer.
        """
        ids: list[int] = self._encode(self._marked(messages, add_generation_prompt=True)).ids.tolist()
        return ids

    def unfinished(self, messages: Sequence[Message]) -> list[int]:
        """Ids up to the end of the last answer's text, without the token that ends it: for a model that goes
        on where the answer stops. Raises E_CHAT_TEMPLATE.
        """
        encoded = self.encode(messages)
        written = np.flatnonzero(encoded.answer)
        end = int(written[-1]) + 1 if len(written) else len(encoded.ids)
        ids: list[int] = encoded.ids[:end].tolist()
        return ids[:-1] if ids[-1] in self.end_ids else ids

    def encode(self, messages: Sequence[Message]) -> EncodedChat:
        """Ids of a whole conversation, and which of them the assistant writes.

        Raises E_CHAT_TEMPLATE, also where the template does not show what the assistant writes.
        """
        return self._encode(self._marked(messages, add_generation_prompt=False))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """The conversation as one text, as transformers gives it with `tokenize=False`. For reading only:
        encoded, it would forge the control tokens that its contents name. Raises E_CHAT_TEMPLATE.
        """
        return self._restored(self._rendered(messages, add_generation_prompt=add_generation_prompt))

    # From messages to the template's text, contents escaped and answers between marks

    def _marked(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """The template's text with `_start` and `_end` around each answer.

        A prompt whose earlier answers cannot be found goes without marks: it has nothing to show.
        """
        text = self._rendered(messages, add_generation_prompt=add_generation_prompt)
        if self._marks_answers:
            return text
        text = self._unmarked(text)
        try:
            spans = self._answers(messages, text)
        except SlmError:
            if not add_generation_prompt:
                raise
            return text
        for start, end in reversed(spans):
            text = text[:start] + self._start + text[start:end] + self._end + text[end:]
        return text

    @cached_property
    def _marks_answers(self) -> bool:
        """Whether the template marks what the assistant writes, from where its prompt ends."""
        if not self._compiled.has_generation:
            return False
        text = self._rendered(_EXAMPLE, add_generation_prompt=False)
        prompt = self._unmarked(self._rendered(_EXAMPLE[:1], add_generation_prompt=True))
        return text.startswith(prompt + self._start) and self._end in text

    def _answers(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        """Where each answer begins and ends in `text`, found by rendering what comes before it.

        It ends with the last control token that its turn writes; without one, where its text ends.
        """
        found = []
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before = self._unmarked(self._rendered(messages[:number], add_generation_prompt=True))
            turn = self._unmarked(self._rendered(messages[: number + 1], add_generation_prompt=False))
            if not (text.startswith(turn) and turn.startswith(before)):
                self._refuse(
                    f"ele não mostra o que o assistente escreve na mensagem {number + 1}, pois o começo da "
                    "conversa muda quando ela continua"
                )
            answer = turn[len(before) :]
            controls = [part.end() for part in self._parts.finditer(answer) if part[0] in self._control_of]
            end = controls[-1] if controls else len(answer.rstrip())
            found.append((len(before), len(before) + end))
        return found

    def _rendered(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        import jinja2

        escaped = [
            {"role": each.role, "content": self._escapes[each.role](each.content)} for each in messages
        ]
        compiled = self._compiled
        try:
            return compiled.render(
                escaped, add_generation_prompt=add_generation_prompt, variables=self.special
            )
        except jinja2.TemplateError as error:
            self._refuse(self._restored(str(error.message or error)))
        except Exception as error:  # a template is a program: it raises what its author let it
            self._refuse(f"{type(error).__name__}: {self._restored(str(error))}")

    @cached_property
    def _compiled(self) -> ChatTemplate:
        import jinja2

        from ptbr_slm.chat.template import ChatTemplate

        try:
            return ChatTemplate(self.template, self._start, self._end)
        except (jinja2.TemplateError, RecursionError) as error:
            self._refuse(f"não é Jinja válido: {error}")

    def _refuse(self, fault: str) -> NoReturn:
        raise SlmError(
            "E_CHAT_TEMPLATE",
            f"o modelo de conversa (chat template) falhou: {fault[:300].rstrip('.')}.",
            where=self._where,
            hint="Confira a ordem dos papéis na conversa; o modelo de conversa é o arquivo acima.",
        )

    # From that text to ids

    def _restored(self, text: str) -> str:
        """`text` as the template would have written it with the contents as they are."""

        def plain(part: re.Match[str]) -> str:
            if part["escaped"]:
                return chr(int(part["escaped"]))
            return part[0] if part[0] in self._control_of else ""

        return self._parts.sub(plain, text)

    def _unmarked(self, text: str) -> str:
        return text.replace(self._start, "").replace(self._end, "")

    def _encode(self, marked: str) -> EncodedChat:
        pieces: list[str | int] = []
        answers: list[tuple[int, int]] = []
        done, begun = 0, 0
        for part in self._parts.finditer(marked):
            pieces.append(marked[done : part.start()])
            done = part.end()
            if part["escaped"]:
                pieces.append(chr(int(part["escaped"])))
            elif part[0] == self._start:
                begun = len(pieces)
            elif part[0] == self._end:
                answers.append((begun, len(pieces)))
            else:
                pieces.append(self._control_of[part[0]])
        pieces.append(marked[done:])
        return self._encoder.encode(pieces, answers)


def special_names(folder: ModelFolder) -> dict[str, str]:
    """The special tokens that a folder names, `bos_token` and its like, as transformers gives them to a
    template: from tokenizer_config.json, else from special_tokens_map.json. Raises E_MODEL_INVALID.
    """
    found: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        content = folder.read(file)
        for key, value in ({} if content is None else folder.parse(file)).items():
            name = value.get("content") if isinstance(value, Mapping) else value
            if key.endswith("_token") and isinstance(name, str):
                found[key] = name
    return found
