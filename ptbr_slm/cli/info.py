"""`ptbr-slm info`: what a model is and what training it takes, before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report, table
from ptbr_slm.config import DEFAULT_VOCAB_SIZE, SIZES, model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.text import number, quoted


def register(app: typer.Typer) -> None:
    """Add `info` to the application."""
    command(app, "info")(info)


def info(
    out: Output,
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODELO", help="Pasta de um modelo, de um treino ou de um modelo exportado."),
    ] = None,
    model_size: Annotated[
        str | None, typer.Option("--model-size", help=f"Tamanho com nome: {', '.join(SIZES)}.")
    ] = None,
    vocab_size: Annotated[
        int, typer.Option("--vocab-size", help="Tokens do vocabulário.")
    ] = DEFAULT_VOCAB_SIZE,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Sequências por micro-lote.")] = 2,
    seq_len: Annotated[int, typer.Option("--seq-len", help="Tokens por sequência.")] = 256,
    precision: Annotated[
        str,
        typer.Option("--precision", help="fp16 (é o que a T4 usa), bf16 ou fp32."),
    ] = "fp16",
    optimizer: Annotated[str, typer.Option("--optimizer", help="adamw, adamw8bit ou muon.")] = "adamw",
    gpu_memory: Annotated[
        float | None,
        typer.Option("--gpu-memory", metavar="GIB", help="Memória da placa; sem isto, a conta é de uma T4."),
    ] = None,
) -> Report:
    """Mostra formato, parâmetros e a memória que o treino pede; ou o que há numa pasta de modelo."""
    from ptbr_slm.cli.info_folder import folder_report
    from ptbr_slm.cli.info_plan import Plan, card, size_report

    plan = Plan(batch_size, seq_len, precision, optimizer, card(gpu_memory))
    if model is not None and model_size is not None:
        raise SlmError(
            "E_USAGE",
            "info mostra uma pasta ou um tamanho, não os dois.",
            where=f"{model} e --model-size {model_size}",
            hint=f"Use:  ptbr-slm info {quoted(model)}   ou   "
            f"ptbr-slm info --model-size {quoted(model_size)}",
        )
    if model is not None:
        return folder_report(model, plan)
    if model_size is not None:
        return size_report(
            model_size, model_config(model_size, vocab_size=vocab_size, max_seq_len=seq_len), plan
        )
    return _sizes(vocab_size)


def _sizes(vocab_size: int) -> Report:
    """The named sizes, one a line."""
    configs = {name: model_config(name, vocab_size=vocab_size) for name in SIZES}
    rows = [
        [
            name,
            number(c.num_parameters / 1e6, 1),
            str(c.num_layers),
            str(c.hidden_size),
            f"{c.num_heads}/{c.num_kv_heads}",
        ]
        for name, c in configs.items()
    ]
    header = ["tamanho", "milhões de parâmetros", "camadas", "largura", "cabeças q/kv"]
    data = {
        "sizes": {name: {"parameters": c.num_parameters} for name, c in configs.items()},
        "vocab_size": vocab_size,
    }
    text = (
        f"{table(rows, header=header)}\n\n"
        f"Contados com vocabulário de {number(vocab_size)} tokens.\n"
        "Memória, FLOPs e checkpoint de um deles:\n"
        "  ptbr-slm info --model-size 400m --batch-size 2 --seq-len 256"
    )
    return Report(data, text, brief="\n".join(SIZES))
