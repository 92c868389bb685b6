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

import numpy as np

from ptbr_slm.eval.statistics import Interval, bootstrap_mean, wilson_interval
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
    """95 %, over items; None where the metric is no mean over items."""


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
        "f1_macro": chosen,
        "acc_norm": int(np.argmax(logprobs / characters)),
        "acc_bytes": int(np.argmax(logprobs / sizes)),
    }
    values = {metric.name: float(by_metric[metric.name] in item.answers) for metric in task.metrics}
    return ItemResult(item.id, item.sha256, values, chosen, item.answers[0], cut, rounded)


def judge_text(task: Task, item: Item, text: str, cut: int = 0) -> ItemResult:
    """Judge a generated text."""
    answer = filtered(text, task.filters)
    values = {}
    for metric in task.metrics:
        compare = _token_f1 if metric.name == "f1" else _exact_match
        values[metric.name] = max(compare(metric, answer, reference) for reference in item.references)
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
    found = []
    for metric in task.metrics:
        values = [result.values[metric.name] for result in results]
        if metric.name == "perplexity":
            interval = bootstrap_mean(values)
            found.append(
                TaskScore(
                    "perplexity",
                    math.exp(-sum(values) / len(values)),
                    Interval(math.exp(-interval.high), math.exp(-interval.low)),
                )
            )
        elif metric.name == "f1_macro":
            pairs = [(int(result.expected), int(result.answer)) for result in results]
            found.append(TaskScore("f1_macro", macro_f1(pairs), None))
        elif metric.name == "f1":
            found.append(TaskScore("f1", sum(values) / len(values), bootstrap_mean(values)))
        else:
            right = sum(values)
            found.append(TaskScore(metric.name, right / len(values), wilson_interval(right, len(values))))
    return found


def macro_f1(pairs: Sequence[tuple[int, int]]) -> float:
    """The mean F1 over the labels that occur. pairs: (right label, chosen label)."""
    labels = sorted({label for pair in pairs for label in pair})
    scores = []
    for label in labels:
        hits = sum(right == chosen == label for right, chosen in pairs)
        named = sum(right == label for right, _ in pairs) + sum(chosen == label for _, chosen in pairs)
        scores.append(2 * hits / named)
    return sum(scores) / len(scores)


def _exact_match(metric: Metric, answer: str, reference: str) -> float:
    return float(_normalised(metric, answer) == _normalised(metric, reference))


def _normalised(metric: Metric, text: str) -> str:
    for pattern in metric.regexes_to_ignore:
        text = re.sub(pattern, "", text)
    if metric.ignore_case:
        text = text.lower()
    if metric.ignore_punctuation:
        text = text.translate(str.maketrans("", "", string.punctuation))
    return text


def _token_f1(metric: Metric, answer: str, reference: str) -> float:
    """The overlap of words of SQuAD (Rajpurkar et al. 2016), words as they are written."""
    found = _normalised(metric, answer).split()
    wanted = _normalised(metric, reference).split()
    common = sum((Counter(found) & Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted)) if common else 0.0
