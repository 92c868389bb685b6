"""report/: what a run did, for a person: report.md, report.html, loss.svg, samples.md."""

from __future__ import annotations

import html
import io
import platform
import re
from pathlib import Path
from typing import Any

import torch

from ptbr_slm.brazilian import number
from ptbr_slm.storage.atomic import atomic_folder, write_text
from ptbr_slm.train.checkpoint import TrainState
from ptbr_slm.train.config_file import to_toml
from ptbr_slm.train.metrics import read_metrics
from ptbr_slm.train.plan import Plan
from ptbr_slm.train.status import duration
from ptbr_slm.version import __version__

Records = list[dict[str, Any]]


def write_report(run: Path, plan: Plan, state: TrainState) -> Path:
    """Write run/report from run/metrics.jsonl, replacing an earlier one. Returns the folder."""
    records = read_metrics(run / "metrics.jsonl")
    by_event: dict[str, Records] = {"step": [], "eval": [], "sample": []}
    for record in records:
        by_event.setdefault(record["event"], []).append(record)
    facts = _facts(run, plan, state, by_event)
    svg = loss_plot(by_event["step"], by_event["eval"])
    with atomic_folder(run / "report") as folder:
        write_text(folder / "loss.svg", svg)
        write_text(folder / "samples.md", _samples_markdown(by_event["sample"]))
        write_text(folder / "report.md", _markdown(run, facts, by_event["sample"], to_toml(plan.config)))
        write_text(folder / "report.html", _html(run, facts, by_event["sample"], to_toml(plan.config), svg))
    return run / "report"


def loss_plot(steps: Records, evals: Records) -> str:
    """The SVG of the loss (nats a token, left) and of bits per byte (right) over steps."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    x, y = [r["step"] for r in steps], [r["loss"] for r in steps]
    axes.plot(x, y, color="#9db8d9", linewidth=0.8, label="perda de cada passo")
    axes.plot(x, smoothed(y), color="#1f4e8c", linewidth=1.8, label="perda suavizada")
    axes.set_xlabel("passo")
    axes.set_ylabel("perda (nats por token)")
    axes.grid(alpha=0.25)
    handles, labels = axes.get_legend_handles_labels()
    if evals:
        right = axes.twinx()
        x, y = [r["step"] for r in evals], [r["bits_per_byte"] for r in evals]
        right.plot(x, y, color="#c45a11", marker="o", markersize=3, label="bits por byte (validação)")
        right.set_ylabel("bits por byte")
        handles += right.get_legend_handles_labels()[0]
        labels += right.get_legend_handles_labels()[1]
    axes.legend(handles, labels, frameon=False)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def smoothed(values: list[float], memory: float = 0.95) -> list[float]:
    """Exponential mean, corrected for its start (as Adam does)."""
    mean, weight, result = 0.0, 0.0, []
    for value in values:
        mean = memory * mean + (1 - memory) * value
        weight = memory * weight + (1 - memory)
        result.append(mean / weight)
    return result


def _facts(run: Path, plan: Plan, state: TrainState, by_event: dict[str, Records]) -> list[tuple[str, str]]:
    model, config = plan.model, plan.config
    facts = [
        ("parâmetros", number(model.num_parameters)),
        ("formato", f"{model.num_layers} camadas x {model.hidden_size}, "
                    f"{model.num_heads}/{model.num_kv_heads} cabeças, "
                    f"vocabulário {number(model.vocab_size)}, contexto {number(model.max_seq_len)}"),
        ("passos", f"{number(state.step)} de {number(config.max_steps)}"),
        ("tokens treinados", f"{number(state.tokens)} ({number(config.step_tokens)} por passo)"),
        ("tempo de treino", duration(state.elapsed_s)),
        ("precisão", f"{plan.precision.name}: {plan.precision.reason}"),
    ]  # fmt: skip
    if by_event["step"]:
        first, last = by_event["step"][0], smoothed([r["loss"] for r in by_event["step"]])[-1]
        facts.append(
            ("perda", f"{number(first['loss'], 3)} no passo {first['step']}, {number(last, 3)} no fim")
        )
    if by_event["eval"]:
        facts.append(("bits por byte na validação", number(by_event["eval"][-1]["bits_per_byte"], 4)))
    if state.skipped_steps:
        facts.append(("passos saltados (fp16)", number(state.skipped_steps)))
    versions = f"ptbr-slm {__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}"
    return [*facts, ("versões", versions), ("pasta", str(run))]


def _markdown(run: Path, facts: list[tuple[str, str]], samples: Records, toml: str) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts)
    return (
        f"# Treino {run.name}\n\n| | |\n|---|---|\n{rows}\n\n![Perda ao longo do treino](loss.svg)\n\n"
        f"## O que o modelo escreve\n\n{_latest(samples)}\n\nTodas as amostras: [samples.md](samples.md)\n\n"
        f"## Configuração\n\n```toml\n{toml}```\n"
    )


def _latest(samples: Records) -> str:
    if not samples:
        return "Nenhuma amostra foi escrita."
    return "\n\n".join(_quote(r) for r in samples if r["step"] == samples[-1]["step"])


def _quote(sample: dict[str, Any]) -> str:
    """A Markdown quotation; what the model wrote cannot open HTML or leave the quotation."""
    text = html.escape(f"{sample['text']}", quote=False).replace("\n", "\n> ")
    return f"> **{html.escape(sample['prompt'], quote=False)}**{text}"


def _samples_markdown(samples: Records) -> str:
    parts, step = ["# Amostras\n"], None
    for sample in samples:
        if sample["step"] != step:
            step = sample["step"]
            parts.append(f"\n## Passo {number(step)}\n")
        parts.append(f"\n{_quote(sample)}\n")
    return "".join(parts)


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "td{padding:.2rem 1rem .2rem 0;vertical-align:top}blockquote{border-left:3px solid #9db8d9;margin:1rem 0;"
    "padding-left:1rem;white-space:pre-wrap}pre{background:#f5f5f5;padding:1rem;overflow:auto}svg{max-width:100%;height:auto}"
)


def _html(run: Path, facts: list[tuple[str, str]], samples: Records, toml: str, svg: str) -> str:
    rows = "".join(f"<tr><td>{html.escape(n)}</td><td>{html.escape(v)}</td></tr>" for n, v in facts)
    newest = [r for r in samples if r["step"] == samples[-1]["step"]] if samples else []
    quotes = "".join(
        f"<blockquote><b>{html.escape(r['prompt'])}</b>{html.escape(r['text'])}</blockquote>" for r in newest
    )
    drawing = re.sub(r"^.*?(?=<svg)", "", svg, flags=re.DOTALL)
    return (
        '<!doctype html>\n<html lang="pt-BR">\n<head><meta charset="utf-8">\n'
        f"<title>Treino {html.escape(run.name)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>Treino {html.escape(run.name)}</h1>\n<table>{rows}</table>\n{drawing}\n"
        f"<h2>O que o modelo escreve</h2>\n{quotes}\n"
        f"<h2>Configuração</h2>\n<pre>{html.escape(toml)}</pre>\n</body></html>\n"
    )
