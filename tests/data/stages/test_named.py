"""The table of rules in docs/DADOS.md is what the code has."""

from __future__ import annotations

from pathlib import Path

from ptbr_slm.data.presets import PRESETS, preset
from ptbr_slm.data.stages.c4 import LineRule
from ptbr_slm.data.stages.named import GROUPS, RULES, NamedRule, is_cleaning

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "DADOS.md"


def row(name: str, entry: NamedRule) -> str:
    """A line of the table."""
    limits = ", ".join(f"`{key} = {value:g}`" for key, value in entry.thresholds.items())
    if is_cleaning(entry.rule):
        what = "tira linhas" if isinstance(entry.rule, LineRule) and name != "citations" else "muda"
        limits = f"{what}; {limits}" if limits else what
    presets = ", ".join(f"`{each}`" for each in PRESETS if name in {s.name for s in preset(each).all}) or "–"
    reasons = ", ".join(f"`{reason}`" for reason in entry.reasons)
    return f"| `{name}` | {limits} | {reasons} | {entry.source} | {presets} |"


def test_the_guide_lists_every_rule_with_its_threshold_reason_and_source():
    header = "| Regra | Limite | Motivo ou conserto | Fonte | Em |\n|---|---|---|---|---|"
    table = "\n".join([header, *(row(name, entry) for name, entry in RULES.items())])
    assert table in GUIDE.read_text("utf-8"), f"docs/DADOS.md should have:\n\n{table}"


def test_every_rule_of_a_group_and_of_a_preset_has_its_name():
    members = {stage.name for group in GROUPS.values() for stage in group}
    assert members <= set(RULES) and not members & set(GROUPS)
    judging = {stage.name for name in PRESETS for stage in preset(name).filtering} - {"at_least_two_words"}
    assert judging <= set(RULES)
