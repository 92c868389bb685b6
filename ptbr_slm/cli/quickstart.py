"""`ptbr-slm quickstart`: from Portuguese texts to a verified ONNX model that writes, in one command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.cli.tokenizer import check_output
from ptbr_slm.text import human_bytes, number, quoted

if TYPE_CHECKING:
    from ptbr_slm_export.export import ExportReport

    from ptbr_slm.data.prepared import PreparedData
    from ptbr_slm.runtime.results import GenerationResult
    from ptbr_slm.train.events import TrainResult

PROMPTS = ("O Brasil", "A cidade de São Paulo", "Neste trabalho,")
"""Beginnings that suit the news and theses of the default corpus."""

RECIPE: dict[str, Any] = {
    "model.hidden_size": 192,
    "model.num_layers": 3,
    "model.num_heads": 3,
    "model.num_kv_heads": 1,
    "model.intermediate_size": 512,
    "model_size": "nano",
    "batch_size": 8,
    "seq_len": 256,
    "max_steps": 1_000_000,
    "optimizer.name": "muon",
    "optimizer.learning_rate": 3e-3,
    "schedule.kind": "wsd",
    "schedule.warmup_steps": 20,
    "schedule.cooldown_fraction": 0.5,
    "checkpoint.every": 500,
    "evaluation.tokens": 16_384,
    "evaluation.sample_tokens": 24,
    "seed": 1,
}
"""2.0M parameters with the vocabulary below: in minutes, small steps of a small model with Muon teach most
(docs/decisions/0019-muon.md). The clock (schedule.minutes) ends the run, not max_steps."""

VOCAB_SIZE = 4096
EVALUATIONS = 10
"""Points of the curve, each with short samples, on a quarter of the text that is usual: the training has the
time."""


def register(app: typer.Typer) -> None:
    """Add `quickstart` to the application."""
    command(
        app,
        "quickstart",
        examples={
            "ptbr-slm quickstart": "Tudo, na pasta demo",
            "ptbr-slm quickstart --texts meus-textos --out meu --minutes 10": "Seus textos, e mais tempo",
        },
    )(quickstart)


def quickstart(
    out: Output,
    output: Annotated[Path, typer.Option("--out", metavar="PASTA", help="Pasta onde tudo fica.")] = Path(
        "demo"
    ),
    minutes: Annotated[float, typer.Option("--minutes", min=0.05, help="Minutos de treino.")] = 3.0,
    texts: Annotated[
        Path | None,
        typer.Option("--texts", metavar="TEXTOS", help="Seus textos, em vez de baixar o corpus Dante."),
    ] = None,
) -> Report:
    """Do texto ao modelo pronto em poucos minutos, num só comando.

    Baixa textos, treina por três minutos, exporta para ONNX, confere e escreve em português. Interrompido,
    continua de onde parou quando o comando é repetido.
    """
    started = time.monotonic()
    source = _texts(out, output, texts)
    data = _prepare(out, output, source)
    trained = _train(out, data, output / "treino", minutes)
    if trained.status != "done":
        stopped = f"Parado no passo {number(trained.step)}, com tudo salvo. Repita o comando para continuar."
        return Report({"status": "stopped", "step": trained.step}, stopped, exit_code=trained.exit_code)
    exported = _export(out, trained.model, output / "export")
    written = _write(out, exported.folder)
    seconds = time.monotonic() - started
    return _report(output, data, trained, exported, written, seconds)


def _texts(out: Output, output: Path, texts: Path | None) -> Path:
    from ptbr_slm.data.sources.fetch import fetch

    if texts is not None:
        return texts
    out.note("[1/5] Textos: notícias e teses em português do Brasil (corpus Dante, 23 MB)")
    with out.progress("baixando"):
        return fetch("dante", output / "textos")


def _prepare(out: Output, output: Path, source: Path) -> PreparedData:
    from ptbr_slm.data.pipeline import prepare, read_documents
    from ptbr_slm.data.prepared import PreparedData
    from ptbr_slm.storage.atomic import write_text
    from ptbr_slm.tokenizer import Tokenizer

    folder, file = output / "dados", output / "tokenizer.json"
    if folder.exists():
        return PreparedData.open(folder)
    check_output(file)
    out.note(f"[2/5] Tokenizador de {number(VOCAB_SIZE)} tokens, e textos convertidos em tokens")
    with out.progress("lendo textos"):
        tokenizer = Tokenizer.train((document.text for document in read_documents([source])), VOCAB_SIZE)
        write_text(file, tokenizer.to_json())
        return prepare([source], folder, tokenizer, valid_fraction=0.05)


def _train(out: Output, data: PreparedData, run: Path, minutes: float) -> TrainResult:
    from ptbr_slm.cli.train import Printer
    from ptbr_slm.train.config_file import from_values
    from ptbr_slm.train.run import train

    train_part, valid = data.split("train"), data.split("valid")
    out.note(
        f"[3/5] Treino de {number(minutes, 1)} min em {number(train_part.tokens)} tokens; "
        f"{number(valid.tokens)} ficam de fora, para medir"
    )
    values = {**RECIPE, "data": data.folder, "output": run, "schedule.minutes": minutes,
              "evaluation.minutes": minutes / EVALUATIONS, "evaluation.prompts": PROMPTS}  # fmt: skip
    with out.progress("treinando", total=1.0) as bar:
        return train(from_values(values), Printer(out, bar))


def _export(out: Output, model: Path, folder: Path) -> ExportReport:
    from ptbr_slm_export import export_model

    out.note("[4/5] Exportação para ONNX int8, conferida com o PyTorch")
    return export_model(model, folder, precision="int8")


def _write(out: Output, export: Path) -> list[GenerationResult]:
    from ptbr_slm.runtime.model import Model

    out.note("[5/5] Textos escritos pelo modelo exportado\n")
    with Model(export) as model:
        return model.generate_detailed(list(PROMPTS), max_new_tokens=60, temperature=0.7, seed=1)


def _report(
    output: Path,
    data: PreparedData,
    trained: TrainResult,
    exported: ExportReport,
    written: list[GenerationResult],
    seconds: float,
) -> Report:
    export = exported.folder
    speed = sum(result.tokens_per_second for result in written)
    summary = {
        "status": "done",
        "out": str(output),
        "steps": trained.step,
        "train_tokens": data.split("train").tokens,
        "tokens_trained": trained.tokens,
        "training_tokens_per_second": round(trained.tokens_per_second, 1),
        "bits_per_byte": trained.bits_per_byte,
        "export": str(export),
        "export_bytes": exported.bytes,
        "generation_tokens_per_second": round(speed, 1),
        "texts": [prompt + result.text for prompt, result in zip(PROMPTS, written, strict=True)],
        "seconds": round(seconds, 1),
    }
    texts = "\n\n".join("  " + " ".join(text.split()) for text in summary["texts"])  # type: ignore[attr-defined]
    bits = trained.bits_per_byte
    measured = "" if bits is None else f", {number(bits, 3)} bits por byte em textos nunca vistos"
    text = (
        f"{texts}\n\n"
        f"Pronto em {number(seconds / 60, 1)} min: {number(trained.step)} passos, "
        f"{number(trained.tokens)} tokens a {number(trained.tokens_per_second)} por segundo{measured}.\n"
        f"O modelo exportado tem {human_bytes(exported.bytes)} e escreve {number(speed)} tokens/s "
        f"(três textos de uma vez).\n"
        "Com tão pouco treino ele já imita a forma do português; "
        "o sentido vem com mais texto e mais tempo.\n\n"
        "Agora experimente:\n"
        f'  ptbr-slm generate -m {quoted(export)} "O governo"\n'
        f"  ptbr-slm app {quoted(export)}\n"
        f"  ptbr-slm train --data {quoted(output / 'dados')} --output runs/maior "
        "--model-size mini --max-steps 5000\n"
        "E para treinar modelos de verdade numa GPU gratuita: docs/KAGGLE_QUICK_START.md"
    )
    return Report(summary, text, brief=str(export))
