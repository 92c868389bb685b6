"""avaliacao.html: one file for a reader, no script, nothing from the network."""

from __future__ import annotations

import html
from collections.abc import Sequence

from ptbr_slm.eval.report import plot
from ptbr_slm.eval.report.rows import READINGS, Row, Section, bits_cells, sections
from ptbr_slm.eval.results import Results
from ptbr_slm.text import number
from ptbr_slm.version import __version__

_STYLE = (
    ":root{--fundo:#fff;--texto:#1c2430;--suave:#5b6472;--linha:#1f4e8c;--borda:#dfe3e8;--caixa:#f5f7f9}"
    "@media(prefers-color-scheme:dark){:root{--fundo:#14181e;--texto:#e6e9ee;--suave:#9aa4b2;--linha:#7fb0ee;"
    "--borda:#2b323c;--caixa:#1c222a}}"
    "*{box-sizing:border-box}body{font:16px/1.55 system-ui,sans-serif;max-width:70rem;margin:0 auto;"
    "padding:1.5rem 1rem 4rem;background:var(--fundo);color:var(--texto)}h1{margin:.2rem 0;font-size:1.6rem;"
    "overflow-wrap:anywhere}h2{margin:2.2rem 0 .8rem;font-size:1.2rem}p,.nota{max-width:46rem}"
    ".suave,.nada,.nota{color:var(--suave)}.nota{font-size:.9rem;margin:.3rem 0}"
    ".paineis{columns:20rem;column-gap:1.5rem}.notas{break-inside:avoid;margin-bottom:1rem}"
    ".rolar{overflow-x:auto}table{border-collapse:collapse}td,th{padding:.3rem .9rem .3rem 0;"
    "text-align:right;white-space:nowrap;border-bottom:1px solid var(--borda);"
    "font-variant-numeric:tabular-nums}"
    "td:first-child,th:first-child,td:last-child{text-align:left}td:first-child{white-space:normal;"
    "min-width:11rem}th{font-weight:600}.nosso td{font-weight:600;color:var(--linha)}"
)


def page(results: Results) -> str:
    """The whole page."""
    model = results.model
    facts = [
        *([f"{number(model.parameters)} parâmetros"] if model.parameters is not None else []),
        f"contexto de {number(model.context)} tokens",
        f"ptbr-slm {__version__}",
        f"modelo {model.identity[:12]}",
    ]
    shown = sections(results)
    parts = [
        f"<h1>Avaliação de {_safe(model.name)}</h1>\n<p class='suave'>{_safe(' · '.join(facts))}</p>\n",
        f"<div class='paineis'>{''.join(plot.panels(results))}</div>\n",
        "<p class='nota'>Ponto: a nota. Faixa: o intervalo de 95 %. Traço vermelho: o que acerta quem "
        "adivinha. Anéis: modelos publicados, pelo mesmo protocolo. Em cinza, o que não permite concluir "
        "nada.</p>\n",
        _bits(results) if results.bits else "",
        *map(_section, shown),
        *_published([row for section in shown for row in section.rows]),
    ]
    if results.refused:
        lines = "".join(f"<li>{_safe(one.name)}: {_safe(one.message)}</li>" for one in results.refused)
        parts.append(f"<h2>Não foi medido</h2>\n<ul>{lines}</ul>\n")
    readings = {row.reading for section in shown for row in section.rows if row.reading}
    notes = "".join(
        f"<p class='nota'>{_safe(name)}: {_safe(READINGS[name])}</p>" for name in sorted(readings)
    )
    parts.append(f"<h2>Como ler</h2>\n{_READ}{notes}\n")
    return (
        '<!doctype html>\n<html lang="pt-BR">\n<head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>Avaliação de {_safe(model.name)}</title>\n<style>{_STYLE}{plot.STYLE}</style></head>\n"
        f"<body>\n{''.join(parts)}</body></html>\n"
    )


_READ = (
    "<p>Um intervalo de 95 % diz entre que valores a nota ficaria com outros itens do mesmo tipo. Dois "
    "modelos cujos intervalos se tocam podem ainda diferir: quem decide é <code>ptbr-slm eval compare A "
    "B</code>, que compara item por item.</p>"
)


def _bits(results: Results) -> str:
    head = ["texto", "bits por byte", "95 %", "documentos", "alvos", "tokens por documento", ""]
    lines = [
        _cells([record.name, *bits_cells(record), number(record.median_tokens), ""], "")
        for record in results.bits
    ]
    notes = [
        f"<p class='nota'>{_safe(record.name)}: {_safe(note)}</p>"
        for record in results.bits
        for note in record.notes
    ]
    return f"<h2>Bits por byte</h2>\n{_table(head, lines)}{''.join(notes)}\n"


def _section(section: Section) -> str:
    head = ["", "%", "95 %", "acaso", "itens", ""]
    lines = [
        _cells(
            [
                row.label,
                row.shown(row.value),
                row.shown_interval,
                "" if row.chance is None else row.shown(row.chance),
                row.shown_items,
                row.reading,
            ],
            "nada" if row.reading else "",
        )
        for row in section.rows
    ]
    notes = "".join(
        f"<p class='nota'>{_safe(name)}: {_safe(protocol)}.</p>"
        for name, protocol in section.protocols
        if protocol
    )
    return f"<h2>{_safe(section.title)}</h2>\n{_table(head, lines)}{notes}\n"


def _published(rows: Sequence[Row]) -> list[str]:
    """A table for each task of which models are published, this one among them."""
    found = []
    for row in rows:
        if not row.published:
            continue
        entries = [(model, value, "") for model, value in row.published.items()]
        entries.append(("este modelo", row.value, "nosso"))
        entries.sort(key=lambda entry: -entry[1])
        lines = [_cells([model, row.shown(value), ""], kind) for model, value, kind in entries]
        found.append(
            f"<h2>{_safe(row.name)}: modelos publicados</h2>\n{_table(['modelo', '%', ''], lines)}\n"
        )
    return found


def _table(head: Sequence[str], lines: Sequence[str]) -> str:
    names = "".join(f"<th>{_safe(name)}</th>" for name in head)
    return f"<div class='rolar'><table><tr>{names}</tr>{''.join(lines)}</table></div>"


def _cells(cells: Sequence[str], kind: str) -> str:
    body = "".join(f"<td>{_safe(cell)}</td>" for cell in cells)
    return f"<tr class='{kind}'>{body}</tr>" if kind else f"<tr>{body}</tr>"


def _safe(text: object) -> str:
    return html.escape(str(text))
