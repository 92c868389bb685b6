"""Task files: YAML in the form of lm-evaluation-harness, checked when it is read.

The keys are those of the harness's task guide (EleutherAI/lm-evaluation-harness 0.4.13, task_guide.md),
so that the same file loads there with `--include_path`. Only what can be carried out exactly as the harness
does it is accepted; anything else is refused by name, never ignored. What the harness ignores (licence,
chance, published scores) stands below `metadata`.

A file may `include` others. Its `!function` names only functions of `definitions/harness.py`, which the
harness imports and which are carried out here without importing anything: a task file runs no code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.eval.tasks.task import (
    FILTERS,
    METRICS,
    DatasetSpec,
    Filter,
    Metric,
    OutputType,
    Task,
    TaskFacts,
)

T = TypeVar("T")


class FunctionName(str):
    """What a `!function` of a task file names: `MODULE.FUNCTION`."""

    __slots__ = ()


_FIRST_WORD = FunctionName("harness.first_word")
_MACRO_F1 = FunctionName("harness.macro_f1")
_SQUAD = FunctionName("harness.squad")


def read_task(path: Path) -> Task:
    """Read and check a task file.

    Raises E_NOT_FOUND, E_PERMISSION, E_DEPENDENCY, or E_TASK, which names the key that is missing or wrong.
    """
    return _task(path, _load(path, ()))


def _load(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    """Keys and values of a file, over those of the files that it includes."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads `!function` as a name."""

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> FunctionName:
        assert isinstance(node, yaml.ScalarNode)
        return FunctionName(loader.construct_scalar(node))

    Loader.add_constructor("!function", function)
    try:
        with os_errors(path):
            text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise _fault(path, "o arquivo não está em UTF-8.") from error
    try:
        values = yaml.load(text, Loader)
    except (yaml.YAMLError, AssertionError) as error:
        reason = (str(error).splitlines() or ["!function sem nome"])[0]
        raise _fault(path, f"não é YAML válido: {reason}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise _fault(path, "o arquivo não tem chaves e valores.")
    included = values.pop("include", [])
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included]:
        base = path.parent / str(name)
        if base in (path, *including):
            raise _fault(path, f"include: {name} inclui este mesmo arquivo.")
        merged |= _load(base, (*including, path))
    return merged | values


_IGNORED = {
    "task_alias", "should_decontaminate", "doc_to_decontamination_query", "repeats", "training_split",
}  # fmt: skip
"""Keys of the harness that change nothing here: examples are only taken from `fewshot_split`."""
_UNSUPPORTED = {
    "process_docs", "use_prompt", "doc_to_image", "doc_to_audio", "custom_dataset", "gen_prefix",
    "unsafe_code", "group",
}  # fmt: skip
"""Keys of the harness that would change the score and are not carried out here."""


class _Section:
    """Takes keys from a mapping of the file one by one, each of the type that it must have."""

    def __init__(self, path: Path, values: object, name: str = "") -> None:
        self.path = path
        self.name = name
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            what = name.removesuffix(": ") or "o arquivo"
            raise _fault(path, f"{what} deve ter chaves e valores, e não {values!r:.60}.")
        self.values: dict[str, Any] = dict(values)

    def optional(self, key: str, kind: type[T]) -> T | None:
        """The value of a key; None where it is absent or null."""
        value = self.values.pop(key, None)
        if value is None:
            return None
        if isinstance(value, FunctionName):
            raise self.fault(f"a chave {key} chama {value}: tarefas não executam código aqui.")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.fault(f"a chave {key} deve ser {_KINDS[kind]}, e não {value!r:.60}.")
        return value

    def required(self, key: str, kind: type[T]) -> T:
        """The value of a key that must be there."""
        value = self.optional(key, kind)
        if value is None:
            raise self.missing(key)
        return value

    def whole(self, key: str, default: int) -> int:
        """A whole number of 0 or more."""
        value = self.optional(key, int)
        if value is not None and value < 0:
            raise self.fault(f"a chave {key} deve ser um número inteiro, e não {value}.")
        return default if value is None else value

    def texts(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        """A text or a list of texts."""
        value = self.values.get(key)
        if isinstance(value, str) and not isinstance(value, FunctionName):
            return (self.required(key, str),)
        found = self.optional(key, list)
        if found is None:
            return tuple(default)
        if not all(isinstance(part, str) for part in found):
            raise self.fault(f"a chave {key} deve ter só textos (entre aspas), e não {found!r:.60}.")
        return tuple(found)

    def section(self, key: str) -> _Section:
        """A mapping within; empty where it is absent."""
        return _Section(self.path, self.values.pop(key, None) or {}, f"{self.name}{key}: ")

    def shares(self, key: str) -> dict[str, float]:
        """A mapping of names to shares."""
        section = self.section(key)
        return {name: section.share(name) or 0.0 for name in list(section.values)}

    def share(self, key: str) -> float | None:
        """A number from 0 to 1."""
        value = self.values.pop(key, None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.fault(f"{key} deve ser uma fração de 0 a 1, e não {value!r:.60}.")
        return float(value)

    def end(self, words: str = "não é usado aqui") -> None:
        """Refuse what was not taken."""
        if self.values:
            raise self.fault(f"{', '.join(sorted(self.values))} {words}.")

    def missing(self, key: str) -> SlmError:
        """The error for a key that must be there."""
        return _fault(self.path, f"falta a chave {self.name.replace(': ', '.')}{key}.")

    def fault(self, message: str) -> SlmError:
        """The error for a value."""
        return _fault(self.path, self.name + message)


_KINDS: Mapping[type, str] = {
    str: "texto", int: "um número inteiro", bool: "true ou false", list: "uma lista", float: "um número",
}  # fmt: skip


def _task(path: Path, values: dict[str, Any]) -> Task:
    file = _Section(path, values)
    name = file.required("task", str)
    output_type = _output_type(file)
    generation, fewshot = file.section("generation_kwargs"), file.section("fewshot_config")
    delimiter = file.optional("fewshot_delimiter", str)
    delimiter = "\n\n" if delimiter is None else delimiter
    target_delimiter = file.optional("target_delimiter", str)
    validation = file.optional("validation_split", str)
    limit = generation.whole("max_gen_toks", 256)
    task = Task(
        name=name,
        file=path,
        dataset=_dataset(file),
        split=file.optional("test_split", str) or validation or "",
        output_type=output_type,
        doc_to_text=file.required("doc_to_text", str),
        doc_to_target=_target(file),
        doc_to_choice=_choice(file, output_type),
        metrics=_metrics(file, output_type),
        facts=_facts(file),
        description=file.optional("description", str) or "",
        target_delimiter=" " if target_delimiter is None else target_delimiter,
        fewshot_delimiter=delimiter,
        num_fewshot=file.whole("num_fewshot", 0),
        fewshot_split=file.optional("fewshot_split", str) or "",
        fewshot_sampler=fewshot.optional("sampler", str) or "default",
        until=generation.texts("until", [delimiter]),
        max_new_tokens=limit,
        filters=_filters(file),
        squad=_squad(file, output_type),
        tags=file.texts("tag"),
        sha256=hashlib.sha256(repr(values).encode()).hexdigest(),
    )
    if not task.split:
        raise file.missing("test_split")
    if generation.optional("do_sample", bool) or generation.values.pop("temperature", 0):
        raise generation.fault("as tarefas geram sem sorteio (do_sample: false).")
    generation.end()
    if task.fewshot_sampler not in ("default", "first_n"):
        raise fewshot.fault(f"sampler {task.fewshot_sampler} não existe aqui.")
    fewshot.end()
    if task.num_fewshot and not task.fewshot_split:
        raise file.missing("fewshot_split")
    texts = output_type is OutputType.GENERATE_UNTIL
    if texts and not task.squad and any(metric.name == "f1" for metric in task.metrics):
        raise file.fault(f"metric_list: f1 de textos pede process_results: !function {_SQUAD}.")
    for key in sorted(set(file.values) & _UNSUPPORTED):
        raise file.fault(f"a chave {key} do lm-evaluation-harness não é executada aqui.")
    for key in sorted(set(file.values) - _IGNORED):
        raise file.fault(f"a chave {key} não existe.")
    return task


def _output_type(file: _Section) -> OutputType:
    value = file.required("output_type", str)
    if value not in set(OutputType):
        raise file.fault(f"output_type: {value} não existe aqui; use {', '.join(OutputType)}.")
    return OutputType(value)


def _target(file: _Section) -> str | int:
    value = file.values.get("doc_to_target")
    if isinstance(value, int) and not isinstance(value, bool):
        return file.required("doc_to_target", int)
    return file.required("doc_to_target", str)


def _choice(file: _Section, output_type: OutputType) -> str | tuple[str, ...] | None:
    value = file.values.get("doc_to_choice")
    if value is None:
        if output_type is OutputType.MULTIPLE_CHOICE:
            raise file.missing("doc_to_choice")
        file.values.pop("doc_to_choice", None)
        return None
    if isinstance(value, dict):
        file.values["doc_to_choice"] = list(value.values())
    if isinstance(value, str):
        return file.required("doc_to_choice", str)
    return file.texts("doc_to_choice")


def _dataset(file: _Section) -> DatasetSpec:
    kwargs = file.section("dataset_kwargs")
    path = file.required("dataset_path", str)
    name = file.optional("dataset_name", str) or ""
    if isinstance(kwargs.values.get("data_files"), str):
        files = {"train": kwargs.required("data_files", str)}  # as `datasets` names the split of one file
    else:
        section = kwargs.section("data_files")
        files = {split: section.required(split, str) for split in list(section.values)}
    if path in ("json", "csv", "parquet") and not files:
        raise file.missing("dataset_kwargs.data_files")
    revision = kwargs.optional("revision", str) or ""
    kwargs.optional("trust_remote_code", bool)
    kwargs.end()
    return DatasetSpec(path, name, files, revision)


def _metrics(file: _Section, output_type: OutputType) -> tuple[Metric, ...]:
    entries = file.optional("metric_list", list)
    if not entries:
        raise file.missing("metric_list")
    found = []
    for values in entries:
        entry = _Section(file.path, values, "metric_list: ")
        name = entry.values.pop("metric", None)
        if name not in METRICS[output_type]:
            raise entry.fault(
                f"{name!r} não serve para {output_type}; use {', '.join(METRICS[output_type])}."
            )
        entry.values.pop("higher_is_better", None)
        aggregation = entry.values.pop("aggregation", "mean")
        macro = name == "f1" and output_type is OutputType.MULTIPLE_CHOICE
        wanted = _MACRO_F1 if macro else "perplexity" if name == "perplexity" else "mean"
        if aggregation != wanted or isinstance(aggregation, FunctionName) != macro:
            raise entry.fault(f"{name} aqui tem aggregation: {'!function ' if macro else ''}{wanted}.")
        options = Metric(name)
        if name == "exact_match":
            options = Metric(
                name,
                ignore_case=entry.optional("ignore_case", bool) or False,
                ignore_punctuation=entry.optional("ignore_punctuation", bool) or False,
                regexes_to_ignore=_regexes(entry, entry.texts("regexes_to_ignore")),
            )
        entry.name += f"{name} não tem a opção "
        entry.end("")
        found.append(options)
    return tuple(found)


def _filters(file: _Section) -> tuple[Filter, ...]:
    pipelines = file.optional("filter_list", list) or []
    if len(pipelines) > 1:
        raise file.fault("filter_list: só uma sequência de filtros por tarefa.")
    if not pipelines:
        return ()
    pipeline = _Section(file.path, pipelines[0], "filter_list: ")
    steps = pipeline.optional("filter", list) or []
    if not steps or steps[-1] != {"function": "take_first"}:
        raise pipeline.fault("o último filtro deve ser take_first.")
    found = []
    for values in steps[:-1]:
        step = _Section(file.path, values, "filter_list: ")
        function = step.values.pop("function", None)
        if function == "custom" and step.values == {"filter_fn": _FIRST_WORD}:
            found.append(Filter("first_word"))
            continue
        if function == "first_word" or function not in FILTERS:
            raise step.fault(f"{function!r} não existe aqui; use {_FILTER_WORDS}.")
        made = Filter(function)
        if function == "regex":
            (pattern,) = _regexes(step, [step.required("regex_pattern", str)])
            group, fallback = step.optional("group_select", int), step.optional("fallback", str)
            made = Filter(function, pattern, group or 0, made.fallback if fallback is None else fallback)
        step.end(f"não é opção de {function}")
        found.append(made)
    return tuple(found)


def _regexes(section: _Section, patterns: Sequence[str]) -> tuple[str, ...]:
    """The same, each a regular expression."""
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise section.fault(f"{pattern!r} não é uma expressão regular: {error}.") from error
    return tuple(patterns)


def _squad(file: _Section, output_type: OutputType) -> bool:
    function = file.values.pop("process_results", None)
    texts = output_type is OutputType.GENERATE_UNTIL
    if function is not None and not (texts and function == _SQUAD):
        raise file.fault(f"process_results: {function} não é executado aqui; só !function {_SQUAD}.")
    return function is not None


def _facts(file: _Section) -> TaskFacts:
    metadata = file.section("metadata")
    version = metadata.values.pop("version", None)
    if version is None:
        raise metadata.missing("version")
    facts = TaskFacts(
        version=str(version),
        licence=metadata.required("licence", str),
        source=metadata.required("source", str),
        title=metadata.optional("title", str) or "",
        protocol=metadata.optional("protocol", str) or "",
        items=metadata.whole("items", 0) or None,
        chance=metadata.share("chance"),
        constant=metadata.shares("constant"),
        meaningful_from=metadata.whole("meaningful_from", 0),
        published=metadata.shares("published"),
        non_commercial=metadata.optional("non_commercial", bool) or False,
    )
    metadata.end("não existe")
    return facts


_FILTER_WORDS = f"regex, remove_whitespace, lowercase, custom com filter_fn: !function {_FIRST_WORD}"


def _fault(path: Path, message: str) -> SlmError:
    return SlmError("E_TASK", message, where=path, hint="Compare com um dos exemplos:  ptbr-slm eval --list")
