"""`ptbr-slm plan`: what so many hours on a machine give, session by session, before anything is spent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.config import DEFAULT_VOCAB_SIZE, SIZES
from ptbr_slm.errors import SlmError
from ptbr_slm.text import parse_duration

if TYPE_CHECKING:
    from ptbr_slm.train.planning.hardware import Hardware
    from ptbr_slm.train.planning.week import Budget

KAGGLE_DATA, KAGGLE_RUNS = Path("/kaggle/input/datasets/SEU_USUARIO/dados"), Path("/kaggle/working/runs")


def register(app: typer.Typer) -> None:
    """Add `plan` to the application."""
    command(
        app,
        "plan",
        examples={
            "ptbr-slm plan --hours 30 --gpu t4x2": "Uma semana de Kaggle: que tamanho treinar",
            "ptbr-slm plan --hours 30 --model-size 85m -o plano": "O plano do 85m, com os arquivos",
        },
    )(plan)


def plan(
    out: Output,
    hours: Annotated[float, typer.Option("--hours", metavar="H", help="Horas de máquina, ao todo.")],
    gpu: Annotated[
        str,
        typer.Option(
            "--gpu", metavar="MÁQUINA", help="t4x2 (Kaggle), t4, l4, a100, ou cpu: este computador."
        ),
    ] = "t4x2",
    model_size: Annotated[
        str | None,
        typer.Option(
            "--model-size", metavar="TAMANHO", help=f"{', '.join(SIZES)}; sem isto, o plano recomenda."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DADOS", help="Pasta de ptbr-slm data prepare, se já há uma."),
    ] = None,
    cooldown_data: Annotated[
        Path | None,
        typer.Option("--cooldown-data", metavar="DADOS", help="Texto melhor, para o resfriamento no fim."),
    ] = None,
    sessions: Annotated[
        str, typer.Option("--sessions", metavar="11h30m", help="Quanto dura cada sessão, no máximo.")
    ] = "11h30m",
    seq_len: Annotated[
        int | None,
        typer.Option(
            "--seq-len", min=1, help="Tokens por sequência; padrão: 1024 em GPU, 256 no processador."
        ),
    ] = None,
    tokens_per_step: Annotated[
        int | None, typer.Option("--tokens-per-step", min=1, help="Tokens por passo; padrão: pelo tamanho.")
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option(
            "--measured",
            metavar="ARQUIVO",
            help="Velocidade medida: bench-train.json, gpu.json, ou a pasta de um treino deste tamanho.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PASTA", help="Grava o plano, a configuração e os comandos."),
    ] = None,
) -> Report:
    """Planeja um treino em sessões, com a conta, antes de gastar.

    Diz passos, tokens, taxas, disco e comandos. Tudo é calculado; nada é treinado.
    """
    from ptbr_slm.cli.week_text import comparison_text, plan_data, plan_text
    from ptbr_slm.train.planning.hardware import hardware
    from ptbr_slm.train.planning.week import CANDIDATES, plan_size, recommended

    machine = hardware(gpu)
    budget = _budget(hours, machine, sessions, data, seq_len, tokens_per_step, measured)
    budget = replace(budget, cooldown_data=cooldown_data)
    compared = [] if model_size else [plan_size(budget, size) for size in CANDIDATES[machine.machine.kind]]
    chosen = plan_size(budget, model_size) if model_size else recommended(compared)
    text = plan_text(chosen)
    if compared:
        text = f"{comparison_text(compared, chosen)}\n\n{text}"
    body = plan_data(chosen, compared)
    if output is not None:
        from ptbr_slm.cli.week_files import write_files

        written = write_files(chosen, text, body, output)
        text = f"{text}\n\nGravado em {output}: {', '.join(file.name for file in written)}."
    return Report(body, text, brief=chosen.size)


def _budget(
    hours: float,
    machine: Hardware,
    sessions: str,
    data: Path | None,
    seq_len: int | None,
    tokens_per_step: int | None,
    measured: Path | None,
) -> Budget:
    """What was asked for, checked. Raises E_CONFIG, and what opening data and measurements raises."""
    from ptbr_slm.train.planning.measured import read_measured
    from ptbr_slm.train.planning.week import Budget

    if not 0 < hours < 10_000:
        message = f"as horas vão de mais de 0 a menos de 10.000, e não são {hours:g}."
        raise _refused(message, "--hours", "--hours 30")
    try:
        longest = parse_duration(sessions)
    except ValueError as error:
        raise _refused(f"{sessions!r} não é uma duração.", "--sessions", "--sessions 11h30m") from error
    vocab_size, tokens = DEFAULT_VOCAB_SIZE, None
    if data is not None:
        from ptbr_slm.data.prepared import PreparedData

        prepared = PreparedData.open(data, verify=False)
        vocab_size, tokens = prepared.vocab_size, prepared.split("train").tokens
    return Budget(
        hours=hours,
        hardware=machine,
        session_s=longest,
        vocab_size=vocab_size,
        seq_len=seq_len,
        tokens_per_step=tokens_per_step,
        train_tokens=tokens,
        measured=None if measured is None else read_measured(measured),
        data=data or (KAGGLE_DATA if machine.on_kaggle else Path("dados")),
        runs=KAGGLE_RUNS if machine.on_kaggle else Path("runs"),
    )


def _refused(message: str, where: str, example: str) -> SlmError:
    return SlmError("E_CONFIG", message, where=where, hint=f"Exemplo: {example}.")
