"""`ptbr-slm train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Mode, Output, Progress, Report, human_bytes, number, table

if TYPE_CHECKING:
    from ptbr_slm.train.dry_run import DryRun
    from ptbr_slm.train.events import TrainResult

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

        return _dry_run_report(calculate(settings))
    from ptbr_slm.train.run import train as run

    with out.progress("treinando", total=1.0) as bar:
        result = run(settings, Printer(out, bar))
    return _report(result)


class Printer:
    """Shows a run: JSON lines, or notes and a bar for a person."""

    def __init__(self, out: Output, bar: Progress) -> None:
        self.out, self.bar = out, bar

    def event(self, record: Mapping[str, Any]) -> None:
        """Print what a person should read; every record in `--json` mode."""
        if self.out.mode is Mode.JSON:
            self.out.event(record)
        elif text := _sentence(record):
            self.out.note(text)

    def progress(self, done: float, status: str) -> None:
        """Move the bar."""
        self.bar.update(done, status)


def _sentence(record: Mapping[str, Any]) -> str:
    match record["event"]:
        case "start":
            lines = [
                f"Modelo de {number(record['parameters'])} parâmetros em {record['device']}, "
                f"{number(record['tokens_per_step'])} tokens por passo, taxa {record['learning_rate']:.1e}",
                f"  precisão {record['precision']}: {record['precision_reason']}",
                f"  ativações: {record['checkpointing_reason']}",
                *(f"  atenção: {note}" for note in record["notes"]),
            ]
            return "\n".join(lines)
        case "resume":
            return f"Continuando do passo {number(record['step'])} ({record['path']})"
        case "warning":
            return f"Atenção: {record['message']}"
        case "eval":
            return f"passo {number(record['step'])}: {number(record['bits_per_byte'], 4)} bits por byte na validação"
        case "sample":
            return f"  «{record['prompt']}»{' '.join(record['text'].splitlines())}"
        case _:
            return ""


def _report(result: TrainResult) -> Report:
    data = {
        "event": "done",
        "status": result.status,
        "reason": result.reason,
        "run": str(result.run),
        "model": str(result.model),
        "step": result.step,
        "tokens": result.tokens,
        "loss": result.loss,
        "bits_per_byte": result.bits_per_byte,
        "seconds": round(result.seconds, 3),
        "tokens_per_second": round(result.tokens_per_second, 1),
        "skipped_steps": result.skipped_steps,
    }
    bits = (
        ""
        if result.bits_per_byte is None
        else f", {number(result.bits_per_byte, 4)} bits por byte na validação"
    )
    if result.status == "done":
        head = f"Treino completo: {number(result.step)} passos, {number(result.tokens)} tokens{bits}."
        following = (
            f"  modelo     {result.model}\n  relatório  {result.run / 'report' / 'report.html'}\n\n"
            f"Próximo passo:\n  ptbr-slm export {result.model} -o {result.run / 'export'}"
        )
    else:
        why = {"max_time": "o tempo acabou", "sigterm": "SIGTERM", "interrupt": "Ctrl-C"}[result.reason]
        head = f"Treino parado no passo {number(result.step)} ({why}) e salvo{bits}."
        following = f"  checkpoint  {result.model}\n\nPara continuar, repita o mesmo comando."
    return Report(data, f"{head}\n{following}", brief=str(result.model), exit_code=result.exit_code)


def _dry_run_report(found: DryRun) -> Report:
    plan, memory = found.plan, found.plan.memory
    config = plan.config
    epochs = "só depois de preparar os dados" if found.epochs is None else number(found.epochs, 2)
    parts = [
        ("pesos", memory.weights),
        ("cópias de meia precisão", memory.autocast_cache),
        ("gradientes", memory.gradients),
        ("otimizador", memory.optimizer),
        ("ativações", memory.activations),
        ("logits", memory.logits),
        ("trabalho", memory.workspace),
        ("contexto da GPU", memory.context),
        ("total", memory.total),
    ]
    rows = [
        ("parâmetros", number(plan.model.num_parameters)),
        ("tokens por passo", number(config.tokens_per_step)),
        ("passos", number(config.max_steps)),
        ("tokens do treino", number(config.tokens_per_step * config.max_steps)),
        ("épocas", epochs),
        *((f"memória: {name}", human_bytes(size)) for name, size in parts if size),
    ]
    notes = [
        f"precisão {plan.precision.name}: {plan.precision.reason}",
        f"ativações: {plan.checkpointing_reason}",
    ]
    text = table(rows) + "\n\n" + "\n".join([*notes, *plan.notes, "Nada foi gravado (--dry-run)."])
    data = {
        "event": "plan",
        "parameters": plan.model.num_parameters,
        "tokens_per_step": config.tokens_per_step,
        "max_steps": config.max_steps,
        "epochs": found.epochs,
        "train_tokens": found.train_tokens,
        "precision": plan.precision.name,
        "checkpoint_every": plan.checkpoint_every,
        "learning_rate": config.optimizer.learning_rate,
        "memory_bytes": {"weights": memory.weights, "gradients": memory.gradients, "optimizer": memory.optimizer,
                         "activations": memory.activations, "logits": memory.logits, "total": memory.total},
        "notes": list(plan.notes),
    }  # fmt: skip
    return Report(data, text, brief=number(plan.model.num_parameters))
