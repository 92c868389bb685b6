"""`Task`: a YAML file in the form of lm-evaluation-harness, checked when it is read.

The keys are those of the harness's task guide (EleutherAI/lm-evaluation-harness 0.4.13, task_guide.md),
so that the same file loads there with `--include_path`. Only what can be carried out exactly as the harness
does it is accepted; anything else is refused by name, never ignored. What the harness ignores (licence,
chance, published scores) stands below `metadata`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError, os_errors


class OutputType(StrEnum):
    """What is asked of the model."""

    MULTIPLE_CHOICE = "multiple_choice"
    """Each choice is scored after the prompt."""
    LOGLIKELIHOOD = "loglikelihood"
    """The target is scored after the prompt."""
    GENERATE_UNTIL = "generate_until"
    """The model continues the prompt greedily."""


METRICS: Mapping[OutputType, tuple[str, ...]] = {
    OutputType.MULTIPLE_CHOICE: ("acc", "acc_norm", "acc_bytes", "f1_macro"),
    OutputType.LOGLIKELIHOOD: ("acc", "perplexity"),
    OutputType.GENERATE_UNTIL: ("exact_match", "f1"),
}
"""What each kind of answer can be judged by (`ptbr_slm.eval.tasks.metrics`)."""
FILTERS = ("regex", "take_first", "remove_whitespace", "lowercase")


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
    ignore_case: bool = False
    ignore_punctuation: bool = False
    regexes_to_ignore: tuple[str, ...] = ()
    """Cut from answer and target before they are compared (exact_match)."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One step from the generated text to the answer."""

    function: str
    """One of `FILTERS`."""
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
    chance: float | None = None
    """What guessing gives, as a share (0.25); None where guessing gives next to nothing."""
    constant: Mapping[str, float] = field(default_factory=dict)
    """metric -> what the best constant answer gives."""
    meaningful_from: int = 0
    """Parameters below which published models stay at chance: such scores are printed grey."""
    published: Mapping[str, float] = field(default_factory=dict)
    """model -> published score, as a share, by this protocol."""
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
    until: tuple[str, ...] = ()
    max_new_tokens: int = 256
    filters: tuple[Filter, ...] = ()
    tags: tuple[str, ...] = ()


def built_in_tasks() -> dict[str, Path]:
    """Names and files of the tasks that come with the package."""
    folder = Path(str(resources.files("ptbr_slm.eval.tasks").joinpath("definitions")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_task(path: Path) -> Task:
    """Read and check a task file.

    Raises E_NOT_FOUND, E_PERMISSION, E_DEPENDENCY, or E_TASK, which names the key that is missing or wrong.
    """
    import yaml

    with os_errors(path):
        text = path.read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _fault(path, f"não é YAML válido: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise _fault(path, "o arquivo não tem chaves e valores.")
    return _Reader(path, values).task()


_IGNORED = {"task_alias", "tag", "should_decontaminate", "doc_to_decontamination_query", "repeats"}
"""Keys of the harness that change nothing here."""
_UNSUPPORTED = {
    "include", "process_docs", "process_results", "use_prompt", "doc_to_image", "doc_to_audio",
    "custom_dataset", "gen_prefix", "unsafe_code", "training_split", "validation_split", "group",
}  # fmt: skip
"""Keys of the harness that would change the score and are not carried out here."""


class _Reader:
    """Takes keys from the YAML one by one; what is left over at the end is unknown."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.values = dict(values)

    def task(self) -> Task:
        name = self.text("task")
        output_type = self._output_type()
        choice = self.values.pop("doc_to_choice", None)
        if isinstance(choice, dict):
            choice = list(choice.values())
        if isinstance(choice, list):
            choice = tuple(str(part) for part in choice)
        if output_type is OutputType.MULTIPLE_CHOICE and choice is None:
            raise self.missing("doc_to_choice")
        generation = self.mapping("generation_kwargs")
        task = Task(
            name=name,
            file=self.path,
            dataset=self._dataset(),
            split=self.text("test_split"),
            output_type=output_type,
            doc_to_text=self.text("doc_to_text"),
            doc_to_target=self._target(),
            doc_to_choice=choice,
            metrics=self._metrics(output_type),
            facts=self._facts(),
            description=self.text("description", ""),
            target_delimiter=self.text("target_delimiter", " "),
            fewshot_delimiter=self.text("fewshot_delimiter", "\n\n"),
            num_fewshot=self.integer("num_fewshot", 0),
            fewshot_split=self.text("fewshot_split", ""),
            until=self._until(generation),
            max_new_tokens=int(generation.pop("max_gen_toks", 256)),
            filters=self._filters(),
            tags=self._tags(),
        )
        self._check_rest(task, generation)
        return task

    def text(self, key: str, default: str | None = None) -> str:
        """A string; without a default the key must be there."""
        if key not in self.values:
            if default is None:
                raise self.missing(key)
            return default
        value = self.values.pop(key)
        if not isinstance(value, str):
            raise _fault(self.path, f"a chave {key} deve ser texto, e não {value!r}.")
        return value

    def integer(self, key: str, default: int) -> int:
        """A whole number of 0 or more."""
        value = self.values.pop(key, default)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _fault(self.path, f"a chave {key} deve ser um número inteiro, e não {value!r}.")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """A copy of a nested mapping; empty where the key is absent."""
        value = self.values.pop(key, None)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise _fault(self.path, f"a chave {key} deve ter chaves e valores, e não {value!r}.")
        return dict(value)

    def missing(self, key: str) -> SlmError:
        """The error for a key that must be there."""
        return _fault(self.path, f"falta a chave {key}.")

    def _output_type(self) -> OutputType:
        value = self.text("output_type")
        if value not in set(OutputType):
            raise _fault(self.path, f"output_type: {value} não existe aqui; use {', '.join(OutputType)}.")
        return OutputType(value)

    def _target(self) -> str | int:
        if "doc_to_target" not in self.values:
            raise self.missing("doc_to_target")
        value = self.values.pop("doc_to_target")
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise _fault(self.path, f"a chave doc_to_target deve ser texto ou índice, e não {value!r}.")
        return value

    def _dataset(self) -> DatasetSpec:
        kwargs = self.mapping("dataset_kwargs")
        files = kwargs.pop("data_files", {})
        path = self.text("dataset_path")
        name = self.text("dataset_name", "")
        revision = str(kwargs.pop("revision", ""))
        kwargs.pop("trust_remote_code", None)
        if kwargs:
            raise _fault(self.path, f"dataset_kwargs: {', '.join(kwargs)} não é usado aqui.")
        if isinstance(files, str):
            files = {"train": files}  # what `datasets` calls the split of a single file
        if path in ("json", "csv", "parquet") and not files:
            raise self.missing("dataset_kwargs.data_files")
        return DatasetSpec(path, name, {str(k): str(v) for k, v in files.items()}, revision)

    def _metrics(self, output_type: OutputType) -> tuple[Metric, ...]:
        entries = self.values.pop("metric_list", None)
        if not isinstance(entries, list) or not entries:
            raise self.missing("metric_list")
        found = []
        for entry in entries:
            options = dict(entry) if isinstance(entry, dict) else {}
            name = options.pop("metric", "")
            if name not in METRICS[output_type]:
                known = ", ".join(METRICS[output_type])
                raise _fault(self.path, f"metric_list: {name!r} não serve para {output_type}; use {known}.")
            options.pop("aggregation", None)
            options.pop("higher_is_better", None)
            try:
                patterns = tuple(options.pop("regexes_to_ignore", ()))
                found.append(Metric(name, regexes_to_ignore=patterns, **options))
            except TypeError as error:
                raise _fault(
                    self.path, f"metric_list: {name} não tem a opção {', '.join(options)}."
                ) from error
        return tuple(found)

    def _filters(self) -> tuple[Filter, ...]:
        pipelines = self.values.pop("filter_list", None) or []
        if len(pipelines) > 1:
            raise _fault(self.path, "filter_list: só uma sequência de filtros por tarefa.")
        found = []
        for step in pipelines[0].get("filter", []) if pipelines else []:
            options = dict(step)
            function = options.pop("function", "")
            if function not in FILTERS:
                raise _fault(
                    self.path, f"filter_list: {function!r} não existe aqui; use {', '.join(FILTERS)}."
                )
            try:
                found.append(Filter(function, **options))
            except TypeError as error:
                raise _fault(self.path, f"filter_list: {function} não tem {', '.join(options)}.") from error
        return tuple(found)

    def _until(self, generation: dict[str, Any]) -> tuple[str, ...]:
        until = generation.pop("until", ["\n\n"])
        return (until,) if isinstance(until, str) else tuple(str(part) for part in until)

    def _tags(self) -> tuple[str, ...]:
        tag = self.values.get("tag") or ()
        return (tag,) if isinstance(tag, str) else tuple(tag)

    def _facts(self) -> TaskFacts:
        values = self.mapping("metadata")
        for key in ("version", "licence", "source"):
            if key not in values:
                raise self.missing(f"metadata.{key}")
        values["version"] = str(values["version"])
        try:
            return TaskFacts(**values)
        except TypeError as error:
            unknown = ", ".join(sorted(set(values) - set(TaskFacts.__slots__)))
            raise _fault(self.path, f"metadata: {unknown} não existe.") from error

    def _check_rest(self, task: Task, generation: dict[str, Any]) -> None:
        if generation.pop("do_sample", False) or generation.pop("temperature", 0):
            raise _fault(self.path, "generation_kwargs: as tarefas geram sem sorteio (do_sample: false).")
        if generation:
            raise _fault(self.path, f"generation_kwargs: {', '.join(generation)} não é usado aqui.")
        fewshot = self.mapping("fewshot_config")
        if task.num_fewshot and fewshot.pop("sampler", "default") != "first_n":
            raise _fault(self.path, "com num_fewshot é preciso fewshot_config: {sampler: first_n}.")
        fewshot.pop("sampler", None)
        if task.num_fewshot and not task.fewshot_split:
            raise self.missing("fewshot_split")
        if fewshot:
            raise _fault(self.path, f"fewshot_config: {', '.join(fewshot)} não é usado aqui.")
        for key in set(self.values) & _UNSUPPORTED:
            raise _fault(self.path, f"a chave {key} do lm-evaluation-harness não é executada aqui.")
        for key in sorted(set(self.values) - _IGNORED):
            raise _fault(self.path, f"a chave {key} não existe.")


def _fault(path: Path, message: str) -> SlmError:
    return SlmError("E_TASK", message, where=path, hint="Compare com um dos exemplos:  ptbr-slm eval --list")


def select_tasks(names: Sequence[str], extra: Sequence[Path] = ()) -> list[Task]:
    """The tasks of these names, tags or paths, in the order asked for, each once.

    extra: folders with further task files. Raises E_TASK for a name that is none, and what `read_task` does.
    """
    files = dict(built_in_tasks())
    for folder in extra:
        files |= {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    chosen: dict[str, Task] = {}
    tagged: dict[str, list[Task]] | None = None
    for name in names:
        if name in files or name.endswith((".yaml", ".yml")):
            task = read_task(files.get(name, Path(name)))
            chosen.setdefault(task.name, task)
            continue
        if tagged is None:
            tagged = {}
            for task in map(read_task, files.values()):
                for tag in task.tags:
                    tagged.setdefault(tag, []).append(task)
        if name not in tagged:
            raise SlmError(
                "E_TASK",
                f"não existe a tarefa {name}.",
                where="--tasks",
                hint=f"As tarefas são: {', '.join(files)}. Veja:  ptbr-slm eval --list",
            )
        for task in tagged[name]:
            chosen.setdefault(task.name, task)
    return list(chosen.values())
