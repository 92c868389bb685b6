"""From a row of a dataset to an `Item`: what the model is asked, and what is right.

Prompts are put together as lm-evaluation-harness 0.4.13 does it (`ConfigurableTask.fewshot_context`,
`construct_requests` in lm_eval/api/task.py), so that both ask the same, byte for byte.
"""

from __future__ import annotations

import ast
import hashlib
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ptbr_slm.errors import SlmError
from ptbr_slm.eval.tasks.task import OutputType, Task

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a task."""

    id: str
    """The row's own id where it has one, else its number."""
    sha256: str
    """Of prompt, choices and answers: two results of the same id and sha256 are of the same question."""
    prompt: str
    choices: tuple[str, ...] = ()
    """Texts to score after the prompt: the choices, or the one target of `loglikelihood`."""
    labels: tuple[str, ...] = ()
    """The choices without the delimiter; `acc_norm` divides by their length."""
    answers: tuple[int, ...] = ()
    """Which choices are right."""
    references: tuple[str, ...] = ()
    """Which generated answers are right."""


def task_items(
    task: Task,
    rows: Sequence[Row],
    fewshot_rows: Sequence[Row] = (),
    numbers: Sequence[int] | None = None,
) -> Iterator[Item]:
    """The items of a task, in the rows' order, or those of the rows with these numbers, from 0.

    Raises E_TASK with the row and the field, where one is missing, a choice is empty or an answer is none of
    the choices; and where there are fewer examples than the task shows.
    """
    templates = _Templates(task)
    chosen = range(len(rows)) if numbers is None else numbers
    examples = _Examples(task, rows, fewshot_rows)
    for number in chosen:
        try:
            yield _item(task, templates, number, rows[number], examples.of(number))
        except _RowFault as error:
            raise SlmError(
                "E_TASK",
                f"{task.name}, linha {number + 1}: {error}",
                where=task.dataset.data_files.get(task.split, task.dataset.path),
                hint=f"Corrija a linha, ou os campos que {task.file.name} espera.",
            ) from error


class _Examples:
    """Which rows an item shows as examples (`ContextSampler`, `FirstNSampler` in lm_eval/api/samplers.py).

    The harness draws them one item after another from a generator that it seeds with 1234
    (`fewshot_random_seed` of `simple_evaluate`), so those of an item depend on the items before it. An item
    is never an example of itself.
    """

    def __init__(self, task: Task, rows: Sequence[Row], pool: Sequence[Row]) -> None:
        self._count = task.num_fewshot
        self._rows, self._pool = rows, pool
        self._shared = task.fewshot_split == task.split
        self._draws = task.fewshot_sampler == "default"
        self._generator = random.Random(_SEED)
        self._drawn: list[list[Row]] = []

    def of(self, number: int) -> list[Row]:
        """The examples of a row. Raises _RowFault where there are too few."""
        if not self._count:
            return []
        if not self._draws:
            return self._enough([row for row in self._pool if not self._is(row, number)][: self._count])
        while len(self._drawn) <= number:
            self._drawn.append(self._draw(len(self._drawn)))
        return self._drawn[number]

    def _draw(self, number: int) -> list[Row]:
        wanted = self._count + self._shared
        if len(self._pool) < wanted:
            return self._enough([])
        found = [self._pool[place] for place in self._generator.sample(range(len(self._pool)), wanted)]
        found = [row for row in found if not self._is(row, number)][: self._count]
        if len(found) < self._count:  # the pool holds this row more than once
            others = [row for row in self._pool if not self._is(row, number)]
            found = self._generator.sample(others, min(self._count, len(others)))
        return self._enough(found)

    def _is(self, row: Row, number: int) -> bool:
        return self._shared and row == self._rows[number]

    def _enough(self, found: list[Row]) -> list[Row]:
        if len(found) < self._count:
            raise _RowFault(f"há menos de {self._count} linhas que possam ser exemplos.")
        return found


_SEED = 1234


def _item(task: Task, templates: _Templates, number: int, row: Row, examples: Sequence[Row]) -> Item:
    prompt = templates.description(row)
    for example in examples:
        answer = _answer_text(templates, example)
        prompt += templates.text(example)
        if answer:
            prompt += task.target_delimiter + answer + task.fewshot_delimiter
    prompt += templates.text(row)
    choices: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()
    references: tuple[str, ...] = ()
    if task.output_type is OutputType.MULTIPLE_CHOICE:
        labels = templates.choices(row)
        answers = _answers(templates.target(row), labels)
        choices = tuple(task.target_delimiter + label for label in labels)
    elif task.output_type is OutputType.LOGLIKELIHOOD:
        choices = (_one_text(templates.target(row)),)
        if not choices[0]:
            raise _RowFault("o texto a avaliar (doc_to_target) está vazio.")
    else:
        target = templates.target(row)
        if isinstance(target, int) and task.doc_to_choice is not None:
            target = templates.choices(row)[_answers(target, templates.choices(row))[0]]
        references = tuple(map(str, target)) if isinstance(target, list) else (str(target),)
    content = "\x1f".join([prompt, *choices, "|".join(map(str, answers)), *references])
    own_id = row.get("id")
    return Item(
        id=str(number if own_id is None or own_id == "" else own_id),
        sha256=hashlib.sha256(content.encode()).hexdigest()[:16],
        prompt=prompt,
        choices=choices,
        labels=labels,
        answers=answers,
        references=references,
    )


class _RowFault(Exception):
    """What is wrong with a row, in Portuguese."""


class _Templates:
    """The task's three templates over a row. A template that is the name of a field is that field's value."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def description(self, row: Row) -> str:
        return _one_text(self._value("description", self.task.description, row))

    def text(self, row: Row) -> str:
        return _one_text(self._value("doc_to_text", self.task.doc_to_text, row))

    def target(self, row: Row) -> str | int | list[Any]:
        template = self.task.doc_to_target
        if isinstance(template, int):
            return template
        found = self._value("doc_to_target", template, row)
        if not isinstance(found, str) or template in row:
            return found if isinstance(found, str | int | list) else str(found)
        if found.isdigit() and self.task.doc_to_choice is not None:
            return int(found)
        return _literal(found) if found.startswith("[") and found.endswith("]") else found

    def choices(self, row: Row) -> tuple[str, ...]:
        template = self.task.doc_to_choice
        assert template is not None
        found = list(template) if isinstance(template, tuple) else self._value("doc_to_choice", template, row)
        if isinstance(found, str):
            found = _literal(found)
        if not isinstance(found, list) or len(found) < 2:
            raise _RowFault(f"doc_to_choice deve dar pelo menos duas alternativas, e deu {found!r:.80}.")
        for place, choice in enumerate(found):
            if not isinstance(choice, str) or not choice.strip():
                raise _RowFault(f"a alternativa {place + 1} está vazia ou não é texto: {choice!r:.80}.")
        return tuple(found)

    def _value(self, key: str, template: str, row: Row) -> Any:
        if template in row:
            return row[template]
        try:
            return _compiled(template)(row)
        except _undefined() as error:
            fields = ", ".join(row)
            raise _RowFault(f"{key} usa um campo que não existe ({error}); a linha tem: {fields}.") from error
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise _RowFault(f"{key} não pôde ser calculado: {error}.") from error


def _answer_text(templates: _Templates, row: Row) -> str:
    """The right answer as an example shows it."""
    target = templates.target(row)
    if isinstance(target, int) and templates.task.doc_to_choice is not None:
        return templates.choices(row)[target]
    return _one_text(target[0] if isinstance(target, list) and target else target)


def _answers(target: str | int | list[Any], labels: tuple[str, ...]) -> tuple[int, ...]:
    found = []
    for one in target if isinstance(target, list) else [target]:
        index = labels.index(one) if isinstance(one, str) and one in labels else one
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(labels):
            raise _RowFault(f"a resposta {one!r:.60} não é nenhuma das {len(labels)} alternativas.")
        found.append(index)
    if not found:
        raise _RowFault("nenhuma resposta é dada como certa.")
    return tuple(found)


def _one_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _RowFault(f"era esperado um texto, e veio {value!r:.60}.")
    return value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@lru_cache(maxsize=256)
def _compiled(template: str) -> Callable[[Row], str]:
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    class Missing(StrictUndefined):
        """A field that is not there. Within a list too it is an error, and not the text `Undefined`."""

        def __repr__(self) -> str:
            return str(self)

    environment = SandboxedEnvironment(undefined=Missing, keep_trailing_newline=True, autoescape=False)
    environment.filters["regex_replace"] = _regex_replace
    try:
        compiled = environment.from_string(template)
    except TemplateError as error:
        raise _RowFault(f"o modelo de texto {template!r:.80} não é Jinja válido: {error}.") from error
    return lambda row: compiled.render(**row)


def _regex_replace(string: str, pattern: str, repl: str, count: int = 0) -> str:
    return re.sub(pattern, repl, string, count=count)


def _undefined() -> type[Exception]:
    from jinja2 import TemplateError

    return TemplateError
