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

TUNE_FLAGS = (
    Flag("--data", kind=Path, help="Conversas: um arquivo, ou uma pasta deles."),
    Flag("--output", short="-o", kind=Path, help="Pasta do ajuste; o modelo fica em final/."),
    Flag(
        "--method",
        metavar="full|lora",
        key="tune.method",
        help="Ajusta todos os pesos (full), ou adaptadores de posto baixo ao lado deles (lora).",
    ),
    Flag("--lora-rank", kind=int, metavar="16", key="tune.lora_rank", help="Posto dos adaptadores do lora."),
    Flag(
        "--lora-alpha",
        kind=float,
        metavar="32",
        key="tune.lora_alpha",
        help="O que os adaptadores somam é multiplicado por alfa / posto.",
    ),
    Flag(
        "--objective",
        metavar="sft|dpo",
        key="tune.objective",
        help="Aprende conversas (sft), ou qual de duas respostas é a melhor (dpo: chosen e rejected).",
    ),
    Flag(
        "--beta",
        kind=float,
        metavar="0.1",
        key="tune.beta",
        help="Com dpo: quanto maior, mais perto do modelo de antes ele fica.",
    ),
    Flag(
        "--nll-weight",
        kind=float,
        metavar="1.0",
        key="tune.nll_weight",
        help="Com dpo: peso da perda comum na resposta escolhida, para que não fique improvável.",
    ),
    Flag("--epochs", kind=float, key="tune.epochs", help="Quantas vezes cada conversa é lida."),
    Flag(
        "--loss",
        metavar="answers|all",
        key="tune.loss",
        help="O que é treinado: só as respostas do assistente, ou a conversa toda.",
    ),
    Flag(
        "--format",
        metavar="auto|messages|...",
        key="tune.format",
        help="Formato dos dados; auto reconhece pelas colunas.",
    ),
    Flag(
        "--valid-fraction",
        kind=float,
        metavar="0.05",
        key="tune.valid_fraction",
        help="Fração das conversas que fica de fora, para a validação.",
    ),
    Flag(
        "--evaluation-set",
        kind=list[str],
        metavar="ARQUIVO",
        key="tune.evaluation_sets",
        help="Itens de avaliação: conversas que os contêm ficam de fora; pode repetir.",
    ),
    Flag(
        "--replay",
        kind=float,
        metavar="0.1",
        key="tune.replay",
        help="Fração das sequências que é texto do pré-treino, contra o esquecimento.",
    ),
    Flag(
        "--replay-data",
        kind=Path,
        metavar="DADOS",
        key="tune.replay_data",
        help="Dados preparados do pré-treino, para --replay; a validação deles mede o esquecimento, também "
        "sem --replay.",
    ),
)
UNUSED = (
    "--data",
    "--output",
    "--tokenizer",
    "--model-size",
    "--init-from",
    "--teacher-logits",
    "--eval-tasks",
    "--eval-tasks-seconds",
    "--task-data",
)
"""Options of `train` that a tuning says in its own words, has from its model, or does not have."""


def register(app: typer.Typer) -> None:
    """Add `tune` to the application."""
    command(app, "tune")(with_flags(tune, leave_out=UNUSED, more=TUNE_FLAGS))


def tune(
    out: Output,
    model: Annotated[Path, typer.Argument(metavar="MODELO", help="Pasta do modelo a ajustar (RUN/final).")],
    **given: Any,
) -> Report:
    """Ajusta um modelo com conversas, para que responda; interrompido, continua quando repetido.

    Os dados são conversas em JSONL, CSV ou Parquet: messages, prompt/completion, Alpaca ou ShareGPT. Com
    --objective dpo, pares de respostas: prompt, chosen e rejected.
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
