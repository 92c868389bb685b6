"""A model under evaluation whose scores and texts are functions, and what a task makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ptbr_slm.eval.subject import Continuation, Request
from ptbr_slm.eval.tasks.items import Item
from ptbr_slm.eval.tasks.metrics import ItemResult, judge_choices, judge_text
from ptbr_slm.eval.tasks.task import OutputType, Task
from ptbr_slm.runtime.scoring import ContinuationScore


def arbitrary(prompt: str, continuation: str) -> float:
    """A log-probability without meaning, the same each time."""
    digest = hashlib.sha256(f"{prompt}\x1f{continuation}".encode()).digest()
    return -1.0 - int.from_bytes(digest[:6], "big") / 2**46


@dataclass
class ToySubject:
    """logprob: (prompt, continuation) -> nats; 0 counts as greedy. text: prompt -> continuation."""

    logprob: Callable[[str, str], float] = arbitrary
    text: Callable[[str], str] = lambda prompt: ""
    name: str = "brinquedo"
    identity: str = "0" * 64
    parameters: int | None = None
    context: int = 4096

    def score(self, requests: Iterable[Request]) -> Iterator[list[ContinuationScore]]:
        for prompt, continuations in requests:
            found = [self.logprob(prompt, one) for one in continuations]
            yield [
                ContinuationScore(nats, len(one), len(one.encode()), nats == 0, 0)
                for nats, one in zip(found, continuations, strict=True)
            ]

    def continue_text(
        self, prompts: Sequence[str], until: Sequence[str], max_new_tokens: int
    ) -> list[Continuation]:
        return [Continuation(self.text(prompt), 0) for prompt in prompts]


def ask(subject: ToySubject, task: Task, items: Sequence[Item]) -> list[ItemResult]:
    """The judged answers, in the items' order."""
    if task.output_type is OutputType.GENERATE_UNTIL:
        found = subject.continue_text([item.prompt for item in items], task.until, task.max_new_tokens)
        return [judge_text(task, item, each.text, each.cut) for item, each in zip(items, found, strict=True)]
    scored = subject.score((item.prompt, item.choices) for item in items)
    return [judge_choices(task, item, scores) for item, scores in zip(items, scored, strict=True)]
