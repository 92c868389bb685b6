"""The results of `bench gpu` as blocks of a page, as Markdown, and as the files gpu.md and gpu.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.bench.gpu.check import SECTIONS, GpuCheck
from ptbr_slm.bench.gpu.results import Check, Line, SectionResult
from ptbr_slm.bench.machine import about, markdown_line
from ptbr_slm.storage.atomic import write_json, write_text
from ptbr_slm.text import number

SMOKE = (
    "Ensaio (--smoke): tudo foi encolhido para experimentar o comando; "
    "estes números não dizem nada sobre uma GPU."
)
WORDS = {
    "ok": "medido", "failed": "FALHOU", "error": "erro", "oom": "sem memória", "time": "tempo esgotado",
    "absent": "sem medida", "skipped": "não coube no tempo",
}  # fmt: skip
PASSED = {True: "passou", False: "FALHOU", None: "sem medida"}
DASH = "–"
SHORT = 60
"""Characters of a reason in the table of sections; the whole of it stands with the section."""

Format = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the page: a heading, a paragraph, or a table where there is a header."""

    text: str = ""
    level: int = 0
    """Of a heading; 0: a paragraph."""
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def blocks(check: GpuCheck) -> Iterator[Block]:
    """The page from top to bottom."""
    if check.smoke:
        yield Block(SMOKE)
    yield Block("ptbr-slm bench gpu", 1)
    yield Block(about(check.machine))
    if not check.finished:
        yield Block("Ainda não terminou: as seções que faltam não estão aqui.")
    yield Block(
        header=("seção", "resultado", "segundos", "limite", "razão"),
        rows=tuple(
            (s.name, WORDS[s.status], number(s.seconds, 1), number(s.limit_s), _short(s.reason))
            for s in check.sections
        ),
    )
    checks = [(s.name, c) for s in check.sections for c in s.answer.checks]
    if checks:
        yield Block("Verificações", 2)
        yield Block(
            header=("seção", "verificação", "medido", "tolerância", "resultado"),
            rows=tuple(
                (name, c.label, significant(c.measured), tolerance(c), PASSED[c.passed]) for name, c in checks
            ),
        )
    for section in check.sections:
        yield from _section(section)


def _section(section: SectionResult) -> Iterator[Block]:
    title = next(s.title for s in SECTIONS if s.name == section.name)
    yield Block(f"{title} ({section.name})", 2)
    if len(section.reason) > SHORT:
        yield Block(section.reason)
    measured = [line for line in section.answer.lines if line.status == "ok"]
    for columns in TABLES[section.name]:
        mine = [line for line in measured if columns[0][0] in line.figures]
        if mine:
            yield Block(
                header=("", *(header for _, header, _ in columns)),
                rows=tuple(_row(line, columns) for line in mine),
            )
    for line in measured:
        if line.name == "software":
            yield Block(_software(line.figures))
    missing = [line for line in section.answer.lines if line.status != "ok"]
    if missing:
        yield Block(
            header=("sem medida", "resultado", "razão"),
            rows=tuple((line.name, WORDS[line.status], line.reason) for line in missing),
        )
    for note in section.answer.notes:
        yield Block(note)


def markdown(check: GpuCheck) -> str:
    """The page as gpu.md has it."""
    parts = []
    for block in blocks(check):
        if block.header:
            rule = [":--"] + ["--:"] * (len(block.header) - 1)
            lines = [markdown_line(_escaped(cells)) for cells in (block.header, rule, *block.rows)]
            parts.append("\n".join(lines))
        else:
            parts.append(f"{'#' * block.level} {block.text}" if block.level else block.text)
    return "\n\n".join(parts) + "\n"


def write(check: GpuCheck, folder: Path) -> tuple[Path, Path]:
    """Write gpu.md and gpu.json into `folder`, each whole. Raises E_PERMISSION, E_DISK_FULL."""
    page, body = folder / "gpu.md", folder / "gpu.json"
    write_json(body, check.to_json())
    write_text(page, markdown(check))
    return page, body


def significant(value: float | None) -> str:
    """Four digits, with a comma; a dash for what was not measured."""
    return DASH if value is None else f"{value:.4g}".replace(".", ",")


def tolerance(check: Check) -> str:
    """The bounds of a check."""
    low, high = significant(check.low), significant(check.high)
    if check.low is None:
        return f"até {high}"
    return f"a partir de {low}" if check.high is None else f"de {low} a {high}"


def _times(factor: float, digits: int) -> Format:
    return lambda value: number(float(value) * factor, digits)


def _text(value: Any) -> str:
    return str(value)


def _percent(value: Any) -> str:
    return f"{number(100 * float(value), 1)} %"


def _finest(value: Any) -> str:
    return significant(float(value))


_COUNT, _GIB, _MIB = _times(1, 0), _times(1 / (1 << 30), 2), _times(1 / (1 << 20), 1)
Columns = tuple[tuple[str, str, Format], ...]
"""(key of a line's figures, header, format); a line belongs to the table whose first key it has."""

_TRAINING: Columns = (
    ("tokens_per_second", "tokens/s", _COUNT),
    ("predicted_tokens_per_second", "calculado", _COUNT),
    ("mfu", "MFU", _percent),
    ("mfu_gemm", "MFU GEMM", _percent),
    ("batch_size", "lote", _COUNT),
    ("checkpointing", "recalcula", _text),
    ("loss", "perda", _text),
    ("peak_bytes", "pico GiB", _GIB),
    ("predicted_bytes", "calculado", _GIB),
    ("reserved_bytes", "reservado", _GIB),
    ("memory_error", "erro", _percent),
    ("skipped_steps", "pulados", _COUNT),
)
TABLES: Mapping[str, tuple[Columns, ...]] = {
    "machine": (
        (
            ("card", "placa", _text), ("capability", "compute capability", _text),
            ("total_bytes", "GiB", _GIB), ("free_bytes", "livres GiB", _GIB), ("driver", "driver", _text),
            ("power_limit_w", "limite W", _COUNT),
        ),
    ),
    "gemm": (
        (("flops", "TFLOP/s", _times(1e-12, 2)), ("nameplate", "ficha técnica", _times(1e-12, 1)),
         ("share", "parte", _percent)),
        (("bytes_per_second", "GB/s", _times(1e-9, 1)), ("nameplate", "ficha técnica", _times(1e-9, 0)),
         ("share", "parte", _percent)),
        (("seconds", "µs por kernel", _times(1e6, 2)), ("planned_seconds", "no planejador", _times(1e6, 2))),
    ),
    "amp": (
        (
            ("fp32", "fp32", _times(1, 4)), ("fp16", "fp16", _times(1, 4)),
            ("smoothed_fp32", "suavizada fp32", _times(1, 4)),
            ("smoothed_fp16", "suavizada fp16", _times(1, 4)), ("difference", "diferença", _finest),
            ("scale", "escala", _COUNT),
        ),
    ),
    "memory": (
        (
            ("error", "erro", _percent), ("batch_size", "lote", _COUNT),
            ("predicted_bytes", "calculado GiB", _GIB), ("peak_bytes", "medido GiB", _GIB),
            ("reserved_bytes", "reservado GiB", _GIB), ("instant", "instante", _text),
        ),
    ),
    "speed": (_TRAINING,),
    "ranks": (
        _TRAINING,
        (("difference", "diferença da perda", _finest),),
    ),
    "onnx": (
        (
            ("decode_tokens_per_second", "escrita, tokens/s", _times(1, 1)),
            ("prefill_tokens_per_second", "leitura, tokens/s", _COUNT),
            ("first_token_s", "1º token, ms", _times(1e3, 1)), ("bandwidth_share", "da banda", _percent),
            ("device", "onde", _text), ("sdpa_kernel", "atenção", _text), ("kv_bytes", "KV MiB", _MIB),
            ("export_bytes", "arquivo MiB", _MIB), ("open_s", "abrir, s", _times(1, 1)),
        ),
        (
            ("provider", "quem respondeu", _text), ("cosine", "cosseno", _times(1, 6)),
            ("weights", "pesos", _finest), ("bits_per_byte", "bits por byte", _finest),
            ("seconds", "s", _times(1, 1)),
        ),
    ),
    "graphs": (
        (("seconds", "ms por passo", _times(1e3, 3)), ("tokens_per_second", "tokens/s", _COUNT)),
    ),
    "tests": (
        (
            ("passed", "passaram", _COUNT), ("failed", "falharam", _COUNT), ("skipped", "pulados", _COUNT),
            ("seconds", "s", _COUNT),
        ),
    ),
}  # fmt: skip


def _row(line: Line, columns: Columns) -> tuple[str, ...]:
    values = [(line.figures.get(key), form) for key, _, form in columns]
    return (line.name, *(DASH if value is None else form(value) for value, form in values))


def _software(figures: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version or 'ausente'}" for name, version in figures["packages"].items())
    return (
        f"Python {figures['python']}, torch {figures['torch']}, CUDA {figures['cuda'] or 'ausente'}, "
        f"cuDNN {figures['cudnn'] or 'ausente'}, NCCL {figures['nccl'] or 'ausente'}; {packages}."
    )


def _short(reason: str) -> str:
    return reason if len(reason) <= SHORT else reason[: SHORT - 1] + "…"


def _escaped(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]
