"""lm-evaluation-harness judges our models: `--model ptbr_slm`.

    python -m ptbr_slm.eval.lm_eval_adapter --model ptbr_slm --model_args path=PASTA --tasks TAREFA

is `lm_eval` with one model more. lm_eval 0.4.13 finds models in its own table alone
(its models/__init__.py): it reads no entry points and imports no plugins, so that the plain `lm_eval`
command cannot know this one. A script of one's own imports this module and calls `lm_eval.simple_evaluate`.

Scores agree with those of lm_eval's `hf` backend in fp32. Some of its habits are not followed. Special tokens
that a text spells out stay text here, and `loglikelihood_rolling` does not count the probability of a BOS
after the BOS (`hf` counts it unless `add_bos_token=False`). With `--apply_chat_template`, an answer begins
where the model begins to write: the line break that ends the prompt is not scored as a part of it, so that
all answers to a question are off by the same amount.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from ptbr_slm.chat import Message, parse_messages
from ptbr_slm.errors import SlmError, missing_extra
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import TokenPrompt
from ptbr_slm.runtime.sampling.params import SamplingOptions
from ptbr_slm.runtime.scoring import EncodedRequest, Request

try:
    import lm_eval.models  # noqa: F401  # fills the table, which it does not once ours is in it
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, simple_parse_args_string
except ImportError as error:
    raise missing_extra("lm_eval") from error

_log = logging.getLogger("lm_eval")
_TEXTS_AT_ONCE = 16
"""Prompts that are continued as one batch."""
_MAX_NEW_TOKENS = 256
"""Of a task that does not say, as in lm_eval's own backends."""
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names for the most tokens to generate; the first that is given counts (`normalize_gen_kwargs`)."""

Answer = TypeVar("Answer")


class ChatContext(str):
    """A conversation as lm_eval carries it through its requests: the template's text, with the messages.

    Encoded, the text would forge control tokens; the messages do not.
    """

    messages: tuple[Message, ...]
    """The last is one of the assistant where the task begins the answer (`gen_prefix`)."""

    def __new__(cls, text: str, messages: tuple[Message, ...]) -> Self:
        """text: what the harness shows and hashes."""
        made = super().__new__(cls, text)
        made.messages = messages
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[str, tuple[Message, ...]]]:
        """Copied and pickled, as lm_eval's cache of requests does, with its messages."""
        return type(self), (str(self), self.messages)


class Instance(Protocol):
    """The part of lm_eval's request that is read here."""

    @property
    def args(self) -> tuple[Any, ...]:
        """(context, continuation), (text,) or (context, generation options)."""


@register_model("ptbr_slm")
class PtbrSlm(LM):  # type: ignore[misc]  # lm_eval is without types
    """A checkpoint, a model folder (ours or any Llama) or an ONNX export, through `ptbr_slm.runtime`."""

    def __init__(self, path: str, device: str = "auto") -> None:
        """Open the model; path, device: as in `ptbr_slm.load`. Raises what that raises."""
        super().__init__()
        self.model = Model(Path(path), device)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: Mapping[str, Any], additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """From `--model_args`, with what the command line says apart from them.

        `--device` is `cuda:0` there unless given, so that any `cuda` counts as `auto`; a device among the
        model's arguments is taken as it is. The runtime composes its own batches: `--batch_size` is unused.
        """
        known = dict(additional_config or {})
        device = str(known.get("device") or "auto")
        return cls(**{"device": "auto" if device.startswith("cuda") else device, **arg_dict})

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: Mapping[str, Any] | None = None
    ) -> Self:
        """As `create_from_arg_obj`, from `key=value,key=value`."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    def loglikelihood(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """(nats, whether each token is the most probable one) of each continuation after its context."""
        pairs = [request.args for request in requests]
        # Choices of one question follow each other, and share their prompt.
        grouped = [
            (context, [text for _, text in group]) for context, group in groupby(pairs, lambda pair: pair[0])
        ]
        scored = self.model.score_each(self._request(*each) for each in grouped)
        answers = ((score.logprob, score.is_greedy) for scores in scored for score in scores)
        return list(self._kept("loglikelihood", pairs, answers, disable_tqdm))

    def _request(self, context: str, continuations: Sequence[str]) -> Request | EncodedRequest:
        if not isinstance(context, ChatContext):
            return context, continuations
        prompt, targets = self._ids(context), []
        for text in continuations:
            *before, begun = _with_answer(context.messages)
            whole = self.model.chat_format.unfinished([*before, Message("assistant", begun.content + text)])
            targets.append(
                tuple(whole[len(prompt) :] or self.model.engine.tokenizer.encode(text, special=False))
            )
        return EncodedRequest(tuple(prompt), tuple(targets))

    def _ids(self, context: str) -> list[int]:
        if not isinstance(context, ChatContext):
            return self.model.engine.tokenizer.encode(context)
        *_, last = context.messages
        known = (
            self.model.chat_format.unfinished if last.role == "assistant" else self.model.chat_format.prompt
        )
        return known(context.messages)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Nats of each whole text after a BOS, in lm_eval's windows of one context each."""
        pairs = [request.args for request in requests]
        answers = (self._nats(text) for (text,) in pairs)
        return list(self._kept("loglikelihood_rolling", pairs, answers, disable_tqdm))

    def _nats(self, text: str) -> float:
        config, tokenizer = self.model.engine.config, self.model.engine.tokenizer
        beginnings = [config.bos_token_id, *config.eos_token_ids]
        windows = get_rolling_token_windows(
            token_list=tokenizer.encode(text, special=False),
            prefix_token=next((token for token in beginnings if token is not None), 0),
            max_seq_len=config.max_seq_len,
            context_len=1,
        )
        parts = (self.model.logprobs([*inputs, to[-1]])[-len(to) :].sum() for inputs, to in windows)
        return float(sum(parts))

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The continuation of each context, ended before the first of its `until`."""
        pairs = [request.args for request in requests]
        return list(self._kept("generate_until", pairs, self._continuations(pairs), disable_tqdm))

    def _continuations(self, pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        for options, group in groupby(pairs, lambda pair: pair[1]):
            prompts = [context for context, _ in group]
            sampling = sampling_options(options)
            kept = max(1, self.model.engine.config.max_seq_len - sampling["max_new_tokens"])
            for start in range(0, len(prompts), _TEXTS_AT_ONCE):
                ids = map(self._ids, prompts[start : start + _TEXTS_AT_ONCE])
                yield from self.model.generate([TokenPrompt(tuple(each[-kept:])) for each in ids], **sampling)

    def _kept(
        self, kind: str, asked: Sequence[tuple[Any, ...]], answers: Iterable[Answer], quiet: bool
    ) -> Iterator[Answer]:
        """The answers, each handed to lm_eval's cache as soon as it is there, under a progress bar."""
        from tqdm import tqdm

        for args, answer in zip(asked, tqdm(answers, kind, len(asked), disable=quiet), strict=True):
            self.cache_hook.add_partial(kind, args, answer)
            yield answer

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as context of a request: with `--apply_chat_template`.

        add_generation_prompt: False where the last message is the beginning of the answer.
        A template that refuses a system message is given none, as lm_eval's `hf` does.
        """
        messages = parse_messages(chat_history)
        try:
            return self._context(messages, add_generation_prompt)
        except SlmError:
            others = [message for message in messages if message.role != "system"]
            if len(others) == len(messages):
                raise
            _log.warning("o modelo de conversa recusa a mensagem de sistema: ela fica de fora")
            return self._context(others, add_generation_prompt)

    def _context(self, messages: Sequence[Message], add_generation_prompt: bool) -> ChatContext:
        asked = messages if add_generation_prompt else messages[:-1]
        begun = "" if add_generation_prompt else messages[-1].content
        text = self.model.chat_format.render(asked, add_generation_prompt=True) + begun
        return ChatContext(text, tuple(messages))

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's source, for lm_eval's record; None where none is asked for."""
        return self.model.chat_format.template if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """Identity of the tokenizer and the template: what a cache of requests is valid for."""
        return f"{self.model.engine.tokenizer.sha256}-{self.model.chat_format.sha256}"

    def get_model_info(self) -> dict[str, Any]:
        """What lm_eval records of the model beside the results."""
        facts = self.model.describe()
        return {
            "model_num_parameters": facts["parameters"],
            "model_dtype": facts["precision"],
            "model_engine": f"{facts['engine']} ({facts['device']})",
        }


def _with_answer(messages: Sequence[Message]) -> Sequence[Message]:
    """Messages that end with the assistant's, empty where the answer is not begun."""
    return messages if messages[-1].role == "assistant" else [*messages, Message("assistant", "")]


def sampling_options(options: Mapping[str, Any]) -> SamplingOptions:
    """lm_eval's `generation_kwargs` as our sampling options; greedy unless `do_sample` or a temperature.

    Raises E_USAGE for an option that would go without effect.
    """
    rest = dict(options)
    until = rest.pop("until", None) or []
    lengths = [length for name in _LENGTHS if (length := rest.pop(name, None)) is not None]
    temperature = float(rest.pop("temperature", 0.0))
    if not rest.pop("do_sample", temperature > 0):
        temperature = 0.0
    found: SamplingOptions = {
        "temperature": temperature,
        "top_p": float(rest.pop("top_p", 1.0)),
        "top_k": int(rest.pop("top_k", 0)),
        "max_new_tokens": int(lengths[0]) if lengths else _MAX_NEW_TOKENS,
        "stop": [until] if isinstance(until, str) else [str(stop) for stop in until if stop],
    }
    if rest:
        raise SlmError(
            "E_USAGE",
            f"generation_kwargs: {', '.join(rest)} não é usado por --model ptbr_slm.",
            where="--gen_kwargs",
            hint=f"Use until, do_sample, temperature, top_p, top_k, {_LENGTHS[0]}.",
        )
    return found


def main(run: Callable[[], None] | None = None) -> int:
    """`lm_eval` with our model in its table; errors of ours in three lines. Returns the exit code."""
    from lm_eval.__main__ import cli_evaluate

    try:
        (run or cli_evaluate)()
    except SlmError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
