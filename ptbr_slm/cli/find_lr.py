"""`ptbr-slm find-lr`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report, table
from ptbr_slm.cli.training_options import settings_of, with_flags
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number

if TYPE_CHECKING:
    from ptbr_slm.train.config import TrainConfig
    from ptbr_slm.train.find_lr import RangeTest

BARS = "▁▂▃▄▅▆▇█"


def register(app: typer.Typer) -> None:
    """Add `find-lr` to the application: the flags of `train`, and its own."""
    unused = ("--dry-run", "--cooldown-data", "--eval-tasks", "--eval-tasks-seconds", "--task-data")
    examples = {
        "ptbr-slm find-lr --data dados --model-size mini --steps 50": "A taxa para treinar um modelo mini",
        "ptbr-slm find-lr --tune runs/meu/final --data conversas.jsonl": "A taxa para ajustar um modelo",
    }
    command(app, "find-lr", examples=examples)(with_flags(find_lr, leave_out=unused))


def find_lr(
    out: Output,
    steps: Annotated[int, typer.Option("--steps", min=10, help="Passos do teste.")] = 100,
    min_rate: Annotated[float, typer.Option("--min-rate", help="Taxa do primeiro passo.")] = 1e-5,
    max_rate: Annotated[float, typer.Option("--max-rate", help="Taxa do último passo.")] = 1.0,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="ARQUIVO.svg", help="Grava a curva neste arquivo.")
    ] = None,
    tune: Annotated[
        Path | None,
        typer.Option(
            "--tune",
            metavar="MODELO",
            help="A taxa para ajustar este modelo (ptbr-slm tune): --data são conversas; opções de tune vão "
            "em --set, como --set tune.method=lora.",
        ),
    ] = None,
    **given: Any,
) -> Report:
    """Procura a taxa de aprendizado com um treino curto.

    A taxa cresce a cada passo, até a perda subir. Aceita as opções de train: dê o mesmo modelo, os mesmos
    dados e o mesmo otimizador. Não grava nada, a não ser --svg.
    """
    from ptbr_slm.cli.train import spec_of
    from ptbr_slm.train.find_lr import find_lr as search
    from ptbr_slm.train.find_lr import plot

    if not 0 < min_rate < max_rate:
        raise SlmError(
            "E_USAGE",
            f"a taxa precisa crescer, e {min_rate:g} não é menor que {max_rate:g}.",
            where="--min-rate",
            hint="Exemplo: --min-rate 1e-5 --max-rate 1",
        )
    if svg is not None:
        from ptbr_slm.storage.output import require_replaceable

        require_replaceable(svg, lambda content: b"<svg" in content[:1000], "um SVG")
    given = {**given, "output": given.get("output") or Path("-")}
    settings = settings_of(given) if tune is None else _tune_settings(tune, given)
    with out.progress("procurando a taxa", total=1.0) as bar:
        found = search(
            settings,
            steps=steps,
            lowest=min_rate,
            highest=max_rate,
            progress=bar.update,
            spec=spec_of(settings),
        )
    if svg is not None:
        from ptbr_slm.storage.atomic import write_text

        write_text(svg, plot(found))
    return _report(found, svg)


def _tune_settings(model: Path, given: dict[str, Any]) -> TrainConfig:
    from ptbr_slm.cli.tune import settings_of as settings_of_tuning

    return settings_of_tuning(model, given)


def _report(found: RangeTest, svg: Path | None) -> Report:
    data = {
        "learning_rate": found.suggestion,
        "lowest_loss_rate": found.lowest.rate,
        "lowest_loss": found.lowest.smoothed,
        "diverged": found.diverged,
        "optimizer": found.optimizer,
        "parameters": found.parameters,
        "tokens_per_step": found.tokens_per_step,
        "points": [
            {"learning_rate": point.rate, "loss": point.loss, "smoothed": point.smoothed}
            for point in found.points
        ],
    }
    shown = found.points[:: max(1, len(found.points) // 10)]
    rows = [(f"{point.rate:.1e}".replace(".", ","), number(point.smoothed, 3)) for point in shown]
    lowest = f"{found.lowest.rate:.1e}".replace(".", ",")
    lines = [
        table(rows, header=("taxa", "perda suavizada")),
        f"\n{_sparkline([point.smoothed for point in found.points])}",
        f"A perda foi menor na taxa {lowest}" + (", e depois subiu." if found.diverged else "."),
        f"Sugestão para o máximo: um décimo dela, --learning-rate {found.suggestion:.1e} ({found.optimizer}, "
        f"{number(found.parameters)} parâmetros, {number(found.tokens_per_step)} tokens por passo).",
    ]
    if not found.diverged and found.lowest is found.points[-1]:
        lines.append("A perda ainda caía no fim do teste: repita com um --max-rate maior.")
    if svg is not None:
        lines.append(f"Curva: {svg}")
    return Report(data, "\n".join(lines), brief=f"{found.suggestion:.1e}")


def _sparkline(values: list[float], width: int = 60) -> str:
    """The values as bars, at most `width` of them."""
    shown = values[:: -(-len(values) // width)]
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / ((high - low) or 1.0)
    return "".join(BARS[round((value - low) * scale)] for value in shown)
