"""The results of `bench generate` for a terminal, and as Markdown, JSON and SVG files.

The picture is drawn here, as bars, for a page that shows SVG.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ptbr_slm.bench.generate import Candidate, CaseResult, Figures, GenerateBench, Spread
from ptbr_slm.bench.machine import about, markdown_line
from ptbr_slm.storage.atomic import write_text
from ptbr_slm.text import number
from ptbr_slm.train.reporting.curves import axis

HEADER = (
    "modelo", "precisão", "disp.", "lote", "texto", "leitura, tokens/s", "1º token, ms", "escrita, tokens/s",
    "da banda", "pico MiB", "KV MiB",
)  # fmt: skip
MIB = 1 << 20
NOTES = (
    "Mediana (menor–maior) das repetições, depois de uma que não conta; pesos e textos sorteados servem: a",
    "velocidade não depende do que o modelo aprendeu. Escolha gulosa, sem contar a tokenização.",
    "leitura: os textos iniciais, um por um. 1º token: de um texto, com o modelo já aberto e aquecido.",
    "escrita: todas as linhas do lote juntas; na GPU, o token é escolhido nela.",
    "KV: memória de chaves e valores, como foi alocada.",
    "da banda: bytes que um passo de escrita lê (pesos, chaves e valores; calculados) vezes os passos",
    "por segundo, sobre a leitura da memória medida agora com NumPy. Só no processador.",
    "Outro programa trabalhando ao mesmo tempo muda tudo: compare só o que foi medido na mesma execução.",
)


def rows(bench: GenerateBench) -> list[list[str]]:
    """A line for each batch and prompt; one without figures has its reason instead."""
    lines = []
    for candidate in bench.candidates:
        for result in candidate.results:
            if result.status != "ok":
                word = {"oom": "sem memória", "time": "tempo esgotado"}.get(result.status, "erro")
                lines.append([candidate.name, "–", "–", str(result.case.batch), word, *["–"] * 6])
            lines += [_row(bench, candidate, result, figures) for figures in result.figures]
    return lines


def remarks(bench: GenerateBench) -> list[str]:
    """Bandwidth, cold starts, ratios, and what could not be measured."""
    lines = [
        f"Leitura da memória: {number(bench.bandwidth / 1e9, 1)} GB/s com {bench.threads} "
        f"{'thread' if bench.threads == 1 else 'threads'} (medida)."
    ]
    for candidate in bench.candidates:
        if candidate.cold is not None:
            lines.append(
                f"{candidate.name}: do início do processo ao primeiro texto, {spread(candidate.cold, 2)} s "
                "(arquivos já na memória do sistema)."
            )
    lines += ratios(bench)
    for candidate in bench.candidates:
        for result in candidate.results:
            if result.status != "ok":
                lines.append(f"{candidate.name}, lote {result.case.batch}: {result.reason}")
        skipped = dict.fromkeys(text for result in candidate.results for text in result.skipped)
        lines += [f"{candidate.name}: {text}; não medido." for text in skipped]
    return lines


def ratios(bench: GenerateBench) -> list[str]:
    """The first model against each other one, where both were measured."""
    first, *others = bench.candidates
    mine = _by_shape(first)
    lines = []
    for other in others:
        for shape, theirs in _by_shape(other).items():
            if shape in mine:
                ours = mine[shape]
                decode = number(ours.decode.median / theirs.decode.median, 2)
                prefill = number(ours.prefill.median / theirs.prefill.median, 2)
                lines.append(
                    f"{first.name} / {other.name}, lote {shape[0]}, texto {shape[1]}: "
                    f"escrita {decode}x, leitura {prefill}x."
                )
    return lines


def markdown(bench: GenerateBench) -> str:
    """The page that `-o` writes."""
    lines = ["# ptbr-slm bench generate", "", about(bench.machine), ""]
    lines += [markdown_line(HEADER), markdown_line([":--"] * 3 + ["--:"] * (len(HEADER) - 3))]
    lines += [markdown_line(row) for row in rows(bench)]
    lines += [
        "",
        *(f"- {text}" for text in remarks(bench)),
        "",
        "![escrita e leitura](generate.svg)",
        "",
        *NOTES,
    ]
    return "\n".join(lines) + "\n"


def write(bench: GenerateBench, folder: Path) -> tuple[Path, Path, Path]:
    """Write generate.md, generate.json and generate.svg. Raises E_PERMISSION, E_DISK_FULL."""
    page, body, drawing = (folder / f"generate.{kind}" for kind in ("md", "json", "svg"))
    write_text(page, markdown(bench))
    write_text(body, json.dumps(bench.to_json(), ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    write_text(drawing, picture(bench))
    return page, body, drawing


def spread(values: Spread, decimals: int = 0) -> str:
    """`median (low–high)`."""
    return (
        f"{number(values.median, decimals)} ({number(values.low, decimals)}–{number(values.high, decimals)})"
    )


def _row(bench: GenerateBench, candidate: Candidate, result: CaseResult, figures: Figures) -> list[str]:
    share = bench.share(figures) if result.device == "cpu" else None
    peak = result.peak_bytes if result.device_bytes is None else result.device_bytes
    return [
        candidate.name,
        result.precision,
        result.device,
        str(figures.batch),
        str(figures.prompt),
        spread(figures.prefill),
        spread(figures.first_token_s.times(1000), 1),
        spread(figures.decode),
        "–" if share is None else f"{number(100 * share)} %",
        _mib(peak),
        _mib(figures.kv_bytes),
    ]


def _by_shape(candidate: Candidate) -> dict[tuple[int, int], Figures]:
    return {(f.batch, f.prompt): f for result in candidate.results for f in result.figures}


def _mib(size: int | None) -> str:
    return "–" if size is None else number(size / MIB, 0 if size >= MIB * 10 else 1)


WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 460, 260, 56, 48, 34
COLORS = ("#1f4e8c", "#b3402a", "#2c7a51", "#7a5c1f")
"""One a model, in order."""


def picture(bench: GenerateBench) -> str:
    """Writing and reading speed by batch, a bar a model with its lowest and highest, as one SVG file."""
    panels = [
        _panel(bench, "escrita, tokens/s por tamanho do lote", lambda of: of.decode, 0),
        _panel(
            bench,
            "leitura do texto inicial, tokens/s por tamanho do lote",
            lambda of: of.prefill,
            WIDTH + 20,
        ),
    ]
    width = 2 * WIDTH + 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
        f'height="{HEIGHT}" font-family="system-ui,sans-serif" font-size="11" fill="#3c4552">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(panels)}</svg>\n'
    )


def _panel(bench: GenerateBench, title: str, speed: Callable[[Figures], Spread], x: int) -> str:
    """One panel of the longest prompt's figures."""
    named = [(candidate.name, _longest(figures_of(bench, candidate.name))) for candidate in bench.candidates]
    batches = sorted({batch for _, figures in named for batch in figures})
    values = [speed(figure).high for _, figures in named for figure in figures.values()]
    if not values:
        return ""
    _, top, ticks = axis([0.0, *values])
    bottom, span = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP

    def height(value: float) -> float:
        return bottom - span * value / top

    parts = [f'<text x="8" y="16" font-size="12" font-weight="600">{html.escape(title)}</text>']
    for tick in ticks:
        y = height(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d5d9e0"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    group = (WIDTH - LEFT - 8) / len(batches)
    bar = 0.7 * group / len(named)
    for position, batch in enumerate(batches):
        left = LEFT + position * group
        parts.append(
            f'<text x="{left + group / 2:.1f}" y="{HEIGHT - 14}" text-anchor="middle">{batch}</text>'
        )
        for index, (_, figures) in enumerate(named):
            if batch in figures:
                at = left + 0.15 * group + index * bar
                parts.append(_bar(speed(figures[batch]), at, bar, height, bottom, COLORS[index % 4]))
    parts += [_legend(index, name) for index, (name, _) in enumerate(named)]
    return f'<g transform="translate({x},0)">{"".join(parts)}</g>'


def figures_of(bench: GenerateBench, name: str) -> Sequence[Figures]:
    """All figures of one model."""
    candidate = next(candidate for candidate in bench.candidates if candidate.name == name)
    return [figures for result in candidate.results for figures in result.figures]


def _longest(figures: Sequence[Figures]) -> dict[int, Figures]:
    """batch -> the figures with the longest prompt."""
    return {f.batch: f for f in sorted(figures, key=lambda f: f.prompt)}


def _bar(
    spread: Spread, at: float, width: float, height: Callable[[float], float], floor: float, color: str
) -> str:
    y, middle = height(spread.median), at + width / 2
    return (
        f'<rect x="{at:.1f}" y="{y:.1f}" width="{0.9 * width:.1f}" height="{floor - y:.1f}" fill="{color}"/>'
        f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{height(spread.low):.1f}" '
        f'y2="{height(spread.high):.1f}" stroke="#111"/>'
        f'<text x="{middle:.1f}" y="{height(spread.high) - 3:.1f}" text-anchor="middle">'
        f"{number(spread.median)}</text>"
    )


def _legend(index: int, name: str) -> str:
    x = LEFT + 130 * index
    return (
        f'<rect x="{x}" y="24" width="10" height="10" fill="{COLORS[index % 4]}"/>'
        f'<text x="{x + 14}" y="33">{html.escape(name[:18])}</text>'
    )
