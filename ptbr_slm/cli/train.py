"""`ptbr-slm train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.cli.train_text import Printer, dry_run_report, train_report

_RUN, _MODEL, _STEP, _WATCH = "Execução", "Modelo", "Otimização", "Acompanhamento"


def register(app: typer.Typer) -> None:
    """Add `train` to the application."""
    command(app, "train")(train)


def _option(*names: str, panel: str, help: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=panel)


def train(
    out: Output,
    data: Annotated[
        Path | None, _option("--data", panel=_RUN, help="Dados preparados, ou texto, JSONL ou Parquet.")
    ] = None,
    output: Annotated[Path | None, _option("--output", "-o", panel=_RUN, help="Pasta do treino.")] = None,
    tokenizer: Annotated[
        Path | None,
        _option("--tokenizer", panel=_RUN, help="tokenizer.json; pode faltar se os dados já têm um."),
    ] = None,
    config: Annotated[
        Path | None, _option("--config", panel=_RUN, metavar="ARQUIVO.toml", help="Arquivo de configuração.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        _option(
            "--set", panel=_RUN, metavar="CHAVE=VALOR", help="Qualquer opção do arquivo; vence as demais."
        ),
    ] = None,
    resume: Annotated[
        str | None,
        _option(
            "--resume",
            panel=_RUN,
            metavar="auto|never|CAMINHO",
            help="Continuar o treino que a pasta já tem (auto), nunca, ou de um checkpoint.",
        ),
    ] = None,
    allow_config_change: Annotated[
        bool,
        _option(
            "--allow-config-change",
            panel=_RUN,
            help="Aceita continuar com opções diferentes das do checkpoint.",
        ),
    ] = False,
    max_time: Annotated[
        str | None,
        _option(
            "--max-time",
            panel=_RUN,
            metavar="11h30m",
            help="Salva e para antes deste tempo, com código de saída 75.",
        ),
    ] = None,
    seed: Annotated[
        int | None, _option("--seed", panel=_RUN, help="Semente dos pesos e da ordem dos dados.")
    ] = None,
    dry_run: Annotated[
        bool,
        _option("--dry-run", panel=_RUN, help="Só mostra tamanho, memória, passos e épocas; não grava nada."),
    ] = False,
    model_size: Annotated[
        str | None,
        _option("--model-size", panel=_MODEL, metavar="TAMANHO", help="nano, mini, 85m, 160m, 400m ou 800m."),
    ] = None,
    init_from: Annotated[
        Path | None,
        _option("--init-from", panel=_MODEL, metavar="MODELO", help="Parte dos pesos de um modelo."),
    ] = None,
    precision: Annotated[
        str | None,
        _option("--precision", panel=_MODEL, metavar="auto|fp32|fp16|bf16", help="Formato dos cálculos."),
    ] = None,
    checkpointing: Annotated[
        str | None,
        _option(
            "--checkpointing",
            panel=_MODEL,
            metavar="auto|none|full|every:K",
            help="Recalcular ativações para gastar menos memória.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, _option("--batch-size", panel=_STEP, help="Sequências por micro-lote.")
    ] = None,
    grad_accum: Annotated[
        int | None, _option("--grad-accum", panel=_STEP, help="Micro-lotes por passo.")
    ] = None,
    seq_len: Annotated[int | None, _option("--seq-len", panel=_STEP, help="Tokens por sequência.")] = None,
    max_steps: Annotated[
        int | None, _option("--max-steps", panel=_STEP, help="Passos do treino inteiro.")
    ] = None,
    optimizer: Annotated[
        str | None, _option("--optimizer", panel=_STEP, metavar="adamw", help="Otimizador.")
    ] = None,
    learning_rate: Annotated[
        float | None, _option("--learning-rate", panel=_STEP, help="Taxa de aprendizado máxima.")
    ] = None,
    warmup_steps: Annotated[
        int | None, _option("--warmup-steps", panel=_STEP, help="Passos de aquecimento.")
    ] = None,
    gradient_clip: Annotated[
        float | None, _option("--gradient-clip", panel=_STEP, help="Norma máxima do gradiente; 0 não limita.")
    ] = None,
    save_every: Annotated[
        int | None, _option("--save-every", panel=_WATCH, metavar="N", help="Passos entre checkpoints.")
    ] = None,
    eval_every: Annotated[
        int | None, _option("--eval-every", panel=_WATCH, metavar="N", help="Passos entre avaliações.")
    ] = None,
) -> Report:
    """Treina um modelo; interrompido, continua de onde parou quando o comando é repetido."""
    from ptbr_slm.train.config_file import load_config

    flags: dict[str, Any] = {
        "data": data,
        "output": output,
        "tokenizer": tokenizer,
        "resume": resume,
        "allow_config_change": allow_config_change or None,
        "max_time": max_time,
        "seed": seed,
        "model_size": model_size,
        "init_from": init_from,
        "precision": precision,
        "checkpointing": checkpointing,
        "batch_size": batch_size,
        "grad_accum": grad_accum,
        "seq_len": seq_len,
        "max_steps": max_steps,
        "optimizer.name": optimizer,
        "optimizer.learning_rate": learning_rate,
        "schedule.warmup_steps": warmup_steps,
        "optimizer.gradient_clip": gradient_clip,
        "checkpoint.every": save_every,
        "evaluation.every": eval_every,
    }
    settings = load_config(config, flags, sets or [])
    if dry_run:
        from ptbr_slm.train.dry_run import dry_run as calculate

        return dry_run_report(calculate(settings))
    from ptbr_slm.train.run import train as run

    with out.progress("treinando", total=1.0) as bar:
        result = run(settings, Printer(out, bar))
    return train_report(result)
