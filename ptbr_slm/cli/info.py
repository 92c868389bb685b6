"""`ptbr-slm info`: what a model is and what training it takes, before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report, table
from ptbr_slm.config import DEFAULT_VOCAB_SIZE, SIZES, ModelConfig, model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.text import human_bytes, number, quoted

if TYPE_CHECKING:  # numpy and tokenizers: --help has no time for them
    from ptbr_slm.cli.plan_tables import Plan
    from ptbr_slm.storage.model_folder import ModelFolder

KINDS = {
    "model": "modelo",
    "checkpoint": "checkpoint de treino",
    "export": "modelo exportado (ONNX)",
    "foreign": "modelo Llama de outra origem (sem manifesto)",
}
LABELS = {
    "target": "feito para",
    "precision": "precisão",
    "draft.head_tokens": "tokens que a camada de rascunho adivinha",
    "draft.acceptance": "palpites certos dela, na medida do treino",
    "step": "passo",
    "bits_per_byte": "bits por byte (medido)",
    "held_out.data_sha256": "  sha256 dos dados em que foram medidos",
    "held_out.seq_len": "  tokens de cada janela",
    "held_out.targets": "  tokens previstos",
    "held_out.bytes": "  bytes desses tokens",
    "held_out.sampled": "  tokens em que a mudança foi medida",
    "source_sha256": "sha256 da origem",
    "ptbr_slm": "versão do ptbr-slm",
}
"""Manifest key -> how a person reads it; other keys appear under their own names."""


def register(app: typer.Typer) -> None:
    """Add `info` to the application."""
    command(
        app,
        "info",
        examples={
            "ptbr-slm info": "Os tamanhos que há",
            "ptbr-slm info --model-size 85m --batch-size 8 --seq-len 512": "A memória de um treino numa T4",
            "ptbr-slm info runs/meu/final": "O que há numa pasta de modelo",
        },
    )(info)


def info(
    out: Output,
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODELO", help="Pasta de um modelo, de um treino ou de um modelo exportado."),
    ] = None,
    model_size: Annotated[
        str | None, typer.Option("--model-size", metavar="TAMANHO", help=f"{', '.join(SIZES)}.")
    ] = None,
    vocab_size: Annotated[
        int, typer.Option("--vocab-size", help="Tokens do vocabulário.")
    ] = DEFAULT_VOCAB_SIZE,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Sequências por micro-lote.")] = 2,
    seq_len: Annotated[int, typer.Option("--seq-len", help="Tokens por sequência.")] = 256,
    precision: Annotated[
        str,
        typer.Option("--precision", metavar="fp16|bf16|fp32", help="Formato dos cálculos; a T4 usa fp16."),
    ] = "fp16",
    optimizer: Annotated[
        str,
        typer.Option("--optimizer", metavar="muon|adamw|adamw8bit", help="O que guarda por parâmetro varia."),
    ] = "muon",
    gpu_memory: Annotated[
        float | None,
        typer.Option("--gpu-memory", metavar="GIB", help="Memória da placa; sem isto, a conta é de uma T4."),
    ] = None,
) -> Report:
    """Mostra o que há num modelo, ou a memória que um treino pede.

    Sem argumentos, os tamanhos com nome.
    """
    from ptbr_slm.cli.plan_tables import Plan

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
    header = ["tamanho", "milhões", "camadas", "largura", "cabeças q/kv"]
    data = {
        "sizes": {name: {"parameters": c.num_parameters} for name, c in configs.items()},
        "vocab_size": vocab_size,
    }
    text = (
        f"{table(rows, header=header)}\n\n"
        f"milhões: de parâmetros, com vocabulário de {number(vocab_size)} tokens.\n\n"
        "Memória, FLOPs e checkpoint de um deles:\n"
        "  ptbr-slm info --model-size 400m --batch-size 2 --seq-len 256"
    )
    return Report(data, text, brief="\n".join(SIZES))


def card(gpu_memory: float | None) -> int:
    """`--gpu-memory` in bytes, a T4's where it is not given. Raises E_CONFIG for what is no amount."""
    from ptbr_slm.train.planning.memory import GIB, T4_BYTES

    if gpu_memory is None:
        return T4_BYTES
    if not 0 < gpu_memory < 10_000:
        raise SlmError(
            "E_CONFIG",
            f"a memória da placa deve ser um número de GiB, e não {gpu_memory}.",
            where="--gpu-memory",
            hint="Exemplo: --gpu-memory 14.56, o que o PyTorch enxerga de uma T4.",
        )
    return int(gpu_memory * GIB)


def size_report(name: str, config: ModelConfig, plan: Plan) -> Report:
    """The report on a named size."""
    from ptbr_slm.cli.plan_tables import plan_data, plan_text, shape_text

    data = {"model_size": name, **plan_data(config, plan)}
    text = f"Modelo {name}\n{shape_text(config)}\n\n{plan_text(config, plan)}"
    return Report(data, text, brief=str(config.num_parameters))


def folder_report(path: Path, plan: Plan) -> Report:
    """The report on a folder. Raises E_NOT_FOUND, E_PICKLE, E_MODEL_INVALID, E_MANIFEST or E_SCHEMA."""
    from ptbr_slm.cli.plan_tables import plan_data, plan_text, shape_text
    from ptbr_slm.storage.model_folder import ModelFolder

    opened = ModelFolder(_model_inside(path))
    check_kind(opened)
    folder, manifest = opened.path, opened.manifest
    kind, facts = ("foreign", {}) if manifest is None else (manifest.kind, manifest.extra)
    config = opened.config
    tokenizer = _tokenizer(opened)
    files = {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    shape = {"config": config.to_hf(), "parameters": {"total": config.num_parameters}}
    data = {
        "path": str(folder),
        "kind": kind,
        "manifest": facts,
        "files": files,
        "tokenizer": tokenizer,
        **(shape if kind == "export" else plan_data(config, plan)),
    }
    parts = [f"{KINDS.get(kind, kind).capitalize()} em {folder}", shape_text(config), "", _files_text(files)]
    if facts:
        parts += ["", _facts_text(facts)]
    parts += ["", _tokenizer_text(tokenizer, config)]
    if kind != "export":
        parts += ["", plan_text(config, plan)]
    return Report(data, "\n".join(parts), brief=str(config.num_parameters))


def check_kind(opened: ModelFolder) -> None:
    """Refuse what is no model; prepared data gets the command that describes it.

    Of a folder with a manifest only sizes are compared: hashing a large model would take seconds.
    """
    from ptbr_slm.storage.manifest import NAME as MANIFEST

    folder = opened.path
    if (folder / "index.json").is_file() and not (folder / "config.json").exists():
        raise SlmError(
            "E_MODEL_INVALID",
            "isto são dados preparados, não um modelo.",
            where=folder,
            hint=f"Veja o que há neles com:  ptbr-slm data stats {quoted(folder)}",
        )
    if not (folder / MANIFEST).exists():
        opened.check()


def _model_inside(path: Path) -> Path:
    """The model that a run's folder holds: final/, or else its newest checkpoint; other paths as they are."""
    if (path / "config.json").exists() or not path.is_dir():
        return path
    if (path / "final" / "config.json").exists():
        return path / "final"
    latest = path / "checkpoints" / "latest"
    if latest.is_file():
        newest = path / "checkpoints" / latest.read_text(encoding="utf-8").strip()
        if (newest / "config.json").exists():
            return newest
    return path


def _tokenizer(folder: ModelFolder) -> dict[str, Any] | None:
    """Facts of the folder's tokenizer, None where it has none. Raises E_TOKENIZER_INVALID."""
    if not (folder.path / "tokenizer.json").is_file():
        return None
    tokenizer = folder.tokenizer
    return {
        "vocab_size": tokenizer.vocab_size,
        "sha256": tokenizer.sha256,
        "byte_level": tokenizer.is_byte_level,
    }


def _files_text(files: dict[str, int]) -> str:
    rows = [[f"  {name}", human_bytes(size)] for name, size in files.items()]
    return "Arquivos\n" + table([*rows, ["  total", human_bytes(sum(files.values()))]])


def _facts_text(facts: dict[str, Any]) -> str:
    rows = [f"  {LABELS.get(key, key)}: {value}" for key, value in _flattened(facts)]
    return "Manifesto\n" + "\n".join(rows)


def _flattened(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as dotted key -> text, numbers with a Brazilian comma."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += _flattened(value, f"{name}.")
        elif isinstance(value, float):
            rows.append((name, f"{value:.4g}".replace(".", ",")))
        else:
            rows.append((name, str(value)))
    return rows


def _tokenizer_text(tokenizer: dict[str, Any] | None, config: ModelConfig) -> str:
    if tokenizer is None:
        return "Tokenizador: não há tokenizer.json na pasta."
    kind = "BPE de bytes" if tokenizer["byte_level"] else "de outra família"
    text = (
        f"Tokenizador: {number(tokenizer['vocab_size'])} tokens, {kind}, sha256 {tokenizer['sha256'][:12]}…"
    )
    if tokenizer["vocab_size"] > config.vocab_size:
        text += f"\n  Atenção: o modelo só conhece {number(config.vocab_size)} tokens; este não é o dele."
    return text
