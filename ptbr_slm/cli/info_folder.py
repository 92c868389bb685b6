"""The part of `info` that looks into a folder: a model, a checkpoint, a run, or an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptbr_slm.cli.info_plan import Plan, plan_data, plan_text, shape_text
from ptbr_slm.cli.output import Report, table
from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.text import human_bytes, number, quoted

KINDS = {
    "model": "modelo",
    "checkpoint": "checkpoint de treino",
    "export": "modelo exportado (ONNX)",
    "foreign": "modelo Llama de outra origem (sem manifesto)",
}
LABELS = {
    "target": "feito para",
    "precision": "precisão",
    "step": "passo",
    "bits_per_byte": "bits por byte (medido)",
    "source_sha256": "sha256 da origem",
    "ptbr_slm": "versão do ptbr-slm",
}
"""Manifest key -> how a person reads it; other keys appear under their own names."""


def folder_report(path: Path, plan: Plan) -> Report:
    """The report on a folder. Raises E_NOT_FOUND, E_PICKLE, E_MODEL_INVALID, E_MANIFEST or E_SCHEMA."""
    opened = ModelFolder(_model_inside(path))
    check_kind(opened)
    folder, manifest = opened.path, opened.manifest
    kind, facts = ("foreign", {}) if manifest is None else (manifest.kind, manifest.extra)
    config = opened.config
    tokenizer = _tokenizer(opened)
    files = {file.relative_to(folder).as_posix(): file.stat().st_size for file in _files(folder)}
    data: dict[str, Any] = {"path": str(folder), "kind": kind, "manifest": facts, "files": files,
                            "tokenizer": tokenizer, **_shape(kind, config, plan)}  # fmt: skip
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


def _shape(kind: str, config: ModelConfig, plan: Plan) -> dict[str, Any]:
    if kind == "export":
        return {"config": config.to_hf(), "parameters": {"total": config.num_parameters}}
    return plan_data(config, plan)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


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
    rows = [f"  {LABELS.get(key, key)}: {value}" for key, value in _flat(facts)]
    return "Manifesto\n" + "\n".join(rows)


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as dotted key -> text, numbers with a Brazilian comma."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += _flat(value, f"{name}.")
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
