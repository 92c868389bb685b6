"""`ptbr-slm train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.cli.train_text import dry_run_report

if TYPE_CHECKING:
    from ptbr_slm.train.config import TrainConfig


def register(app: typer.Typer) -> None:
    """Add `train` to the application."""
    command(app, "train")(train)


def train(
    out: Output,
    data: Annotated[
        Path | None, typer.Option("--data", help="Dados preparados, ou texto, JSONL ou Parquet.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Pasta do treino.")] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", help="tokenizer.json; pode faltar se os dados já têm um."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="ARQUIVO.toml", help="Arquivo de configuração.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="CHAVE=VALOR", help="Qualquer opção do arquivo; vence as demais."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="auto|never|CAMINHO",
            help="Continuar o treino que a pasta já tem (auto), nunca, ou de um checkpoint.",
        ),
    ] = None,
    allow_config_change: Annotated[
        bool,
        typer.Option(
            "--allow-config-change",
            help="Aceita continuar com opções diferentes das do checkpoint.",
        ),
    ] = False,
    max_time: Annotated[
        str | None,
        typer.Option(
            "--max-time",
            metavar="11h30m",
            help="Salva e para antes deste tempo, com código de saída 75.",
        ),
    ] = None,
    session_start: Annotated[
        str | None,
        typer.Option(
            "--session-start",
            metavar="kaggle|HORA",
            help="De quando contar --max-time: kaggle, data e hora ISO ou segundos; padrão: deste processo.",
        ),
    ] = None,
    cooldown: Annotated[
        str | None,
        typer.Option(
            "--cooldown",
            metavar="schedule|session",
            help="session: resfria no fim da sessão e grava RUN/final; a próxima continua de antes disso.",
        ),
    ] = None,
    logger: Annotated[
        list[str] | None,
        typer.Option(
            "--logger",
            metavar="tensorboard|trackio|wandb",
            help="Mostra as curvas também ali; pode repetir. Nada sai do computador sem você pedir.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Semente dos pesos e da ordem dos dados.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Só mostra tamanho, memória, passos e épocas; não grava nada."),
    ] = False,
    model_size: Annotated[
        str | None,
        typer.Option("--model-size", metavar="TAMANHO", help="nano, mini, 85m, 160m, 400m ou 800m."),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option("--init-from", metavar="MODELO", help="Parte dos pesos de um modelo."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="auto|fp32|fp16|bf16", help="Formato dos cálculos."),
    ] = None,
    checkpointing: Annotated[
        str | None,
        typer.Option(
            "--checkpointing",
            metavar="auto|none|full|every:K",
            help="Recalcular ativações para gastar menos memória.",
        ),
    ] = None,
    parallel: Annotated[
        str | None,
        typer.Option(
            "--parallel",
            metavar="auto|none|ddp|fsdp",
            help="Várias GPUs: uma cópia em cada (ddp, o padrão), o modelo repartido (fsdp), ou só uma.",
        ),
    ] = None,
    compile_layers: Annotated[
        bool, typer.Option("--compile", help="torch.compile por camada, conferido antes de ser usado.")
    ] = False,
    batch_size: Annotated[
        str | None,
        typer.Option("--batch-size", metavar="N|auto", help="Sequências por micro-lote; auto: o que couber."),
    ] = None,
    grad_accum: Annotated[int | None, typer.Option("--grad-accum", help="Micro-lotes por passo.")] = None,
    tokens_per_step: Annotated[
        int | None,
        typer.Option("--tokens-per-step", metavar="N", help="Tokens por passo; calcula --grad-accum."),
    ] = None,
    seq_len: Annotated[int | None, typer.Option("--seq-len", help="Tokens por sequência.")] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Passos do treino inteiro.")] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            "--optimizer",
            metavar="adamw|adamw8bit|muon",
            help="muon aprende mais por passo; adamw8bit guarda 2 bytes por parâmetro em vez de 8.",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Taxa de aprendizado máxima.")
    ] = None,
    warmup_steps: Annotated[int | None, typer.Option("--warmup-steps", help="Passos de aquecimento.")] = None,
    gradient_clip: Annotated[
        float | None, typer.Option("--gradient-clip", help="Norma máxima do gradiente; 0 não limita.")
    ] = None,
    save_every: Annotated[
        int | None, typer.Option("--save-every", metavar="N", help="Passos entre checkpoints.")
    ] = None,
    eval_every: Annotated[
        int | None, typer.Option("--eval-every", metavar="N", help="Passos entre avaliações.")
    ] = None,
) -> Report:
    """Treina um modelo; interrompido, continua de onde parou quando o comando é repetido."""
    given = {name: value for name, value in locals().items() if name not in ("out", "dry_run")}
    settings = settings_of(given)
    if dry_run:
        from ptbr_slm.train.planning.plan import dry_run as calculate

        return dry_run_report(calculate(settings))
    from ptbr_slm.cli.train_ranks import run_training

    return run_training(out, settings)


_KEYS = {
    "compile_layers": "compile",
    "optimizer": "optimizer.name",
    "learning_rate": "optimizer.learning_rate",
    "warmup_steps": "schedule.warmup_steps",
    "gradient_clip": "optimizer.gradient_clip",
    "save_every": "checkpoint.every",
    "eval_every": "evaluation.every",
}
"""Flag -> setting, where their names differ."""


def settings_of(given: Mapping[str, Any]) -> TrainConfig:
    """The settings that the flags of `train` say, by parameter name; None where not given."""
    from ptbr_slm.train.config_file import load_config

    flags = {
        _KEYS.get(name, name): None if value is False else value  # a switch that is off was not given
        for name, value in given.items()
        if name not in ("config", "sets")
    }
    if logger := given.get("logger"):
        flags["logger"] = [name.strip() for text in logger for name in text.split(",")]
    if (batch_size := given.get("batch_size")) and batch_size.isdecimal():
        flags["batch_size"] = int(batch_size)
    return load_config(given.get("config"), flags, given.get("sets") or [])
