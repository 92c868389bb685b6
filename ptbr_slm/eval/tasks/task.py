"""`Task`: what a model is asked and how its answers are judged, as a task file says it (`task_file`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class OutputType(StrEnum):
    """What is asked of the model."""

    MULTIPLE_CHOICE = "multiple_choice"
    """Each choice is scored after the prompt."""
    LOGLIKELIHOOD = "loglikelihood"
    """The target is scored after the prompt."""
    GENERATE_UNTIL = "generate_until"
    """The model continues the prompt greedily."""


METRICS: Mapping[OutputType, tuple[str, ...]] = {
    OutputType.MULTIPLE_CHOICE: ("acc", "acc_norm", "acc_bytes", "f1"),
    OutputType.LOGLIKELIHOOD: ("acc", "perplexity"),
    OutputType.GENERATE_UNTIL: ("exact_match", "f1"),
}
"""What each kind of answer can be judged by (`ptbr_slm.eval.tasks.metrics`)."""
FILTERS = ("regex", "remove_whitespace", "lowercase", "first_word")


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Where the items lie."""

    path: str
    """A repository of the hub (`OWNER/NAME`), or the format of `data_files`: json, csv or parquet."""
    name: str = ""
    """The configuration of a hub repository."""
    data_files: Mapping[str, str] = field(default_factory=dict)
    """split -> file, for a local dataset."""
    revision: str = ""
    """Of a hub repository; empty: its main branch."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One way to judge the answers."""

    name: str
    """One of `METRICS`. Of choices, `f1` is the mean over the labels; of texts, the overlap of words."""
    ignore_case: bool = False
    ignore_punctuation: bool = False
    regexes_to_ignore: tuple[str, ...] = ()
    """Cut from answer and target before they are compared (exact_match)."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One step from the generated text to the answer."""

    function: str
    """One of `FILTERS`; `take_first`, the last of every sequence, is left out."""
    regex_pattern: str = ""
    group_select: int = 0
    fallback: str = "[invalid]"


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What a reader of the score must know (`metadata` of the YAML)."""

    version: str
    licence: str
    """SPDX id or the source's own words."""
    source: str
    """Where items and protocol are published."""
    title: str = ""
    """Name for tables; the task's own name without it."""
    protocol: str = ""
    """One Portuguese sentence: how it is asked and judged."""
    items: int | None = None
    """How many are published."""
    chance: float | None = None
    """What guessing gives, as a share (0.25); None where guessing gives next to nothing."""
    constant: Mapping[str, float] = field(default_factory=dict)
    """metric -> what the best constant answer gives."""
    meaningful_from: int = 0
    """Parameters below which published models stay at chance: such scores are printed grey."""
    published: Mapping[str, float] = field(default_factory=dict)
    """model -> published score by this protocol, as a share, of the first metric that the task lists."""
    non_commercial: bool = False
    """Whether the licence forbids commercial use."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task, checked. The templates are Jinja, in a sandbox (`ptbr_slm.eval.tasks.items`)."""

    name: str
    file: Path
    dataset: DatasetSpec
    split: str
    output_type: OutputType
    doc_to_text: str
    doc_to_target: str | int
    doc_to_choice: str | tuple[str, ...] | None
    metrics: tuple[Metric, ...]
    facts: TaskFacts
    description: str = ""
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    fewshot_split: str = ""
    num_fewshot: int = 0
    fewshot_sampler: str = "default"
    """`first_n`: the first examples; `default`: drawn for each item, as the harness does by its seed."""
    until: tuple[str, ...] = ()
    max_new_tokens: int = 256
    filters: tuple[Filter, ...] = ()
    squad: bool = False
    """Whether texts are compared as SQuAD does it (`harness.squad`)."""
    tags: tuple[str, ...] = ()
    sha256: str = ""
    """Of the file's keys and values, those that it includes with them."""
