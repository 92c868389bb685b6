"""`ptbr-slm eval compare A B`."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report, table
from ptbr_slm.demo import model_path
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number, quoted, told_apart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ptbr_slm.eval.compare import Comparison, Example, Line
    from ptbr_slm.eval.results import ModelFacts, Results

members = typer.Typer(rich_markup_mode=None)
"""What `ptbr-slm eval` has beside its own arguments."""
_WIDTH = 80
_PARTS = 8
"""Parts of a task that are listed, those that differ most."""


@command(
    members,
    "compare",
    examples={"ptbr-slm eval compare avaliacao/meu avaliacao/outro": "Dois modelos já avaliados"},
)
def compare(
    out: Output,
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="Resultados de um modelo (ptbr-slm eval), ou o modelo já avaliado."),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Os do outro, medido com as mesmas opções.")],
    every_part: Annotated[
        bool,
        typer.Option("--all", help="Mostra todos os fenômenos, e exemplos também do que pode ser acaso."),
    ] = False,
) -> Report:
    """Diz qual de dois modelos é melhor, e o que pode ser acaso."""
    from ptbr_slm.eval.compare import compare as compared

    found = compared(_results_of(a), _results_of(b))
    return Report(_as_dict(found), "\n".join(_lines(found, every_part)), _verdict(found))


def default_folder(model: str) -> Path:
    """Where the results of a model of this name are written: `avaliacao/meu` for `meu/final`."""
    name = re.sub(r"/final$", "", model)
    return Path("avaliacao", re.sub(r"[^\w.-]+", "-", name).strip("-.") or "modelo")


def model_of(target: str) -> str:
    """The model of a run's folder or the one that comes with the package, or what was given."""
    path = model_path(target)
    final = path / "final"
    if not (path / "config.json").exists() and (final / "config.json").exists():
        return str(final)
    return target if path == Path(target) else str(path)


def _results_of(target: str) -> Results:
    """The results in a folder or file, or those of a model that was evaluated from here.

    Raises as `read_results_or_vector` and `open_subject`; E_NOT_FOUND where the model was not evaluated,
    E_COMPARE where it has changed since.
    """
    from ptbr_slm.eval.server_subject import is_url, open_subject
    from ptbr_slm.eval.vectors import read_results_or_vector

    model = model_of(target)
    if not is_url(model) and not (Path(model) / "config.json").is_file():
        return read_results_or_vector(Path(target))
    with open_subject(model) as subject:
        name, identity = subject.name, subject.identity
    folder = default_folder(name)
    again = f"Avalie o modelo antes:  ptbr-slm eval {quoted(target)}"
    if not folder.is_dir():
        raise SlmError("E_NOT_FOUND", "este modelo ainda não foi avaliado aqui.", where=folder, hint=again)
    results = read_results_or_vector(folder)
    if results.model.identity != identity:
        raise SlmError(
            "E_COMPARE",
            "os resultados são de outro modelo, ou de antes de uma mudança.",
            where=folder,
            hint=again,
        )
    return results


def _as_dict(found: Comparison) -> dict[str, Any]:
    return {
        "a": dataclasses.asdict(found.a),
        "b": dataclasses.asdict(found.b),
        "lines": [_line_dict(line) for line in found.lines],
        "not_compared": [dataclasses.asdict(one) for one in found.not_compared],
    }


def _line_dict(line: Line) -> dict[str, Any]:
    interval = line.paired.interval
    return {
        "name": line.name,
        "title": line.title,
        "metric": line.metric,
        "a": line.a,
        "b": line.b,
        "difference": line.paired.difference,
        "interval": [interval.low, interval.high],
        "p": line.paired.p_value,
        "p_holm": line.p_adjusted,
        "better": line.better,
        **dataclasses.asdict(line.pairing),
        "notes": list(line.notes),
        "parts": [_line_dict(part) for part in line.parts],
        "a_better": [dataclasses.asdict(example) for example in line.a_better],
        "b_better": [dataclasses.asdict(example) for example in line.b_better],
    }


def _lines(found: Comparison, every_part: bool) -> Iterator[str]:
    yield f"A  {_model(found.a)}"
    yield f"B  {_model(found.b)}"
    yield ""
    yield _wrapped(_verdict(found))
    if found.a.identity == found.b.identity:
        yield _wrapped("A e B são o mesmo modelo.")
    yield ""
    yield _table(found.lines)
    yield ""
    for line in found.lines:
        if line.parts:
            yield from _part_lines(line, every_part)
        if every_part or line.better is not None:
            yield from _example_lines(line)
    notes = [f"{line.title}: {note}." for line in found.lines for note in line.notes]
    notes += [f"Não comparado: {one.name} ({one.reason})." for one in found.not_compared]
    family = len(found.lines)
    notes.append(
        "p: com que frequência dois modelos iguais difeririam tanto, pelos mesmos itens"
        + (f"; corrigido para {family} testes (Holm), e os fenômenos entre si." if family > 1 else ".")
        + " «acaso?»: 0,05 ou mais."
    )
    notes.append(
        "Vale para estes dois modelos: a mesma receita com outra semente dá outro modelo, e diferenças "
        "pequenas entre receitas pedem mais de um treino de cada."
    )
    yield from map(_wrapped, notes)


_HEADER = ["", "A", "B", "B - A", "intervalo 95 %", "p", "pares", "melhor"]


def _table(lines: Sequence[Line]) -> str:
    """The lines, with titles cut so that they fit the width."""
    rows = [_row(line) for line in lines]
    over = max(map(len, table(rows, header=_HEADER).splitlines())) - _WIDTH
    room = max(len(row[0]) for row in rows) - over
    for row in rows:
        row[0] = row[0] if len(row[0]) <= room else f"{row[0][: room - 1]}…"
    return table(rows, header=_HEADER)


def _row(line: Line) -> list[str]:
    shown = _Scale(line.metric)
    interval = line.paired.interval
    title = f"{line.title}, bits/byte" if shown.bits else line.title
    return [
        title,
        shown.score(line.a),
        shown.score(line.b),
        shown.difference(line.paired.difference),
        f"{shown.difference(interval.low)} a {shown.difference(interval.high)}",
        _p(line.p_adjusted),
        number(line.pairing.pairs),
        line.better or "acaso?",
    ]


class _Scale:
    """How the values of a metric are shown."""

    def __init__(self, metric: str) -> None:
        self.bits = metric == "bits_per_byte"
        self._share = not self.bits and metric != "perplexity"
        self.unit = " bits por byte" if self.bits else " %" if self._share else " nats"
        self._decimals = 1 if self._share else 3

    def score(self, value: float) -> str:
        return number(100 * value if self._share else value, self._decimals)

    def told_apart(self, one: float, other: float) -> tuple[str, str]:
        """Two scores that differ, so that one sees it."""
        factor = 100 if self._share else 1
        return told_apart(factor * one, factor * other, self._decimals)

    def difference(self, value: float) -> str:
        shown = self.score(value)
        return shown if shown.startswith("-") else f"+{shown}"


def _p(value: float) -> str:
    return "<0,001" if value < 0.001 else number(value, 3)


def _part_lines(line: Line, every_part: bool) -> Iterator[str]:
    parts = sorted(line.parts, key=lambda part: (part.paired.p_value, part.name))
    shown = parts if every_part else parts[:_PARTS]
    more = "" if len(shown) == len(parts) else f", os {len(shown)} de {len(parts)} que mais diferem (--all)"
    yield f"{line.title}, por fenômeno{more}:"
    yield _table(shown)
    yield ""


def _example_lines(line: Line) -> Iterator[str]:
    if not line.a_better and not line.b_better:
        return
    yield f"Onde mais diferem, em {line.title}:"
    for side, examples in (("A", line.a_better), ("B", line.b_better)):
        for example in examples:
            yield from _example(side, example)
    yield ""


def _example(side: str, example: Example) -> Iterator[str]:
    text = " ".join(f"{example.id}: {example.text}".removesuffix(": ").split())
    yield textwrap.fill(
        textwrap.shorten(text, 2 * _WIDTH, placeholder="…"),
        _WIDTH,
        initial_indent=f"  {side} melhor  ",
        subsequent_indent="    ",
    )
    shown = [
        textwrap.shorten(" ".join(answer.split()), 30, placeholder="…") for answer in (example.a, example.b)
    ]
    yield f"    A: {shown[0]}   B: {shown[1]}"


def _verdict(found: Comparison) -> str:
    """Which is better, in plain words."""
    noise = _list([line.title for line in found.lines if line.better is None])
    sentences = []
    for side in "AB":
        won = [_won(line) for line in found.lines if line.better == side]
        if won:
            sentences.append(f"{side} é melhor em {_list(won)}.")
    if not sentences:
        return f"Não se pode dizer qual é melhor: a diferença em {noise} pode ser acaso."
    return " ".join([*sentences, *([f"A diferença em {noise} pode ser acaso."] if noise else [])])


def _won(line: Line) -> str:
    """`Gramática (64,4 % contra 61,2 %)`: the better one's score first."""
    shown = _Scale(line.metric)
    scores = (line.a, line.b) if line.better == "A" else (line.b, line.a)
    better, other = shown.told_apart(*scores)
    return f"{line.title} ({better} contra {other}{shown.unit})"


def _list(names: Sequence[str]) -> str:
    return " e ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _model(facts: ModelFacts) -> str:
    size = "" if facts.parameters is None else f"  ({number(facts.parameters / 1e6, 1)} M de parâmetros)"
    return facts.name + size


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False)
