"""A model behind an OpenAI-compatible server (vLLM's, llama.cpp's, ours) as what is evaluated.

Scores come from `/v1/completions` with `echo` and `logprobs`: the log probability of each token of prompt and
continuation. The server tokenises. Which tokens are the continuation's is told from the pieces of text that
the tokens are, counted from the end; where these do not spell it, the prompt is sent alone and its tokens are
counted. That is `_encode_pair` of lm-evaluation-harness 0.4.13, so that scores agree with those of a
`LocalSubject`. Where one token spans the border, they agree if the server has `/tokenize`, since the harness
joins the tokens of two encodings then; without it the text's own tokens are scored.

What exceeds the context is cut from the prompt's left, by token ids: from a tokenizer of one's own, or from
the server's `/tokenize` (vLLM, llama.cpp). One token of the context stays free for the server, which mostly
generates at least one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.json_client import JsonClient, Refused
from ptbr_slm.eval.subject import Continuation, LocalSubject, Request
from ptbr_slm.runtime.scoring import ContinuationScore
from ptbr_slm.tokenizer import Tokenizer

_TEXTS_AT_ONCE = 16
"""Texts of one HTTP request; the server runs them as a batch."""
_UNKNOWN_CONTEXT = 2048
"""Of a server that does not say its own; lm-evaluation-harness assumes the same."""
_VOLATILE = ("created", "permission")
"""Fields of /v1/models that vLLM makes anew for each answer."""

Ids = tuple[int, ...]


def is_url(target: str) -> bool:
    """Whether this names a server, and not a folder."""
    return target.startswith(("http://", "https://"))


def open_subject(target: str, device: str = "auto") -> LocalSubject | ServerSubject:
    """The model in a folder or behind a URL. Raises as `LocalSubject` and `ServerSubject`."""
    return ServerSubject(target) if is_url(target) else LocalSubject(Path(target), device)


@dataclass(frozen=True, slots=True)
class _Echo:
    """The tokens of a text, as the server reads it."""

    pieces: tuple[str, ...]
    logprobs: tuple[float | None, ...]
    """In nats; None of what nothing comes before."""
    best: tuple[float | None, ...]
    """Of the most probable token at the same position."""

    def tokens_of(self, rest: str) -> int | None:
        """How many tokens at the end spell `rest`; None where it begins inside of one."""
        spelled = ""
        for index in range(len(self.pieces) - 1, -1, -1):
            spelled = self.pieces[index] + spelled
            if len(spelled) >= len(rest):
                # Tokens that spell nothing are parts of the character that the next one completes.
                while index > 0 and not self.pieces[index - 1] and self.logprobs[index - 1] is not None:
                    index -= 1
                return len(self.pieces) - index if spelled == rest else None
        return None

    def last(self, count: int) -> tuple[float, bool]:
        """Nats of the last `count` tokens, and whether each is the most probable one."""
        pairs = list(zip(self.logprobs[-count:], self.best[-count:], strict=True))
        nats = [chosen for chosen, _ in pairs if chosen is not None]
        return sum(nats), all(a is not None and b is not None and a >= b for a, b in pairs)


class ServerSubject:
    """A model behind the URL of an OpenAI-compatible server."""

    def __init__(
        self,
        url: str,
        model: str = "",
        *,
        tokenizer: Path | None = None,
        timeout_s: float = 300.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Ask the server which models it has.

        url: with or without `/v1` or `/v1/completions`; what follows a `#` is the model's name, where
        `model` is not given. Without a name, the first model that the server lists. tokenizer: the model's
        own `tokenizer.json`; texts are then sent as token ids. timeout_s: of one answer. pause: called with
        seconds to wait before a try after the first.
        Raises E_SERVER where nobody answers, or not as such a server.
        """
        address, _, fragment = url.partition("#")
        self.url = address.rstrip("/").removesuffix("/completions").removesuffix("/v1")
        self._client = JsonClient(self.url, timeout_s, pause)
        self._tokenizer = None if tokenizer is None else Tokenizer.load(tokenizer)
        self._can_tokenize: bool | None = None
        self._generated: int | None = None
        """Tokens that must be generated with an echo: 0 or 1; None before it was tried."""
        self._entry = self._find(model or fragment)
        self.model = str(self._entry["id"])

    def _find(self, name: str) -> Mapping[str, Any]:
        """The entry of a model in /v1/models."""
        try:
            answer = self._client.get("/v1/models")
        except Refused as error:
            raise _fault(self.url, f"o endereço responde, mas não em /v1/models ({error}).") from error
        entries = answer.get("data") if isinstance(answer, dict) else None
        found = [entry for entry in entries or () if isinstance(entry, dict) and "id" in entry]
        if not found:
            raise _fault(self.url, "o endereço responde, mas não lista nenhum modelo em /v1/models.")
        for entry in found:
            if not name or entry["id"] == name:
                return entry
        raise SlmError(
            "E_SERVER",
            f"o servidor não tem o modelo {name}.",
            where=self.url,
            hint=f"Ele tem: {', '.join(str(entry['id']) for entry in found)}. Escreva URL#NOME.",
        )

    @property
    def name(self) -> str:
        """The model's name and the server's."""
        return f"{self.model} em {urlsplit(self.url).netloc}"

    @property
    def identity(self) -> str:
        """sha256 over the address and what the server says of the model; weights cannot be seen from here."""
        facts = {key: value for key, value in self._entry.items() if key not in _VOLATILE}
        return hashlib.sha256(json.dumps([self.url, facts], sort_keys=True).encode()).hexdigest()

    @property
    def parameters(self) -> int | None:
        """How many, where the server says so (llama.cpp does)."""
        return self._fact("n_params")

    @property
    def context(self) -> int:
        """Tokens that it holds; 2,048 where the server does not say."""
        names = ("max_model_len", "context", "context_length", "n_ctx", "n_ctx_train")
        return next((value for name in names if (value := self._fact(name))), _UNKNOWN_CONTEXT)

    def _fact(self, name: str) -> int | None:
        meta = self._entry.get("meta")
        value = self._entry.get(name) or (meta.get(name) if isinstance(meta, dict) else None)
        return value if isinstance(value, int) else None

    def score(self, requests: Iterable[Request]) -> Iterator[list[ContinuationScore]]:
        """As `Model.score_each`. Raises E_SERVER where the server does not score prompts."""
        self._check_echo()
        source = iter(requests)
        while batch := list(islice(source, _TEXTS_AT_ONCE)):
            pairs = [(prompt, text) for prompt, continuations in batch for text in continuations]
            scores = iter(self._scored(pairs))
            for _, continuations in batch:
                yield list(islice(scores, len(continuations)))

    def _scored(self, pairs: Sequence[tuple[str, str]]) -> list[ContinuationScore]:
        if self._tokenizer is not None:
            return [self._scored_by_ids(*pair) for pair in pairs]
        kept = [prompt.rstrip() for prompt, _ in pairs]
        echoes = self._echoes([prompt + text for prompt, text in pairs])
        counts = [
            None if echo is None else echo.tokens_of((prompt + text)[len(before) :])
            for (prompt, text), before, echo in zip(pairs, kept, echoes, strict=True)
        ]
        unclear = [each for each, count in zip(kept, counts, strict=True) if count is None and each]
        prompts = list(dict.fromkeys(unclear))
        alone = dict(zip(prompts, self._echoes(prompts), strict=True))
        found = []
        for pair, before, echo, count in zip(pairs, kept, echoes, counts, strict=True):
            if echo is not None and count is None:
                count = self._beyond(echo, alone.get(before))
            if echo is None or not count or echo.logprobs[-count] is None:
                found.append(self._scored_by_ids(*pair))
            else:
                found.append(_score(pair[1], count, echo, cut=0))
        return found

    def _beyond(self, echo: _Echo, prompt: _Echo | None) -> int | None:
        """Tokens of a text beyond those of its prompt alone; None where token ids must tell."""
        if prompt is None:
            return None
        length = len(prompt.pieces)
        if echo.pieces[:length] == prompt.pieces or not self._tokenizes():
            return len(echo.pieces) - length
        return None

    def _tokenizes(self) -> bool:
        """Whether the server has /tokenize."""
        if self._can_tokenize is None:
            try:
                self._ids(_PROBE)
                self._can_tokenize = True
            except SlmError:
                self._can_tokenize = False
        return self._can_tokenize

    def _scored_by_ids(self, prompt: str, continuation: str) -> ContinuationScore:
        """With the border between token ids, and the prompt cut to the context."""
        kept = prompt.rstrip()
        before = self._ids(kept)
        rest = prompt[len(kept) :] + continuation
        targets = self._ids(kept + rest)[len(before) :] or self._ids(rest, special=False)
        if not before:
            raise SlmError(
                "E_PROMPT",
                "o texto inicial está vazio, e o servidor não põe um token de início.",
                where="prompt",
                hint="Dê um texto inicial a cada continuação.",
            )
        limit = self.context - 1
        if len(targets) >= limit:
            raise SlmError(
                "E_PROMPT_TOO_LONG",
                f"a continuação tem {len(targets)} tokens; o contexto do servidor é de {self.context}.",
                where="continuations",
                hint="Use uma continuação mais curta.",
            )
        cut = max(0, len(before) + len(targets) - limit)
        (echo,) = self._echoes([(*before[cut:], *targets)])
        if echo is None:
            raise _fault(self.url, "o servidor recusa um texto que cabe no contexto que ele declara.")
        return _score(continuation, len(targets), echo, cut)

    def _ids(self, text: str, *, special: bool = True) -> Ids:
        """Token ids of a text, by our tokenizer or the server's. Raises E_SERVER where there is neither."""
        if self._tokenizer is not None:
            return tuple(self._tokenizer.encode(text, special=special))
        body = {
            "model": self.model,
            "prompt": text,  # vLLM
            "add_special_tokens": special,
            "content": text,  # llama.cpp
            "add_special": special,
        }
        try:
            answer = self._client.post("/tokenize", body)
            return tuple(int(token) for token in answer["tokens"])
        except (SlmError, Refused, KeyError, TypeError, ValueError) as error:
            raise SlmError(
                "E_PROMPT_TOO_LONG",
                "um texto não cabe no contexto do servidor, que não tem /tokenize para cortá-lo.",
                where=self.url,
                hint="Sirva o modelo com um contexto maior, ou avalie a pasta do modelo nesta máquina.",
            ) from error

    def continue_text(
        self, prompts: Sequence[str], until: Sequence[str], max_new_tokens: int
    ) -> list[Continuation]:
        """Greedy continuations; a prompt too long for the context loses its beginning."""
        found = []
        for start in range(0, len(prompts), _TEXTS_AT_ONCE):
            batch = prompts[start : start + _TEXTS_AT_ONCE]
            try:
                texts = self._completions(batch, until, max_new_tokens)
                found += [Continuation(text, 0) for text in texts]
            except Refused:
                found += [self._continued(prompt, until, max_new_tokens) for prompt in batch]
        return found

    def _continued(self, prompt: str, until: Sequence[str], max_new_tokens: int) -> Continuation:
        try:
            if self._tokenizer is None:
                return Continuation(self._completions([prompt], until, max_new_tokens)[0], 0)
        except Refused:
            pass
        ids = self._ids(prompt)
        kept = max(1, self.context - max_new_tokens)
        try:
            (text,) = self._completions([ids[-kept:]], until, max_new_tokens)
        except Refused as error:
            raise _fault(self.url, f"o servidor recusa o pedido: {error}") from error
        return Continuation(text, max(0, len(ids) - kept))

    def _completions(
        self, prompts: Sequence[str | Ids], until: Sequence[str], max_new_tokens: int
    ) -> list[str]:
        choices = self._choices(prompts, max_tokens=max_new_tokens, stop=list(until))
        texts = [str(choice.get("text", "")) for choice in choices]
        return [min((text.split(stop)[0] for stop in until if stop), key=len, default=text) for text in texts]

    def _echoes(self, texts: Sequence[str | Ids]) -> list[_Echo | None]:
        """The tokens of each text; None where the server refuses it."""
        found: list[_Echo | None] = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            batch = texts[start : start + _TEXTS_AT_ONCE]
            try:
                choices = self._choices(batch, max_tokens=self._generated or 0, echo=True, logprobs=1)
                found += [self._echo(choice) for choice in choices]
            except Refused:
                # One text too long refuses them all.
                found += [None] if len(batch) == 1 else [self._echoes([text])[0] for text in batch]
        return found

    def _echo(self, choice: Mapping[str, Any]) -> _Echo:
        logprobs = choice.get("logprobs")
        try:
            values = logprobs["token_logprobs"]  # type: ignore[index]  # checked by the except clause
            top = logprobs["top_logprobs"]  # type: ignore[index]
            best = [max(each.values(), default=None) if each else None for each in top]
            end = len(values) - (self._generated or 0)
            pieces = logprobs["tokens"]  # type: ignore[index]
            return _Echo(tuple(pieces[:end]), tuple(values[:end]), tuple(best[:end]))
        except (TypeError, KeyError, AttributeError) as error:
            raise self._no_scores() from error

    def _check_echo(self) -> None:
        """Find out once whether the server scores prompts. Raises E_SERVER where it does not."""
        if self._generated is not None:
            return
        for generated in (0, 1):
            self._generated = generated
            try:
                (choice,) = self._choices([_PROBE], max_tokens=generated, echo=True, logprobs=1)
            except Refused:
                continue
            echo = self._echo(choice)
            # A server that ignores `echo` gives the generated token's alone.
            if str(choice.get("text", "")).strip().startswith(_PROBE) and len(echo.pieces) > 1:
                return
            break
        self._generated = None
        raise self._no_scores()

    def _no_scores(self) -> SlmError:
        return SlmError(
            "E_SERVER",
            "o servidor não devolve as probabilidades do texto que recebe (echo com logprobs).",
            where=f"{self.url}/v1/completions",
            hint="Tarefas que geram texto funcionam; para as outras, sirva o modelo com ptbr-slm ou vLLM, "
            "ou avalie a pasta do modelo.",
        )

    def _choices(self, prompts: Sequence[str | Ids], **options: Any) -> list[Mapping[str, Any]]:
        """The choices of /v1/completions, one a prompt, in their order."""
        body = {"model": self.model, "prompt": list(prompts), "temperature": 0, "seed": 0, **options}
        answer = self._client.post("/v1/completions", body)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or len(choices) != len(prompts):
            raise _fault(
                self.url, f"o servidor não devolveu uma resposta a cada um de {len(prompts)} textos."
            )
        return sorted(choices, key=lambda choice: int(choice.get("index", 0)))

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_PROBE = "O Brasil é um"


def _score(continuation: str, tokens: int, echo: _Echo, cut: int) -> ContinuationScore:
    logprob, greedy = echo.last(tokens)
    return ContinuationScore(logprob, tokens, len(continuation.encode("utf-8")), greedy, cut)


def _fault(url: str, message: str) -> SlmError:
    return SlmError(
        "E_SERVER",
        message,
        where=url,
        hint="Confira o endereço; deve ser o de um servidor compatível com OpenAI, como http://localhost:8000",
    )
