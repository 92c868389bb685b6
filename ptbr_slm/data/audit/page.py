"""Writes an audit as one HTML file that needs no network: its style, script and data lie inside it.

Everything that comes from a document passes through `html.escape`, or through JSON in which `<` is written
`\\u003c`. The Content-Security-Policy lets no address be asked and no script run but ours, named by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from ptbr_slm.data.audit.collect import Audit, Rule, Sampled
from ptbr_slm.data.audit.markup import MOST_ROWS, bars, figure, largest, short_name, table, text, visible
from ptbr_slm.data.document import REASONS, REPAIRS
from ptbr_slm.data.stages.rules import excessive_rules
from ptbr_slm.text import human_bytes, number

_BINS = 40
_MOST_LABELS = 8
"""Under a row of bars, on a telephone."""
_TAGS: dict[str, tuple[str, dict[str, str]]] = {
    "language": ("Língua", {"pt": "português", "es": "espanhol", "gl": "galego", "en": "inglês"}),
    "variety": (
        "Variedade",
        {"br": "português do Brasil", "pt": "português de Portugal", "unknown": "não se sabe"},
    ),
    "spelling": (
        "Ortografia",
        {
            "current": "atual",
            "before_2009": "de antes de 2009",
            "before_1971": "de antes de 1971",
            "before_1943": "de antes de 1943",
        },
    ),
}
"""Attribute -> its title, and its values in words for people."""
_BOUNDS = {"least": "mínimo", "most": "máximo"}
"""Thresholds among the figures of a rule -> words for people."""


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
        ("linguas", "Línguas, variedades e dados pessoais", _tags(audit)),
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
        f"<title>Auditoria de {text(name)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<h1>Auditoria de {text(name)}</h1>\n"
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
        table("Documentos que ficaram", header, rows),
        f"<p>{number(summary.tokens_per_word, 2)} tokens por palavra, "
        f"{number(summary.bytes_per_token, 2)} bytes por token, "
        f"vocabulário de {number(summary.vocab_size)}.</p>",
    ]
    if summary.repaired:
        repaired = sorted(summary.repaired.items(), key=lambda item: (-item[1], item[0]))
        told = [(REPAIRS.get(kind, kind), number(count)) for kind, count in repaired]
        parts.append(table("O que foi consertado", ("conserto", "documentos"), told))
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
    parts = [table("Por motivo", ("motivo", "documentos", "de todos"), rows)]
    if not audit.complete:
        parts.append(_MISSING)
    for reason, _ in by_count:
        records = audit.examples.get(reason, [])
        if not records:
            continue
        items = "".join(
            f"<li><p>{text(' '.join(record.excerpt.split()) or '(vazio)')}</p>"
            f'<p class="where">{text(short_name(record.source))}{_figures(record.figures)}</p></li>'
            for record in records
        )
        parts.append(
            f"<details><summary>{text(REASONS.get(reason, reason))}: exemplos</summary>"
            f'<ul class="examples">{items}</ul></details>'
        )
    return "".join(parts)


def _figures(figures: Mapping[str, float]) -> str:
    """` · stop_words 1, mínimo 2`."""
    told = ", ".join(f"{text(_BOUNDS.get(name, name))} {figure(value)}" for name, value in figures.items())
    return f" · {told}" if told else ""


def _recipe(audit: Audit) -> str:
    """The sources of the mixture, as the index describes them."""
    rows = [
        (
            short_name(str(source.get("name") or "textos")),
            str(source.get("preset", "")),
            number(float(source.get("weight", 1.0)), 2),
            short_name(str(source.get("licence") or "não informada")),
            number(int(source.get("documents", 0))),
            number(sum(source.get("dropped", {}).values())),
        )
        for source in audit.data.index.recipe.get("sources", [])
    ]
    header = ("fonte", "limpeza", "peso", "licença", "documentos", "fora")
    return table("Mistura (sem as repetições do peso)", header, rows) if rows else ""


def _sources(audit: Audit) -> str:
    rows, warnings = [], [_warning(told) for told in audit.data.summary().excessive_rules]
    of_sources = {(told["reason"], told["dropped"]) for told in audit.data.summary().excessive_rules}
    for name, counts in audit.sources.items():
        lost = sum(counts.dropped.values())
        total = counts.kept + lost
        licences = short_name(", ".join(sorted(licence or "não informada" for licence in counts.licences)))
        rows.append(
            (
                short_name(name),
                number(counts.kept),
                human_bytes(counts.bytes),
                number(lost),
                f"{number(100 * lost / max(total, 1), 1)} %",
                licences,
            )
        )
        warnings += [
            _warning({"source": name, **rule._asdict()})
            for rule in excessive_rules(counts.dropped, total)
            if (rule.reason, rule.dropped) not in of_sources
        ]
    told = f'<ul aria-label="Avisos">{"".join(warnings)}</ul>' if warnings else ""
    if not audit.complete:
        return told + _recipe(audit) + _MISSING
    header = ("arquivo", "ficaram", "texto", "fora", "perda", "licença")
    kept = sum(audit.licences.values())
    licences_table = [
        (short_name(licence or "não informada"), number(count), f"{number(100 * count / max(kept, 1), 1)} %")
        for licence, count in largest(audit.licences)
    ]
    return (
        told
        + _recipe(audit)
        + table("Por arquivo", header, rows)
        + table("Licenças do que ficou", ("licença", "documentos", "parte"), licences_table)
    )


def _warning(rule: Mapping[str, Any]) -> str:
    """A rule that took too much of a source or file, with the keys of `Summary.excessive_rules`."""
    reason = REASONS.get(rule["reason"], rule["reason"])
    return (
        f'<li class="warn">{text(short_name(rule["source"]))}: a regra “{text(reason)}” tirou '
        f"{number(100 * rule['share'], 1)} % ({number(rule['dropped'])} documentos). "
        "Talvez esta fonte peça outra limpeza.</li>"
    )


def _thresholds(audit: Audit) -> str:
    weight = sum(sampled.weight for sampled in audit.sample)
    sampled = sum(1 for each in audit.sample if each.weight)
    certainty = "são todos: as partes abaixo são contadas."
    if margin := audit.margin:
        certainty = (
            f"representam {number(weight)}: as partes abaixo são <b>estimadas</b>, com erro de até "
            f"{number(100 * margin, 1)} pontos em 95 de 100 vezes, e a página não cresce com os dados."
        )
    intro = (
        f"<p>As regras da limpeza <code>web</code> numa amostra de {number(sampled)} documentos, que "
        f"{certainty} Estão em uso as que tiraram algo destes dados. Abra uma regra e mova "
        "o limite para ver o que sairia; nada é gravado. Nos gráficos, a altura da barra é a raiz quadrada "
        "do número de documentos, para que as pequenas se vejam.</p>"
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
    label, sense = f"Limite de: {text(rule.title)}", "mínimo" if rule.is_least else "máximo"
    columns = "".join(
        f'<div><h3>{title}</h3><ul class="examples {name}">{_nearest(values, rule, dropped)}</ul></div>'
        for title, name, dropped in (("Fica, por pouco", "kept", False), ("Sai, por pouco", "gone", True))
    )
    return (
        f'<details id="rule-{index}"><summary><b>{text(rule.title)}</b>: {sense} '
        f'<span class="limit">{figure(rule.threshold)}</span>; '
        f'<span class="share">sozinha, tiraria {number(100 * reached / whole, 1)} %</span></summary>'
        f'<div class="controls"><input type="range" min="{low:.6g}" max="{high:.6g}" step="{step:.6g}" '
        f'value="{rule.threshold:.6g}" aria-label="{label}">'
        f'<input type="number" step="any" value="{rule.threshold:.6g}" aria-label="{label}, exato">'
        f'<label><input type="checkbox"{" checked" if rule.active else ""}> em uso</label></div>'
        f"{_histogram(values, rule, low, high)}"
        f'<p class="axis where"><span>{figure(low)}</span><span><code>{text(rule.figure)}</code>; '
        f"a linha é o limite</span><span>{figure(high)}</span></p>"
        f'<div class="pair">{columns}</div></details>\n'
    )


def _nearest(values: Sequence[tuple[float, Sampled]], rule: Rule, dropped: bool) -> str:
    """The three documents of a side that are nearest to the threshold."""
    side = [(value, sampled) for value, sampled in values if rule.drops(value) == dropped]
    side.sort(key=lambda entry: abs(entry[0] - rule.threshold))
    items = "".join(
        f"<li><p>{text(sampled.excerpt or '(vazio)')}</p>"
        f'<p class="where">{text(short_name(sampled.source))} · {figure(value)}</p></li>'
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
    return bars(bins, f"Distribuição de {rule.figure}; a linha é o limite", line)


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
    drawn = bars([float(train[power] + valid[power]) for power in filled], "Documentos por tamanho em tokens")
    every = 1 + (len(filled) - 1) // _MOST_LABELS
    labels = "".join(
        f"<span>{_power(power) if place % every == 0 else ''}</span>" for place, power in enumerate(filled)
    )
    axis = f'<p class="axis bins where" aria-hidden="true">{labels}</p>'
    told = '<p class="where">Cada barra vai do número de tokens abaixo dela até o dobro.</p>'
    counts = table("Documentos por número de tokens", ("tokens", "treino", "validação"), rows)
    return told + drawn + axis + counts


def _power(power: int) -> str:
    """A power of two in little room: 512, 1 mil, 1 mi."""
    for least, unit in ((20, " mi"), (10, " mil")):
        if power >= least:
            return f"{2 ** (power - least)}{unit}"
    return str(2**power)


def _tags(audit: Audit) -> str:
    parts = []
    for tag, (title, names) in _TAGS.items():
        kept, dropped = audit.tags[tag], audit.dropped_tags[tag]
        total = sum(kept.values())
        if not kept and not dropped:
            parts.append(f'<p class="note">{title}: não foi anotada nestes dados.</p>')
            continue
        rows = [
            (
                short_name(names.get(value) or f"código {value}"),
                number(kept[value]),
                f"{number(100 * kept[value] / max(total, 1), 1)} %",
                number(dropped[value]),
            )
            for value, _ in largest(kept + dropped)
        ]
        parts.append(table(title, ("", "ficaram", "parte", "saíram"), rows))
    if audit.masked:
        told = [(kind, number(count)) for kind, count in largest(audit.masked)]
        parts.append(table("Dados pessoais trocados por etiquetas", ("tipo", "vezes"), told))
    return "".join(parts)


def _copies(audit: Audit) -> str:
    dropped = audit.data.index.dropped
    rows = [
        (REASONS[reason], number(dropped[reason]))
        for reason in ("duplicate", "near_duplicate")
        if reason in dropped
    ]
    parts = [table("Cópias que saíram", ("motivo", "documentos"), rows) if rows else "<p>Nenhuma saiu.</p>"]
    if audit.copies:
        sizes = [(number(size), number(count)) for size, count in sorted(audit.copies.items())[:MOST_ROWS]]
        parts.append(table("Grupos de quase cópias, de que um ficou", ("documentos", "grupos"), sizes))
    return "".join(parts)


_MISSING = (
    '<p class="note">Esta pasta não guarda registros de cada documento: fontes, licenças e exemplos do que '
    "saiu não se conhecem. Eles são guardados quando se prepara com --preset ou com uma mistura (--mix).</p>"
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
                "source": visible(short_name(sampled.source)),
                "excerpt": visible(sampled.excerpt),
                "bytes": sampled.bytes,
                "reason": sampled.reason,
                "weight": float(f"{sampled.weight:.6g}"),
                "values": [None if value is None else float(f"{value:.5g}") for value in sampled.values],
            }
            for sampled in audit.sample
        ],
    }
    encoded = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return encoded.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _asset(name: str) -> str:
    return files("ptbr_slm.data.audit").joinpath(name).read_text(encoding="utf-8")
