"""The report for people, in Portuguese: facts, curves, samples, sessions; as Markdown and as one page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ptbr_slm.text import number
from ptbr_slm.train.reporting.curves import STYLE as CURVES_STYLE
from ptbr_slm.train.reporting.status import duration

Found = dict[str, Any]
GIB = 2**30

REASONS = {
    "complete": "completo",
    "max_time": "tempo da sessão",
    "sigterm": "SIGTERM",
    "sighup": "o terminal fechou",
    "interrupt": "Ctrl-C",
    "KeyboardInterrupt": "Ctrl-C duas vezes",
}


def facts(found: Found) -> list[tuple[str, str]]:
    """(what, how much) of everything that is known."""
    model, loss, bits = found["model"], found["loss"], found["bits_per_byte"]
    rows = [
        ("parâmetros", number(model["parameters"])),
        ("formato", f"{model['num_layers']} camadas x {model['hidden_size']}, "
                    f"{model['num_heads']}/{model['num_kv_heads']} cabeças, vocabulário "
                    f"{number(model['vocab_size'])}, contexto {number(model['max_seq_len'])}"),
        ("passos", f"{number(found['step'])} de {number(found['max_steps'])}"),
        ("tokens treinados", f"{number(found['tokens'])} ({number(found['tokens_per_step'])} por passo)"),
        *([("dados", _data(found["data"]))] if len(found["data"]) > 1 else []),
        ("tempo de treino", duration(found["seconds"])),
        ("dispositivo", found["device"]),
        ("precisão", f"{found['precision']}: {found['precision_reason']}"),
    ]  # fmt: skip
    if loss:
        rows.append(("perda", f"{number(loss['first'], 3)} no passo {number(loss['first_step'])}, "
                              f"{number(loss['last'], 3)} no fim"))  # fmt: skip
    if bits:
        best = f" (a menor, {number(bits['best'], 4)}, no passo {number(bits['best_step'])})"
        rows.append(("bits por byte na validação", number(bits["last"], 4)
                     + (best if bits["best_step"] != bits["last_step"] else "")))  # fmt: skip
    if text := found["text_bits_per_byte"]:
        change = 100 * (text["last"] / text["first"] - 1)
        rows.append(("bits por byte no texto do pré-treino", f"{number(text['last'], 4)} "
                     f"({number(change, 1)} % desde o passo {number(text['first_step'])})"))  # fmt: skip
    if found["cooldown"]:
        cooled, step = found["cooldown"].get("bits_per_byte"), found["cooldown"]["step"]
        what = f": {number(cooled, 4)} bits por byte" if cooled else ""
        rows.append(
            ("modelo resfriado no fim da sessão", f"em final/, a partir do passo {number(step)}{what}")
        )
    if average := found["average"]:
        steps = f"{number(average['first_step'])} a {number(average['step'])}"
        what = "média dos pesos no fim da sessão"
        rows.append((what, f"em final/, dos passos {steps}{_against_raw(average)}"))
    return rows + _speed(found) + _trouble(found)


def _against_raw(average: Found) -> str:
    bits, raw = average.get("bits_per_byte"), average.get("raw_bits_per_byte")
    return f": {number(bits, 4)} bits por byte (sem a média, {number(raw, 4)})" if bits and raw else ""


def _data(read: Sequence[Found]) -> str:
    """Which data were read from which step on; more than one with --cooldown-data."""
    return "; ".join(f"sha256 {entry['sha256'][:16]} desde o passo {number(entry['step'])}" for entry in read)


def _speed(found: Found) -> list[tuple[str, str]]:
    rows = []
    if found["tokens_per_second"]:
        rows.append(("velocidade", f"{number(found['tokens_per_second'])} tokens/s (mediana)"))
    shares = [
        f"{number(100 * found[name], 1)} % {of}"
        for name, of in (("mfu", "do pico da placa"), ("mfu_gemm", "de um produto de matrizes medido aqui"))
        if found[name]
    ]
    if shares:
        rows.append(("aproveitamento (MFU)", "; ".join(shares)))
    if found["memory_bytes"]:
        rows.append(("memória máxima", f"{number(found['memory_bytes'] / GIB, 2)} GiB"))
    if found["energy_kwh"] is not None:
        rows.append(("energia das GPUs", f"{number(found['energy_kwh'], 3)} kWh"))
    return rows


def _trouble(found: Found) -> list[tuple[str, str]]:
    rows = []
    if found["skipped_steps"]:
        scale = found["lowest_scale"]
        lowest = f"; menor escala {number(scale)}" if scale else ""
        rows.append(("passos saltados", f"{number(found['skipped_steps'])}{lowest}"))
    if found["rollbacks"]:
        steps = ", ".join(number(r.get("from_step", r["step"])) for r in found["rollbacks"])
        rows.append(("voltas a um checkpoint anterior", f"{len(found['rollbacks'])}, no passo {steps}"))
    if found["out_of_memory"]:
        rows.append(
            ("falta de memória", f"{len(found['out_of_memory'])} vez(es), resolvida em pedaços menores")
        )
    known = [f"{name} {version}" for name, version in (found["versions"] or {}).items()]
    if found["commit"]:
        known.append(f"commit {found['commit']}")
    if known:
        rows.append(("versões", ", ".join(known)))
    return rows


def session_rows(found: Found) -> list[tuple[str, str, str, str, str]]:
    """(number, start, how long, steps, why it ended) of each session."""
    rows = []
    for index, session in enumerate(found["sessions"], 1):
        start, end = _moment(session.get("start")), _moment(session.get("end"))
        first, last = session.get("step"), session.get("end_step")
        reason = session.get("reason")
        if reason is None:
            why = "em curso" if index == len(found["sessions"]) else "interrompida sem aviso"
        else:
            why = REASONS.get(reason, reason)
        steps = (
            f"{number(first)} a {number(last) if isinstance(last, int) else '?'}"
            if first is not None
            else "?"
        )
        rows.append(
            (
                str(index),
                f"{start:%d/%m/%Y %H:%M}" if start else "?",
                duration((end - start).total_seconds()) if start and end else "?",
                steps,
                why,
            )
        )
    return rows


SESSION_HEADER = ("sessão", "início", "duração", "passos", "fim")


def markdown_page(found: Found, toml: str) -> str:
    """report.md."""
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in facts(found))
    parts = [
        f"# Treino {found['run']}\n\n| | |\n|---|---|\n{rows}\n",
        "![Curvas do treino](loss.svg)\n",
        f"## O que o modelo escreve\n\n{_quotes(found['samples'])}\n",
        "Todas as amostras: [samples.md](samples.md)\n",
    ]
    if found["sessions"]:
        head = f"| {' | '.join(SESSION_HEADER)} |\n|{'---|' * len(SESSION_HEADER)}\n"
        body = "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in session_rows(found))
        parts.append(f"## Sessões\n\n{head}{body}\n")
    if found["command"]:
        parts.append(f"## Comando\n\n```bash\n{found['command']}\n```\n")
    parts.append(f"## Configuração\n\n```toml\n{toml}```\n")
    return "\n".join(parts)


def samples_page(samples: Sequence[dict[str, Any]]) -> str:
    """samples.md: all of them, by step."""
    parts, step = ["# Amostras\n"], None
    for sample in samples:
        if sample["step"] != step:
            step = sample["step"]
            parts.append(f"\n## Passo {number(step)}\n")
        parts.append(f"\n{_quote(sample)}\n")
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _quotes(samples: Sequence[dict[str, Any]]) -> str:
    return "\n\n".join(map(_quote, samples)) if samples else "Nenhuma amostra foi escrita."


def _quote(sample: dict[str, Any]) -> str:
    """A Markdown quotation; what the model wrote cannot open HTML or leave the quotation."""
    text = html.escape(f"{sample['text']}", quote=False).replace("\n", "\n> ")
    return f"> **{html.escape(str(sample['prompt']), quote=False)}**{text}"


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


_STYLE = (
    ":root{--fundo:#fff;--texto:#1c2430;--suave:#5b6472;--linha:#1f4e8c;--borda:#dfe3e8;--caixa:#f5f7f9}"
    "@media(prefers-color-scheme:dark){:root{--fundo:#14181e;--texto:#e6e9ee;--suave:#9aa4b2;--linha:#7fb0ee;"
    "--borda:#2b323c;--caixa:#1c222a}}"
    "*{box-sizing:border-box}body{font:16px/1.55 system-ui,sans-serif;max-width:70rem;margin:0 auto;"
    "padding:1.5rem 1rem 4rem;background:var(--fundo);color:var(--texto)}h1{margin:.2rem 0 1rem}"
    "h2{margin:2.2rem 0 .8rem;font-size:1.2rem}.curvas{display:grid;gap:1.2rem;"
    "grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr))}.painel{width:100%;max-width:34rem;"
    "height:auto;color:var(--suave)!important}table{border-collapse:collapse;width:100%}"
    "td,th{padding:.35rem .8rem .35rem 0;vertical-align:top;text-align:left;"
    "border-bottom:1px solid var(--borda)}"
    ".fatos td:first-child{color:var(--suave);width:14rem}.rolar{overflow-x:auto}"
    "blockquote{border-left:3px solid var(--linha);margin:1rem 0;padding-left:1rem;white-space:pre-wrap;"
    "overflow-wrap:anywhere;font-family:Georgia,serif}pre{background:var(--caixa);padding:1rem;overflow:auto;"
    "border-radius:6px}pre.comando{white-space:pre-wrap;overflow-wrap:anywhere}"
    "@media(max-width:30rem){.fatos td:first-child{width:8.5rem}}"
)


def html_page(found: Found, curves: Sequence[str], toml: str) -> str:
    """report.html: one file, no script, nothing from the network. curves: as `draw` gives them."""
    rows = "".join(f"<tr><td>{_safe(n)}</td><td>{_safe(v)}</td></tr>" for n, v in facts(found))
    quotes = "".join(
        f"<blockquote><b>{_safe(s['prompt'])}</b>{_safe(s['text'])}</blockquote>" for s in found["samples"]
    )
    parts = [
        f"<h1>Treino {_safe(found['run'])}</h1>\n<table class='fatos'>{rows}</table>\n",
        f"<h2>Curvas</h2>\n<div class='curvas'>{''.join(curves)}</div>\n",
        f"<h2>O que o modelo escreve</h2>\n{quotes or '<p>Nenhuma amostra foi escrita.</p>'}\n",
    ]
    if found["sessions"]:
        head = "".join(f"<th>{name}</th>" for name in SESSION_HEADER)
        lines = "".join(
            "<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in row) + "</tr>"
            for row in session_rows(found)
        )
        parts.append(f"<h2>Sessões</h2>\n<div class='rolar'><table><tr>{head}</tr>{lines}</table></div>\n")
    if found["command"]:
        parts.append(f"<h2>Comando</h2>\n<pre class='comando'>{_safe(found['command'])}</pre>\n")
    parts.append(f"<h2>Configuração</h2>\n<pre>{_safe(toml)}</pre>\n")
    return (
        '<!doctype html>\n<html lang="pt-BR">\n<head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>Treino {_safe(found['run'])}</title>\n<style>{_STYLE}{CURVES_STYLE}</style></head>\n<body>\n"
        f"{''.join(parts)}</body></html>\n"
    )


def _safe(text: object) -> str:
    return html.escape(str(text))
