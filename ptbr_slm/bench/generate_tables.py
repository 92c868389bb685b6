"""The results of `bench generate` for a terminal, and as Markdown, JSON and SVG files."""

from __future__ import annotations

import json
from pathlib import Path

from ptbr_slm.bench.generate_cases import CaseResult, Entrant, Figures, GenerateBench, Spread
from ptbr_slm.bench.generate_plot import picture
from ptbr_slm.bench.tables import about, markdown_line
from ptbr_slm.brazilian import number
from ptbr_slm.storage.atomic import write_text

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
    for entrant in bench.entrants:
        for result in entrant.results:
            if result.status != "ok":
                word = {"oom": "sem memória", "time": "tempo esgotado"}.get(result.status, "erro")
                lines.append([entrant.name, "–", "–", str(result.case.batch), word, *["–"] * 6])
            lines += [_row(bench, entrant, result, figures) for figures in result.figures]
    return lines


def remarks(bench: GenerateBench) -> list[str]:
    """Bandwidth, cold starts, ratios, and what could not be measured."""
    lines = [
        f"Leitura da memória: {number(bench.bandwidth / 1e9, 1)} GB/s com {bench.threads} "
        f"{'thread' if bench.threads == 1 else 'threads'} (medida)."
    ]
    for entrant in bench.entrants:
        if entrant.cold is not None:
            lines.append(
                f"{entrant.name}: do início do processo ao primeiro texto, {spread(entrant.cold, 2)} s "
                "(arquivos já na memória do sistema)."
            )
    lines += ratios(bench)
    for entrant in bench.entrants:
        for result in entrant.results:
            if result.status != "ok":
                lines.append(f"{entrant.name}, lote {result.case.batch}: {result.reason}")
        told = dict.fromkeys(text for result in entrant.results for text in result.skipped)
        lines += [f"{entrant.name}: {text}; não medido." for text in told]
    return lines


def ratios(bench: GenerateBench) -> list[str]:
    """The first model against each other one, where both were measured."""
    first, *others = bench.entrants
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


def _row(bench: GenerateBench, entrant: Entrant, result: CaseResult, figures: Figures) -> list[str]:
    share = bench.share(figures) if result.device == "cpu" else None
    peak = result.peak_bytes if result.device_bytes is None else result.device_bytes
    return [
        entrant.name,
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


def _by_shape(entrant: Entrant) -> dict[tuple[int, int], Figures]:
    return {(f.batch, f.prompt): f for result in entrant.results for f in result.figures}


def _mib(size: int | None) -> str:
    return "–" if size is None else number(size / MIB, 0 if size >= MIB * 10 else 1)
