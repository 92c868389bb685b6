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
import json
from pathlib import Path
from typing import Any

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
    return _Reader(path, _load(path, ())).task()


def _load(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    """Keys and values of a file, over those of the files that it includes."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads `!function` as a name."""

    def function(loader: yaml.SafeLoader, node: yaml.Node) -> FunctionName:
        assert isinstance(node, yaml.ScalarNode)
        return FunctionName(loader.construct_scalar(node))

    Loader.add_constructor("!function", function)
    with os_errors(path):
        text = path.read_text(encoding="utf-8")
    try:
        values = yaml.load(text, Loader)
    except (yaml.YAMLError, AssertionError) as error:
        reason = (str(error).splitlines() or ["!function sem nome"])[0]
        raise _fault(path, f"não é YAML válido: {reason}") from error
    if not isinstance(values, dict):
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
    "task_alias", "tag", "should_decontaminate", "doc_to_decontamination_query", "repeats", "training_split",
    "validation_split",
}  # fmt: skip
"""Keys of the harness that change nothing here: examples are only taken from `fewshot_split`."""
_UNSUPPORTED = {
    "process_docs", "use_prompt", "doc_to_image", "doc_to_audio", "custom_dataset", "gen_prefix",
    "unsafe_code", "group",
}  # fmt: skip
"""Keys of the harness that would change the score and are not carried out here."""


class _Reader:
    """Takes keys from the YAML one by one; what is left over at the end is unknown."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self.values = dict(values)

    def task(self) -> Task:
        content = json.dumps(self.values, sort_keys=True, ensure_ascii=False, default=str)
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
        fewshot = self.mapping("fewshot_config")
        delimiter = self.text("fewshot_delimiter", "\n\n")
        task = Task(
            name=name,
            file=self.path,
            dataset=self._dataset(),
            split=self.text("test_split", self.values.get("validation_split")),
            output_type=output_type,
            doc_to_text=self.text("doc_to_text"),
            doc_to_target=self._target(),
            doc_to_choice=choice,
            metrics=self._metrics(output_type),
            facts=self._facts(),
            description=self.text("description", ""),
            target_delimiter=self.text("target_delimiter", " "),
            fewshot_delimiter=delimiter,
            num_fewshot=self.integer("num_fewshot", 0),
            fewshot_split=self.text("fewshot_split", ""),
            fewshot_sampler=str(fewshot.pop("sampler", "default")),
            until=self._until(generation, delimiter),
            max_new_tokens=int(generation.pop("max_gen_toks", 256)),
            filters=self._filters(),
            squad=self._squad(output_type),
            tags=self._tags(),
            sha256=hashlib.sha256(content.encode()).hexdigest(),
        )
        self._check_rest(task, generation, fewshot)
        return task

    def text(self, key: str, default: str | None = None) -> str:
        """A string; without a default the key must be there."""
        value = self.values.pop(key, None)
        if value is None:
            if default is None:
                raise self.missing(key)
            return default
        if isinstance(value, FunctionName):
            raise _fault(self.path, f"a chave {key} chama {value}: tarefas não executam código aqui.")
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
        if isinstance(value, bool | FunctionName) or not isinstance(value, str | int):
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
            options.pop("higher_is_better", None)
            aggregation = options.pop("aggregation", "mean")
            macro = name == "f1" and output_type is OutputType.MULTIPLE_CHOICE
            wanted = _MACRO_F1 if macro else "perplexity" if name == "perplexity" else "mean"
            if aggregation != wanted or isinstance(aggregation, FunctionName) != macro:
                word = f"!function {wanted}" if macro else wanted
                raise _fault(self.path, f"metric_list: {name} aqui tem aggregation: {word}.")
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
        steps = [dict(step) for step in pipelines[0].get("filter", [])] if pipelines else []
        if steps and steps.pop() != {"function": "take_first"}:
            raise _fault(self.path, "filter_list: o último filtro deve ser take_first.")
        found = []
        for options in steps:
            function = options.pop("function", "")
            if function == "custom" and options == {"filter_fn": _FIRST_WORD}:
                function, options = "first_word", {}
            elif function == "first_word" or function not in FILTERS:
                raise _fault(self.path, f"filter_list: {function!r} não existe aqui; use {_FILTER_WORDS}.")
            try:
                found.append(Filter(function, **options))
            except TypeError as error:
                raise _fault(self.path, f"filter_list: {function} não tem {', '.join(options)}.") from error
        return tuple(found)

    def _squad(self, output_type: OutputType) -> bool:
        function = self.values.pop("process_results", None)
        if function is None:
            return False
        if function != _SQUAD or output_type is not OutputType.GENERATE_UNTIL:
            raise _fault(
                self.path, f"process_results: {function} não é executado aqui; só !function {_SQUAD}."
            )
        return True

    def _until(self, generation: dict[str, Any], delimiter: str) -> tuple[str, ...]:
        until = generation.pop("until", [delimiter])
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
        shares = [*(values.get("published") or {}).items(), *(values.get("constant") or {}).items()]
        for key, share in [("chance", values.get("chance")), *shares]:
            if share is not None and not (isinstance(share, int | float) and 0 <= share <= 1):
                raise _fault(self.path, f"metadata: {key} deve ser uma fração de 0 a 1, e não {share!r}.")
        try:
            return TaskFacts(**values)
        except TypeError as error:
            unknown = ", ".join(sorted(set(values) - set(TaskFacts.__slots__)))
            raise _fault(self.path, f"metadata: {unknown} não existe.") from error

    def _check_rest(self, task: Task, generation: dict[str, Any], fewshot: dict[str, Any]) -> None:
        if generation.pop("do_sample", False) or generation.pop("temperature", 0):
            raise _fault(self.path, "generation_kwargs: as tarefas geram sem sorteio (do_sample: false).")
        if generation:
            raise _fault(self.path, f"generation_kwargs: {', '.join(generation)} não é usado aqui.")
        if task.fewshot_sampler not in ("default", "first_n"):
            raise _fault(self.path, f"fewshot_config: sampler {task.fewshot_sampler} não existe aqui.")
        if task.num_fewshot and not task.fewshot_split:
            raise self.missing("fewshot_split")
        if fewshot:
            raise _fault(self.path, f"fewshot_config: {', '.join(fewshot)} não é usado aqui.")
        needs_squad = task.output_type is OutputType.GENERATE_UNTIL and "f1" in [
            metric.name for metric in task.metrics
        ]
        if needs_squad and not task.squad:
            raise _fault(self.path, f"metric_list: f1 de textos pede process_results: !function {_SQUAD}.")
        for key in set(self.values) & _UNSUPPORTED:
            raise _fault(self.path, f"a chave {key} do lm-evaluation-harness não é executada aqui.")
        for key in sorted(set(self.values) - _IGNORED):
            raise _fault(self.path, f"a chave {key} não existe.")


_FILTER_WORDS = f"regex, remove_whitespace, lowercase, custom com filter_fn: !function {_FIRST_WORD}"


def _fault(path: Path, message: str) -> SlmError:
    return SlmError("E_TASK", message, where=path, hint="Compare com um dos exemplos:  ptbr-slm eval --list")
