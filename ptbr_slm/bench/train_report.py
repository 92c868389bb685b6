"""The results of `bench train` for a terminal, and as Markdown and JSON files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ptbr_slm.bench.machine import GIB, about, markdown_line
from ptbr_slm.bench.train import Bench, Result
from ptbr_slm.storage.atomic import write_text
from ptbr_slm.text import number

HEADER = (
    "modelo", "caso", "disp.", "lote x seq", "recalcula", "perda", "tokens/s", "calculado", "MFU", "MFU GEMM",
    "pico GiB", "calculado", "erro", "pulados",
)  # fmt: skip

NOTES = (
    "tokens/s: medido; micro-lotes e atualização, cronometrados à parte, somam o passo inteiro do plano.",
    "calculado: o que o planejador previa. erro: memória calculada sobre a medida, menos 1.",
    "pico: na GPU, o que o PyTorch alocou; no processador, a memória residente do processo além da inicial.",
    "MFU: FLOPs do modelo, sem os que se repetem ao recalcular, sobre o pico da ficha técnica da placa;",
    "MFU GEMM: sobre um produto de matrizes medido na hora. pulados: passos que o GradScaler pulou.",
)


def rows(results: Sequence[Result]) -> list[list[str]]:
    """A line a result; one without figures has its reason in place of them."""
    return [_row(result) for result in results]


def markdown(bench: Bench) -> str:
    """The page that `-o` writes: machine, table, and what could not be measured."""
    lines = ["# ptbr-slm bench train", "", about(bench.machine), ""]
    lines += [markdown_line(HEADER), markdown_line([":--", ":--", *["--:"] * (len(HEADER) - 2)])]
    lines += [markdown_line(row) for row in rows(bench.results)]
    lines += ["", *NOTES]
    missing = [result for result in bench.results if result.status != "ok"]
    if missing:
        lines += ["", "Sem medida:", ""]
        lines += [f"- {r.case.size}, {r.case.label}: {explanation(r)}" for r in missing]
    return "\n".join(lines) + "\n"


def write(bench: Bench, folder: Path) -> tuple[Path, Path]:
    """Write bench-train.md and bench-train.json into `folder`. Raises E_PERMISSION, E_DISK_FULL."""
    page, body = folder / "bench-train.md", folder / "bench-train.json"
    write_text(page, markdown(bench))
    write_text(body, json.dumps(bench.to_json(), ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    return page, body


def explanation(result: Result) -> str:
    """Why a case has no figures."""
    if result.status == "oom" and result.predicted_bytes is not None:
        return f"sem memória: {result.reason} (calculado: {_gib(result.predicted_bytes)} GiB)"
    return {"oom": "sem memória: ", "error": "erro: "}.get(result.status, "") + result.reason


def _row(result: Result) -> list[str]:
    case = result.case
    head = [case.size, case.label, str(case.ranks)]
    setting = [
        f"{result.batch_size or '–'} x {case.seq_len}",
        result.checkpointing or "–",
        result.loss or "–",
    ]
    if result.status != "ok":
        word = {"oom": "OOM", "time": "tempo", "skipped": "não medido"}.get(result.status, "erro")
        planned = _gib(result.predicted_bytes)
        return [*head, *setting, word, "–", "–", "–", "–", planned, "–", "–"]
    error = result.memory_error
    return [
        *head,
        *setting,
        number(result.tokens_per_second or 0),
        _or_dash(result.predicted_tokens_per_second, 0),
        _percent(result.mfu),
        _percent(result.mfu_gemm),
        _gib(result.peak_bytes),
        _gib(result.predicted_bytes),
        "–" if error is None else f"{number(100 * error, 0)} %",
        str(result.skipped_steps),
    ]


def _gib(size: int | None) -> str:
    return _or_dash(None if size is None else size / GIB, 2)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{number(100 * share, 1)} %"


def _or_dash(value: float | None, digits: int) -> str:
    return "–" if value is None else number(value, digits)
