"""The texts of evaluation sets in files: every string of a JSONL line, every line of a text, every sentence.

No schema is asked for: a question, its choices, its context and its answer are items of their own, and what
is too short to be recognised (identifiers, letters of answers) is left out where items are compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.text import BOM

FORMATS = (".jsonl", ".json", ".txt", ".conllu")
_SENTENCE = "# text = "
"""What begins the line of a sentence in CoNLL-U (universaldependencies.org/format.html)."""


@dataclass(frozen=True, slots=True)
class EvaluationItem:
    """A text that must not be trained on."""

    source: str
    """The set and the line: `enem.jsonl:17`."""
    text: str


def read_evaluation_set(path: Path) -> Iterator[EvaluationItem]:
    """The items of a file, in order.

    Raises E_NOT_FOUND, E_PERMISSION, or E_DATA_FORMAT for another format, a line that is not JSON, and what
    is not UTF-8: an evaluation set that is read in part protects nothing.
    """
    if path.suffix.lower() not in FORMATS:
        raise SlmError(
            "E_DATA_FORMAT",
            f"não sei ler arquivos {path.suffix or 'sem extensão'} como conjunto de avaliação.",
            where=path,
            hint=f"Use {', '.join(FORMATS)}.",
        )
    with os_errors(path):
        data = path.read_bytes().removeprefix(BOM)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SlmError(
            "E_DATA_FORMAT",
            "o conjunto de avaliação não está em UTF-8.",
            where=path,
            hint="Converta com:  iconv -f latin1 -t utf-8 ANTIGO > NOVO",
        ) from error
    if path.suffix.lower() == ".json":
        for found in _strings(_parsed(text, str(path))):
            yield EvaluationItem(str(path), found)
        return
    for number, line in enumerate(text.split("\n"), 1):
        source = f"{path}:{number}"
        if path.suffix.lower() == ".jsonl":
            if line.strip():
                for found in _strings(_parsed(line, source)):
                    yield EvaluationItem(source, found)
        elif path.suffix.lower() == ".txt":
            yield EvaluationItem(source, line.strip())
        elif line.startswith(_SENTENCE):
            yield EvaluationItem(source, line.removeprefix(_SENTENCE).strip())


def _parsed(text: str, source: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SlmError(
            "E_DATA_FORMAT",
            "o conjunto de avaliação tem uma linha que não é JSON.",
            where=source,
            hint="Corrija ou apague a linha: um conjunto lido pela metade não protege a avaliação.",
        ) from error


def _strings(value: object) -> Iterator[str]:
    """Every string inside a JSON value, in order; the keys of objects are left out."""
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, str):
            yield current
        elif isinstance(current, list):
            pending += reversed(current)
        elif isinstance(current, dict):
            pending += reversed(current.values())
