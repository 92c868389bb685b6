"""What a caller may ask of a generation, checked field by field, and what one choice of a token takes."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, get_args

from ptbr_slm.errors import SlmError

_MOST_STOPS, _LONGEST_STOP = 64, 1000
"""Each is looked for after every token."""

_MOST_TOKENS = 1_000_000

DraftUse = Literal["auto", "always", "never"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How to choose tokens, and when to end. Each field is checked; E_SAMPLING says what to change.

    Numbers of NumPy are taken as the Python numbers that they hold (numbers.Integral, numbers.Real).

    `ptbr_slm/runtime/sampling/sampler.py` gives the order in which they act on the logits.
    """

    max_new_tokens: int = 128
    """Tokens to generate at most. With 0 the text is empty, and the prompt is run only for its scores."""
    min_tokens: int = 0
    """Tokens before anything may end the text: until then no end token and none of `stop_token_ids` is
    chosen, and a stop string that is complete counts for nothing. As in vLLM (MinTokensLogitsProcessor;
    vllm/v1/engine/detokenizer.py), but that with `ignore_eos` end tokens may be chosen from the start.
    """
    ignore_eos: bool = False
    """No end token ends the text, neither the model's nor that of a turn of a conversation: it gives no text,
    and generation goes on. For measurements of texts of a set length.
    """
    temperature: float = 0.8
    """Divides the logits; 0 is greedy."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 0.95
    """Keep the smallest set whose probability reaches p (Holtzman et al., 2020, arXiv:1904.09751)."""
    min_p: float = 0.0
    """Drop tokens below min_p times the largest probability (Nguyen et al., 2024, arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Divides positive, multiplies negative logits of tokens seen (Keskar et al., 2019, arXiv:1909.05858)."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every token generated so far (OpenAI; the prompt does not count)."""
    frequency_penalty: float = 0.0
    """Subtracted from the logit of a token once for each time it was generated (OpenAI)."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the logits of token ids, -100 to 100; 100 and -100 all but force and forbid."""
    seed: int | None = None
    """Of the random draws; None takes a fresh one, which the result names."""
    stop: tuple[str, ...] = ()
    """Texts that end the generation; they are not part of the result."""
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the generation with the reason `stop`; they give no text."""
    logprobs: int | None = None
    """Log probability of each token, with this many (0 to 20) most probable alternatives; None is off."""
    prompt_logprobs: bool = False
    """Log probabilities of the prompt's tokens as well; alternatives as many as `logprobs` says."""
    first_logits: bool = False
    """The model's own scores of every token for the first place after the prompt, in the result; with
    `max_new_tokens=0` they are all that is computed."""
    n: int = 1
    """Completions of each prompt. Their seeds differ; with temperature 0 they are all the same."""
    json_schema: str | Mapping[str, Any] | None = None
    """The text is JSON that fits this schema, unless it ends for another reason than `eos`."""
    regex: str | None = None
    """The whole text matches this regular expression, unless it ends for another reason than `eos`."""
    lookahead: int = 0
    """Tokens guessed a step from what the text already repeats, and checked in one pass; 0 is off.
    Saves time and changes no text in fp32. The int8 and int4 kernels round tokens that are checked together
    another way than one alone, as they do in a batch: a close choice may fall the other way.
    """
    draft: DraftUse = "auto"
    """Whether the model's draft layer guesses the token after the next, where it has one: `auto` while the
    guesses come true often enough for what they cost on this machine, `always`, or `never`. Like `lookahead`
    it changes no text in fp32; in int8 and int4 a close choice may fall the other way.
    """
    timeout_s: float | None = None
    """Seconds after which the text ends where it is, with the reason `timeout`."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, _plain(getattr(self, name)))
        if isinstance(self.logit_bias, Mapping):
            bias = {_plain(token): _plain(value) for token, value in self.logit_bias.items()}
            object.__setattr__(self, "logit_bias", bias)
        if isinstance(self.stop_token_ids, tuple):
            object.__setattr__(self, "stop_token_ids", tuple(map(_plain, self.stop_token_ids)))
        _check_range("max_new_tokens", self.max_new_tokens, 0, _MOST_TOKENS, integer=True)
        _check_range("min_tokens", self.min_tokens, 0, _MOST_TOKENS, integer=True)
        _check_range("temperature", self.temperature, 0.0, 100.0)
        _check_range("top_k", self.top_k, 0, 10_000_000, integer=True)
        _check_range("top_p", self.top_p, 1e-6, 1.0)
        _check_range("min_p", self.min_p, 0.0, 1.0)
        _check_range("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        _check_range("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _check_range("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _check_range("n", self.n, 1, 64, integer=True)
        _check_range("lookahead", self.lookahead, 0, 32, integer=True)
        for name, value, low, high, integer in (
            ("seed", self.seed, 0, 2**63 - 1, True),
            ("logprobs", self.logprobs, 0, 20, True),
            ("timeout_s", self.timeout_s, 0.001, 1e6, False),
        ):
            if value is not None:
                _check_range(name, value, low, high, integer=integer)
        for name in ("prompt_logprobs", "first_logits", "ignore_eos"):
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, f"{name} deve ser True ou False.")
        if self.draft not in get_args(DraftUse):
            raise _wrong("draft", f"draft deve ser auto, always ou never, não {_shown(self.draft)}.")
        _check_stop(self.stop)
        _check_stop_tokens(self.stop_token_ids)
        _check_bias(self.logit_bias)
        _check_constraint(self.json_schema, self.regex)
        _check_end(self)


@dataclass(frozen=True, slots=True)
class Draw:
    """One choice of a text without penalties, bias, constraint or log probabilities."""

    temperature: float
    """0 is greedy."""
    top_k: int
    """0 keeps all."""
    top_p: float
    """1 keeps all."""
    min_p: float
    """0 keeps all."""
    uniform: float
    """In [0, 1): where in the running sum of the weights, by id, the token lies."""


GREEDY = Draw(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, uniform=0.0)


def _plain(value: Any) -> Any:
    """A number of NumPy as Python's; everything else as it is."""
    if type(value).__name__ in ("bool", "bool_"):  # Python's and NumPy 2's, NumPy 1's
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _check_range(name: str, value: Any, low: float, high: float, *, integer: bool = False) -> None:
    kind = int if integer else (int, float)
    good = (
        isinstance(value, kind)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and low <= value <= high
    )
    if not good:
        kind_name = "inteiro" if integer else "número"
        raise _wrong(name, f"{name} deve ser um {kind_name} de {low:g} a {high:g}, não {_shown(value)}.")


def _check_stop(stop: object) -> None:
    texts = stop if isinstance(stop, tuple) else (None,)
    if not all(isinstance(text, str) and text for text in texts):
        raise _wrong("stop", "stop deve ser uma lista de textos não vazios.", 'Exemplo: --stop "."')
    if len(texts) > _MOST_STOPS or any(len(text) > _LONGEST_STOP for text in texts):
        raise _wrong(
            "stop",
            f"stop leva até {_MOST_STOPS} textos de até {_LONGEST_STOP} caracteres.",
            "Use os mais curtos que bastem.",
        )


def _check_stop_tokens(tokens: object) -> None:
    hint = "Exemplo: stop_token_ids=[2, 5], no Python ou no pedido ao servidor."
    ids = tokens if isinstance(tokens, tuple) else (None,)
    if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids):
        raise _wrong("stop_token_ids", "stop_token_ids deve ser uma lista de ids de tokens.", hint)
    if len(ids) > _MOST_STOPS:
        raise _wrong("stop_token_ids", f"stop_token_ids leva até {_MOST_STOPS} tokens, não {len(ids)}.", hint)


def _check_bias(bias: object) -> None:
    hint = "Exemplo: --logit-bias 42=-100 (ou logit_bias={42: -100.0} no Python)."
    if not isinstance(bias, Mapping):
        raise _wrong("logit_bias", "logit_bias deve associar ids de tokens a números.", hint)
    for token, value in bias.items():
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise _wrong("logit_bias", f"logit_bias leva ids de tokens, e não {_shown(token)}.", hint)
        _check_range("logit_bias", value, -100.0, 100.0)


def _check_constraint(json_schema: object, regex: object) -> None:
    if json_schema is not None and regex is not None:
        raise _wrong(
            "json_schema, regex",
            "json_schema e regex não andam juntos: o texto seguiria duas formas ao mesmo tempo.",
            "Escolha um dos dois.",
        )
    if json_schema is not None and not isinstance(json_schema, str | Mapping):
        raise _wrong("json_schema", "json_schema deve ser um esquema JSON: texto ou dicionário.")
    if regex is not None and not (isinstance(regex, str) and regex):
        raise _wrong("regex", "regex deve ser uma expressão regular que não seja vazia.")


def _check_end(params: SamplingParams) -> None:
    """What is said about the end of the text must not contradict itself."""
    if params.min_tokens > params.max_new_tokens:
        raise _wrong(
            "min_tokens",
            f"min_tokens ({params.min_tokens}) passa de max_new_tokens ({params.max_new_tokens}).",
        )
    formed = next((name for name in ("json_schema", "regex") if getattr(params, name) is not None), None)
    unending = "ignore_eos" if params.ignore_eos else "min_tokens" if params.min_tokens else None
    if formed is not None and unending is not None:
        raise _wrong(
            unending,
            f"{unending} e {formed} não andam juntos: o texto termina onde a forma está completa.",
            "Diga o tamanho na própria forma: minLength, minItems num esquema, {20,} numa expressão regular.",
        )


def _shown(value: object) -> str:
    """A wrong value, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _wrong(name: str, message: str, hint: str = "") -> SlmError:
    flag = name.removesuffix("_s").replace("_", "-")
    return SlmError(
        "E_SAMPLING", message, where=name, hint=hint or f"Corrija com --{flag} (ou {name}= no Python)."
    )


class SamplingOptions(TypedDict, total=False):
    """The fields of `SamplingParams` as keyword options; `stop` may be one text."""

    max_new_tokens: int
    min_tokens: int
    ignore_eos: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int | None
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    logprobs: int | None
    prompt_logprobs: bool
    first_logits: bool
    n: int
    json_schema: str | Mapping[str, Any] | None
    regex: str | None
    lookahead: int
    draft: DraftUse
    timeout_s: float | None


def sampling_params(sampling: Mapping[str, object]) -> SamplingParams:
    """`SamplingParams` from keyword options (`SamplingOptions`). Raises E_SAMPLING."""
    options: dict[str, Any] = dict(sampling)
    stop = options.get("stop") or ()
    options["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    if isinstance(options.get("stop_token_ids"), list):
        options["stop_token_ids"] = tuple(options["stop_token_ids"])
    unknown = sorted(set(options) - set(SamplingParams.__dataclass_fields__))
    if unknown:
        raise SlmError(
            "E_SAMPLING",
            f"opção de geração desconhecida: {', '.join(unknown)}.",
            where=unknown[0],
            hint=f"As opções são: {', '.join(SamplingParams.__dataclass_fields__)}.",
        )
    return SamplingParams(**options)
