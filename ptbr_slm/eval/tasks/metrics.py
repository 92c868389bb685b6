"""From a model's answer to a figure an item, and from the figures to a score, as lm-evaluation-harness does.

`exact_match`, `acc`, `acc_norm` and `perplexity` give the harness's own values (lm_eval/api/metrics.py and
`process_results` in lm_eval/api/task.py, 0.4.13).
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from ptbr_slm.eval.statistics import Interval, bootstrap_mean, wilson_interval
from ptbr_slm.eval.tasks.definitions.harness import macro_f1, squad_scores, word_that_begins
from ptbr_slm.eval.tasks.items import Item
from ptbr_slm.eval.tasks.task import Filter, Metric, OutputType, Task
from ptbr_slm.runtime.scoring import ContinuationScore


@dataclass(frozen=True, slots=True)
class ItemResult:
    """How a model answered one item."""

    id: str
    sha256: str
    values: Mapping[str, float]
    """metric -> 1.0 or 0.0 for right or wrong; for perplexity the log-probability in nats."""
    answer: str | int
    """The generated answer, or the index of the chosen choice."""
    expected: str | int
    cut: int = 0
    """Tokens at the prompt's beginning that the model's context did not hold."""
    logprobs: tuple[float, ...] = field(default=())
    """Of each choice, in nats."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """A task's score by one metric."""

    metric: str
    value: float
    interval: Interval | None
    """95 %, over items."""
    baseline: float | None = None
    """What guessing, or the best answer that is always the same, gives by this metric on these items; None
    where it is next to nothing or not known."""


class Doubt(StrEnum):
    """Why a score says nothing of what a model knows. The value is the word for it in a table."""

    CHANCE = "≈ acaso"
    """Its interval holds what guessing, or a constant answer, gives."""
    BELOW = "< acaso"
    """Its interval lies below that: the model follows a wrong clue, or does not answer in the form asked."""
    SIZE = "pequeno"
    """Published models of this size stay at chance; above it is luck, leaked items or the form of answers."""


def doubt(score: TaskScore, meaningful_from: int, parameters: int | None) -> Doubt | None:
    """Why the score is no claim about a model of so many parameters; None where it is one.

    meaningful_from: `TaskFacts.meaningful_from`.
    """
    if score.baseline is not None:
        interval = score.interval or Interval(score.value, score.value)
        if score.baseline in interval:
            return Doubt.CHANCE
        if score.value < score.baseline:
            return Doubt.BELOW
    return Doubt.SIZE if parameters is not None and parameters < meaningful_from else None


def judge_choices(task: Task, item: Item, scores: Sequence[ContinuationScore]) -> ItemResult:
    """Judge the scores of an item's choices, or of its one target."""
    logprobs = np.array([score.logprob for score in scores])
    cut = max(score.prompt_tokens_cut for score in scores)
    rounded = tuple(round(float(value), 6) for value in logprobs)
    if task.output_type is OutputType.LOGLIKELIHOOD:
        values = {"acc": float(scores[0].is_greedy), "perplexity": float(logprobs[0])}
        kept = {metric.name: values[metric.name] for metric in task.metrics}
        return ItemResult(item.id, item.sha256, kept, "", item.choices[0], cut, rounded)
    characters = np.array([float(len(label)) for label in item.labels])
    sizes = np.array([float(len(label.encode())) for label in item.labels])
    chosen = int(np.argmax(logprobs))
    by_metric = {
        "acc": chosen,
        "f1": chosen,
        "acc_norm": int(np.argmax(logprobs / characters)),
        "acc_bytes": int(np.argmax(logprobs / sizes)),
    }
    values = {metric.name: float(by_metric[metric.name] in item.answers) for metric in task.metrics}
    return ItemResult(item.id, item.sha256, values, chosen, item.answers[0], cut, rounded)


def judge_text(task: Task, item: Item, text: str, cut: int = 0) -> ItemResult:
    """Judge a generated text."""
    answer = filtered(text, task.filters)
    if task.squad:
        scores = squad_scores(answer, item.references)
        values = {metric.name: scores[metric.name] for metric in task.metrics}
    else:
        values = {
            metric.name: float(any(_exact_match(metric, answer, one) for one in item.references))
            for metric in task.metrics
        }
    return ItemResult(item.id, item.sha256, values, answer, item.references[0], cut)


def filtered(text: str, filters: Sequence[Filter]) -> str:
    """The answer in a generated text (lm_eval/filters)."""
    for step in filters:
        if step.function == "regex":
            text = _first_match(step, text)
        elif step.function == "remove_whitespace":
            text = text.strip()
        elif step.function == "lowercase":
            text = text.lower()
        elif step.function == "first_word":
            text = word_that_begins(text)
    return text


def _first_match(step: Filter, text: str) -> str:
    found = re.findall(step.regex_pattern, text)
    if not found:
        return step.fallback
    match = found[step.group_select]
    if isinstance(match, tuple):  # several groups: the first that matched something
        match = next((part for part in match if part), step.fallback)
    return str(match).strip()


def task_scores(task: Task, results: Sequence[ItemResult]) -> list[TaskScore]:
    """The scores of a task by each of its metrics. Raises ValueError without results."""
    if not results:
        raise ValueError("no results")
    found = []
    for metric in task.metrics:
        values = [result.values[metric.name] for result in results]
        mean = sum(values) / len(values)
        baseline = _baseline(task, metric.name, results)
        if metric.name == "perplexity":
            nats = bootstrap_mean(values)
            interval = Interval(math.exp(-nats.high), math.exp(-nats.low))
            found.append(TaskScore("perplexity", math.exp(-mean), interval))
        elif metric.name == "f1" and task.output_type is OutputType.MULTIPLE_CHOICE:
            pairs = [(int(result.expected), int(result.answer)) for result in results]
            found.append(TaskScore("f1", macro_f1(pairs), _macro_f1_interval(pairs), baseline))
        elif metric.name == "f1":
            found.append(TaskScore("f1", mean, bootstrap_mean(values), baseline))
        else:
            interval = wilson_interval(sum(values), len(values))
            found.append(TaskScore(metric.name, mean, interval, baseline))
    return found


def _macro_f1_interval(pairs: Sequence[tuple[int, int]], draws: int = 1000) -> Interval:
    """95 % by the bootstrap over items: counts of the kinds of pairs are drawn, not the pairs."""
    kinds = Counter(pairs)
    counts = np.array(list(kinds.values()))
    drawn = np.random.default_rng(0).multinomial(
        len(pairs), counts / len(pairs), size=draws
    )  # (draws, kinds)
    labels = sorted({label for pair in kinds for label in pair})
    right = np.array([[pair[0] == label for pair in kinds] for label in labels])  # (labels, kinds)
    chosen = np.array([[pair[1] == label for pair in kinds] for label in labels])
    hits = drawn @ (right & chosen).T  # (draws, labels)
    named = drawn @ right.T.astype(int) + drawn @ chosen.T.astype(int)
    scores = np.divide(2 * hits, named, out=np.full(named.shape, np.nan), where=named > 0)
    low, high = np.quantile(np.nanmean(scores, axis=1), [0.025, 0.975])
    return Interval(float(low), float(high))


_FEW = 200


def _baseline(task: Task, metric: str, results: Sequence[ItemResult]) -> float | None:
    """What can be had without reading the question: the larger of guessing and a constant answer."""
    known = [share for share in (task.facts.constant.get(metric),) if share is not None]
    if task.output_type is not OutputType.MULTIPLE_CHOICE:
        if metric == "exact_match" or (metric == "acc" and task.facts.chance):
            known.append(task.facts.chance or 0.0)
        return max(known) if any(known) else None
    if len(results) >= _FEW:  # the commonest label of few items is common by luck
        most, count = Counter(int(result.expected) for result in results).most_common(1)[0]
        if metric == "f1":
            known.append(macro_f1([(int(result.expected), most) for result in results]))
        elif isinstance(task.doc_to_choice, tuple):  # the same labels for every item
            known.append(count / len(results))
    if metric == "f1":
        return max(known, default=None)
    return max(*known, sum(1 / len(result.logprobs) for result in results) / len(results), 0.0)


def _exact_match(metric: Metric, answer: str, reference: str) -> bool:
    return _normalised(metric, answer) == _normalised(metric, reference)


def _normalised(metric: Metric, text: str) -> str:
    for pattern in metric.regexes_to_ignore:
        text = re.sub(pattern, "", text)
    if metric.ignore_case:
        text = text.lower()
    if metric.ignore_punctuation:
        text = text.translate(str.maketrans("", "", string.punctuation))
    return text
