"""Writes an audit as one HTML file that needs no network: its style, script and data lie inside it.

Everything that comes from a document passes through `html.escape`, or through JSON in which `<` is written
`\\u003c`. The Content-Security-Policy lets no address be asked and no script run but ours, named by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from ptbr_slm.data.audit.collect import Audit, Rule, Sampled
from ptbr_slm.data.document import REASONS, REPAIRS
from ptbr_slm.data.stages.rules import excessive_rules
from ptbr_slm.text import human_bytes, number

_BINS = 40
_MOST_ROWS = 40
"""Of a table of licences or languages."""
_LONGEST_NAME = 160
"""Characters of a source or licence that are shown."""
_NAMES = {
    "pt": "português",
    "es": "espanhol",
    "gl": "galego",
    "en": "inglês",
    "br": "português do Brasil",
    "pt-BR": "português do Brasil",
    "pt-PT": "português de Portugal",
    "unknown": "não se sabe",
}
"""Values of the attributes `language` and `variety` -> words for people."""


def render(audit: Audit) -> str:
    """The page."""
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    name = audit.data.folder.resolve().name
    sections = [
        ("resumo", "Resumo", _summary(audit)),
        ("fora", "O que ficou de fora", _dropped(audit)),
        ("fontes", "Fontes e licenças", _sources(audit)),
        ("limites", "Limites", _thresholds(audit)),
        ("tamanhos", "Tamanhos", _lengths(audit)),
        ("linguas", "Línguas e variedades", _tags(audit)),
        ("copias", "Cópias", _copies(audit)),
    ]
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="t-{key}"><h2 id="t-{key}">{title}</h2>{content}</section>\n'
        for key, title, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="pt-BR">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Auditoria de {_text(name)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<h1>Auditoria de {_text(name)}</h1>\n"
        f'<nav aria-label="Seções"><ul>{links}</ul></nav>\n<main>\n{body}</main>\n'
        f'<script id="data" type="application/json">{_json(audit)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _summary(audit: Audit) -> str:
    summary = audit.data.summary()
    names = {"train": "treino", "valid": "validação"}
    rows = [
        (
            names[name],
            number(part.documents),
            number(part.words),
            number(part.tokens),
            human_bytes(part.bytes),
        )
        for name, part in summary.splits.items()
    ]
    total = (
        number(summary.documents),
        number(summary.words),
        number(summary.tokens),
        human_bytes(summary.bytes),
    )
    rows.append(("total", *total))
    header = ("parte", "documentos", "palavras", "tokens", "texto")
    parts = [
        _table("Documentos que ficaram", header, rows),
        f"<p>{number(summary.tokens_per_word, 2)} tokens por palavra, "
        f"{number(summary.bytes_per_token, 2)} bytes por token, "
        f"vocabulário de {number(summary.vocab_size)}.</p>",
    ]
    if summary.repaired:
        repaired = sorted(summary.repaired.items(), key=lambda item: (-item[1], item[0]))
        told = [(REPAIRS.get(kind, kind), number(count)) for kind, count in repaired]
        parts.append(_table("O que foi consertado", ("conserto", "documentos"), told))
    return "".join(parts)


def _dropped(audit: Audit) -> str:
    summary = audit.data.summary()
    if not summary.dropped:
        return "<p>Nada ficou de fora.</p>"
    looked_at = summary.documents + sum(summary.dropped.values())
    by_count = sorted(summary.dropped.items(), key=lambda item: (-item[1], item[0]))
    rows = [
        (REASONS.get(reason, reason), number(count), f"{number(100 * count / looked_at, 1)} %")
        for reason, count in by_count
    ]
    parts = [_table("Por motivo", ("motivo", "documentos", "de todos"), rows)]
    if not audit.complete:
        parts.append(_MISSING)
    for reason, _ in by_count:
        records = audit.examples.get(reason, [])
        if not records:
            continue
        items = "".join(
            f"<li><p>{_text(' '.join(record.excerpt.split()) or '(vazio)')}</p>"
            f'<p class="where">{_text(_name(record.source))}{_figures(record.figures)}</p></li>'
            for record in records
        )
        parts.append(
            f"<details><summary>{_text(REASONS.get(reason, reason))}: exemplos</summary>"
            f'<ul class="examples">{items}</ul></details>'
        )
    return "".join(parts)


def _figures(figures: Mapping[str, float]) -> str:
    """` · stop_words 1, least 2`."""
    told = ", ".join(f"{_text(name)} {number(value, 4)}" for name, value in figures.items())
    return f" · {told}" if told else ""


def _sources(audit: Audit) -> str:
    if not audit.complete:
        return _MISSING
    rows, warnings = [], []
    for name, counts in audit.sources.items():
        lost = sum(counts.dropped.values())
        total = counts.kept + lost
        licences = _name(", ".join(sorted(licence or "não informada" for licence in counts.licences)))
        rows.append(
            (
                _name(name),
                number(counts.kept),
                human_bytes(counts.bytes),
                number(lost),
                f"{number(100 * lost / max(total, 1), 1)} %",
                licences,
            )
        )
        warnings += [
            f'<li class="warn">{_text(_name(name))}: a regra '
            f"“{_text(REASONS.get(rule.reason, rule.reason))}” tirou {number(100 * rule.share, 1)} % "
            f"({number(rule.dropped)} de {number(total)}). Talvez esta fonte peça outra limpeza.</li>"
            for rule in excessive_rules(counts.dropped, total)
        ]
    header = ("fonte", "ficaram", "texto", "fora", "perda", "licença")
    kept = sum(audit.licences.values())
    licences_table = [
        (_name(licence or "não informada"), number(count), f"{number(100 * count / max(kept, 1), 1)} %")
        for licence, count in _largest(audit.licences)
    ]
    return (
        (f'<ul aria-label="Avisos">{"".join(warnings)}</ul>' if warnings else "")
        + _table("Por fonte", header, rows)
        + _table("Licenças do que ficou", ("licença", "documentos", "parte"), licences_table)
    )


def _thresholds(audit: Audit) -> str:
    weight = sum(sampled.weight for sampled in audit.sample)
    sampled = sum(1 for each in audit.sample if each.weight)
    intro = (
        f"<p>As regras da limpeza <code>web</code> numa amostra de {number(sampled)} documentos, que "
        f"representam {number(weight)}. As marcadas tiraram algo destes dados. Mova um limite para ver o que "
        "sairia; nada é gravado.</p>"
        "<noscript><p>Sem JavaScript, os limites não se movem: valem os números abaixo.</p></noscript>"
    )
    rules = "".join(_rule(audit, index, rule) for index, rule in enumerate(audit.rules))
    return (
        f'{intro}{rules}<div id="total" role="status" aria-live="polite"><span id="total-text"></span> '
        '<button type="button" id="reset">Voltar aos limites</button></div>'
    )


def _rule(audit: Audit, index: int, rule: Rule) -> str:
    place = audit.figures.index(rule.figure)
    known = [(sampled.values[place], sampled) for sampled in audit.sample]
    values = [(value, sampled) for value, sampled in known if value is not None]
    low, high = _bounds(values, rule)
    reached = sum(sampled.weight for value, sampled in values if rule.drops(value))
    whole = sum(sampled.weight for sampled in audit.sample) or 1.0
    step = 1 if rule.figure in ("words", "stop_words") else (high - low) / 200
    label, sense = f"Limite de: {_text(rule.title)}", "mínimo" if rule.is_least else "máximo"
    columns = "".join(
        f'<div><h3>{title}</h3><ul class="examples {name}">{_nearest(values, rule, dropped)}</ul></div>'
        for title, name, dropped in (("Fica, por pouco", "kept", False), ("Sai, por pouco", "gone", True))
    )
    return (
        f'<details id="rule-{index}"><summary><b>{_text(rule.title)}</b>: {sense} '
        f'<span class="limit">{_plain(rule.threshold)}</span>; '
        f'<span class="share">alcança {number(100 * reached / whole, 1)} %</span></summary>'
        f'<div class="controls"><input type="range" min="{low:.6g}" max="{high:.6g}" step="{step:.6g}" '
        f'value="{rule.threshold:.6g}" aria-label="{label}">'
        f'<input type="number" step="any" value="{rule.threshold:.6g}" aria-label="{label}, exato">'
        f'<label><input type="checkbox"{" checked" if rule.active else ""}> em uso</label></div>'
        f"{_histogram(values, rule, low, high)}"
        f'<p class="where"><code>{_text(rule.figure)}</code>, de {_plain(low)} a {_plain(high)}</p>'
        f'<div class="pair">{columns}</div></details>\n'
    )


def _nearest(values: Sequence[tuple[float, Sampled]], rule: Rule, dropped: bool) -> str:
    """The three documents of a side that are nearest to the threshold."""
    side = [(value, sampled) for value, sampled in values if rule.drops(value) == dropped]
    side.sort(key=lambda entry: abs(entry[0] - rule.threshold))
    items = "".join(
        f"<li><p>{_text(sampled.excerpt or '(vazio)')}</p>"
        f'<p class="where">{_text(_name(sampled.source))} · {_plain(value)}</p></li>'
        for value, sampled in side[:3]
    )
    return items or "<li>nenhum documento da amostra</li>"


def _bounds(values: Sequence[tuple[float, Sampled]], rule: Rule) -> tuple[float, float]:
    """The ends of the slider: the threshold and 98 % of the documents lie between them."""
    ordered = sorted(value for value, _ in values) or [rule.threshold]
    low = min(ordered[len(ordered) // 100], rule.threshold)
    high = max(ordered[-1 - len(ordered) // 100], rule.threshold)
    return (low, high) if high > low else (low, low + 1.0)


def _histogram(values: Sequence[tuple[float, Sampled]], rule: Rule, low: float, high: float) -> str:
    bins = [0.0] * _BINS
    for value, sampled in values:
        bins[max(0, min(_BINS - 1, int((value - low) / (high - low) * _BINS)))] += sampled.weight
    cut = max(0.0, min(100.0, 100 * (rule.threshold - low) / (high - low)))
    line = f'<line x1="{cut:.2f}" x2="{cut:.2f}" y1="0" y2="30"/>'
    return _bars(bins, f"Distribuição de {rule.figure}; a linha é o limite", line)


def _bars(heights: Sequence[float], label: str, extra: str = "") -> str:
    """A bar for each number, on a canvas of 100 by 30. The root keeps small bars visible."""
    highest = max(heights, default=0.0) or 1.0
    width = 100 / max(len(heights), 1)
    bars = "".join(
        f'<rect x="{place * width:.2f}" width="{width * 0.9:.2f}" '
        f'y="{30 - 30 * (height / highest) ** 0.5:.2f}" height="{30 * (height / highest) ** 0.5:.2f}"/>'
        for place, height in enumerate(heights)
        if height
    )
    return (
        f'<svg viewBox="0 0 100 30" preserveAspectRatio="none" role="img" aria-label="{_text(label)}">'
        f"{bars}{extra}</svg>"
    )


def _lengths(audit: Audit) -> str:
    train, valid = audit.lengths["train"], audit.lengths["valid"]
    powers = sorted(train.keys() | valid.keys())
    if not powers:
        return "<p>Não há documentos.</p>"
    filled = range(powers[0], powers[-1] + 1)
    rows = [
        (f"{number(2**power)} a {number(2 ** (power + 1) - 1)}", number(train[power]), number(valid[power]))
        for power in filled
    ]
    bars = _bars([float(train[power] + valid[power]) for power in filled], "Documentos por tamanho em tokens")
    return bars + _table("Documentos por número de tokens", ("tokens", "treino", "validação"), rows)


def _tags(audit: Audit) -> str:
    parts = []
    for tag, title in (("language", "Língua"), ("variety", "Variedade")):
        counts = audit.tags[tag]
        total = sum(counts.values())
        if not total:
            parts.append(f'<p class="note">{title}: não foi anotada nestes dados.</p>')
            continue
        rows = [
            (_NAMES.get(value, value), number(count), f"{number(100 * count / total, 1)} %")
            for value, count in _largest(counts)
        ]
        parts.append(_table(f"{title} do que ficou", (title.lower(), "documentos", "parte"), rows))
    return "".join(parts)


def _copies(audit: Audit) -> str:
    dropped = audit.data.index.dropped
    rows = [
        (REASONS[reason], number(dropped[reason]))
        for reason in ("duplicate", "near_duplicate")
        if reason in dropped
    ]
    parts = [_table("Cópias que saíram", ("motivo", "documentos"), rows) if rows else "<p>Nenhuma saiu.</p>"]
    if audit.copies:
        sizes = [(number(size), number(count)) for size, count in sorted(audit.copies.items())[:20]]
        parts.append(_table("Quantas cópias tinha cada documento que ficou", ("cópias", "documentos"), sizes))
    return "".join(parts)


_MISSING = (
    '<p class="note">Esta pasta não guarda registros de cada documento: fontes, licenças e exemplos do que '
    "saiu não se conhecem. Eles são guardados quando se prepara com uma mistura (--mix).</p>"
)


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in header)
    body = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>'
        + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(caption)}"><table>'
        f"<caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _json(audit: Audit) -> str:
    """The data of the script; `<` never appears, so that no text can end the element."""
    bounds = []
    for rule in audit.rules:
        place = audit.figures.index(rule.figure)
        known = [(sampled.values[place], sampled) for sampled in audit.sample]
        bounds.append(_bounds([(value, sampled) for value, sampled in known if value is not None], rule))
    body = {
        "rules": [
            {
                "figure": audit.figures.index(rule.figure),
                "reason": rule.reason,
                "threshold": rule.threshold,
                "least": rule.is_least,
                "active": rule.active,
                "low": float(f"{low:.6g}"),
                "high": float(f"{high:.6g}"),
            }
            for rule, (low, high) in zip(audit.rules, bounds, strict=True)
        ],
        "sample": [
            {
                "source": _visible(_name(sampled.source)),
                "excerpt": _visible(sampled.excerpt),
                "bytes": sampled.bytes,
                "reason": sampled.reason,
                "weight": float(f"{sampled.weight:.6g}"),
                "values": [None if value is None else float(f"{value:.5g}") for value in sampled.values],
            }
            for sampled in audit.sample
        ],
    }
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _plain(value: float) -> str:
    """A figure as people read it: 50, 0,814, 100.000."""
    return number(value) if value == int(value) else f"{value:.4g}".replace(".", ",")


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent values, as many as a table shows."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_ROWS]


def _name(value: str) -> str:
    """The end of a long name: the file and the line."""
    return value if len(value) <= _LONGEST_NAME else "…" + value[-_LONGEST_NAME:]


def _text(value: str) -> str:
    return escape(_visible(value))


def _visible(value: str) -> str:
    """Text that UTF-8 can hold, without control characters: they are no HTML."""
    return "".join(
        char if char.isprintable() or char in " \n\t" else "\ufffd"
        for char in value.encode("utf-8", "replace").decode("utf-8")
    )


def _asset(name: str) -> str:
    return files("ptbr_slm.data.audit").joinpath(name).read_text(encoding="utf-8")
