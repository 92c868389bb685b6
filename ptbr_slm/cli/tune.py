"""`ptbr-slm tune`: a model that continues text becomes one that answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.cli.train import Printer, dry_run_report, run_training, spec_of
from ptbr_slm.cli.training_options import Flag, flag_values, with_flags

if TYPE_CHECKING:
    from ptbr_slm.tune.config import TuneConfig

DATA, LORA, PREFERENCE = "Conversas", "Com --method lora", "Com --objective dpo"
"""Headings of the help."""

TUNE_FLAGS = (
    Flag("--data", kind=Path, metavar="CONVERSAS", help="Um arquivo, ou uma pasta deles."),
    Flag(
        "--output", short="-o", kind=Path, metavar="PASTA", help="Pasta do ajuste; o modelo fica em final/."
    ),
    Flag("--epochs", kind=float, key="tune.epochs", help="Quantas vezes cada conversa é lida."),
    Flag(
        "--method",
        metavar="full|lora",
        key="tune.method",
        help="Ajusta todos os pesos (full), ou adaptadores de posto baixo ao lado deles (lora).",
    ),
    Flag(
        "--objective",
        metavar="sft|dpo",
        key="tune.objective",
        help="Aprende conversas (sft), ou qual de duas respostas é a melhor (dpo: chosen e rejected).",
    ),
    Flag(
        "--format",
        metavar="auto|messages|...",
        key="tune.format",
        help="Formato dos dados; auto reconhece pelas colunas.",
        heading=DATA,
    ),
    Flag(
        "--loss",
        metavar="answers|all",
        key="tune.loss",
        help="O que é treinado: só as respostas do assistente, ou a conversa toda.",
        heading=DATA,
    ),
    Flag(
        "--valid-fraction",
        kind=float,
        key="tune.valid_fraction",
        help="Fração das conversas que fica de fora, para a validação (padrão: 0.05).",
        heading=DATA,
    ),
    Flag(
        "--evaluation-set",
        kind=list[str],
        metavar="ARQUIVO",
        key="tune.evaluation_sets",
        help="Itens de avaliação: conversas que os contêm ficam de fora; pode repetir.",
        heading=DATA,
    ),
    Flag(
        "--replay",
        kind=float,
        key="tune.replay",
        help="Fração das sequências que é texto do pré-treino, contra o esquecimento (padrão: 0).",
        heading=DATA,
    ),
    Flag(
        "--replay-data",
        kind=Path,
        metavar="DADOS",
        key="tune.replay_data",
        help="Dados preparados do pré-treino, para --replay; a validação deles mede o esquecimento, também "
        "sem --replay.",
        heading=DATA,
    ),
    Flag(
        "--lora-rank",
        kind=int,
        key="tune.lora_rank",
        help="Posto dos adaptadores (padrão: 16).",
        heading=LORA,
    ),
    Flag(
        "--lora-alpha",
        kind=float,
        key="tune.lora_alpha",
        help="O que os adaptadores somam é multiplicado por alfa / posto (padrão: 32).",
        heading=LORA,
    ),
    Flag(
        "--beta",
        kind=float,
        key="tune.beta",
        help="Quanto maior, mais perto do modelo de antes ele fica (padrão: 0.1).",
        heading=PREFERENCE,
    ),
    Flag(
        "--nll-weight",
        kind=float,
        key="tune.nll_weight",
        help="Peso da perda comum na resposta escolhida, para que não fique improvável (padrão: 1).",
        heading=PREFERENCE,
    ),
)
UNUSED = (
    "--data",
    "--output",
    "--tokenizer",
    "--model-size",
    "--init-from",
    "--cooldown-data",
    "--teacher-logits",
    "--eval-tasks",
    "--eval-tasks-seconds",
    "--task-data",
)
"""Options of `train` that a tuning says in its own words, has from its model, or does not have."""


def register(app: typer.Typer) -> None:
    """Add `tune` to the application."""
    examples = {
        "ptbr-slm tune runs/meu/final --data conversas.jsonl -o runs/conversa": "Um modelo que conversa",
        "ptbr-slm tune runs/meu/final --data conversas.jsonl -o runs/lora --method lora": "Só adaptadores",
    }
    command(app, "tune", examples=examples)(with_flags(tune, leave_out=UNUSED, more=TUNE_FLAGS))


def tune(
    out: Output,
    model: Annotated[Path, typer.Argument(metavar="MODELO", help="Pasta do modelo a ajustar (RUN/final).")],
    **given: Any,
) -> Report:
    """Ajusta um modelo com conversas, para que responda.

    Interrompido, continua quando o comando é repetido. Os dados são conversas em JSONL, CSV ou Parquet:
    messages, prompt/completion, Alpaca ou ShareGPT. Com --objective dpo, pares de respostas: prompt, chosen e
    rejected.
    """
    settings = settings_of(model, given)
    if given["dry_run"]:
        return _dry_run(out, settings)
    return run_training(out, settings)


def _dry_run(out: Output, settings: TuneConfig) -> Report:
    from ptbr_slm.tune.spec import dry_run

    with out.progress("lendo as conversas", total=1.0, eta=False) as bar:
        return dry_run_report(dry_run(settings, spec_of(settings), Printer(out, bar)))


def settings_of(model: Path, given: dict[str, Any]) -> TuneConfig:
    """The settings that the options say. Raises E_CONFIG, E_USAGE and what opening the model raises."""
    from ptbr_slm.train.config_file import load_values
    from ptbr_slm.tune.config import tune_config

    flags = flag_values(given, TUNE_FLAGS)
    return tune_config(model, load_values(given.get("config"), flags, given.get("set") or []))
