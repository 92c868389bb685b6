"""The rules that a mixture file may name, each on its own: their thresholds, sources and reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ptbr_slm.data.stages.boilerplate import RemoveBoilerplate
from ptbr_slm.data.stages.c4 import FewWordLines, LineRule, LongLines, LongWordLines, c4
from ptbr_slm.data.stages.hyphens import JoinSplitWords
from ptbr_slm.data.stages.language import KeepPortuguese
from ptbr_slm.data.stages.repeated_paragraphs import RemoveRepeatedParagraphs
from ptbr_slm.data.stages.rules import FigureRule, ReplacementCharacters, ShortLines, fineweb2
from ptbr_slm.data.stages.stage import Stage


def is_cleaning(rule: Stage) -> bool:
    """Whether a rule changes texts, and so comes before tagging."""
    return isinstance(rule, LineRule | JoinSplitWords | RemoveBoilerplate | RemoveRepeatedParagraphs)


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A rule that a mixture file may name."""

    rule: Stage
    """With its own threshold."""
    source: str
    """Where it and its threshold come from."""

    @property
    def thresholds(self) -> dict[str, float]:
        """Field -> value of what a mixture file may set: `least`, `most` or both; none for some rules."""
        rule = self.rule
        if isinstance(rule, FigureRule):
            bounds = (("least", rule.below, rule.least), ("most", rule.above, rule.most))
            return {name: value for name, reason, value in bounds if reason}
        if isinstance(rule, KeepPortuguese):
            return {"least": rule.min_score}
        if isinstance(rule, FewWordLines):
            return {"least": rule.least}
        return {"most": rule.most} if isinstance(rule, LongWordLines) else {}

    @property
    def reasons(self) -> tuple[str, ...]:
        """Keys of `document.REASONS` (of `document.REPAIRS` for a rule that changes a text)."""
        rule = self.rule
        if isinstance(rule, FigureRule):
            return tuple(reason for reason in (rule.below, rule.above) if reason)
        if isinstance(rule, LineRule):
            return rule.name, "no_lines"
        return _REASONS[rule.name]

    def with_thresholds(self, given: Mapping[str, float]) -> Stage:
        """The rule with other thresholds; `given` has keys of `thresholds`."""
        rule = self.rule
        if isinstance(rule, KeepPortuguese):
            return replace(rule, min_score=given["least"]) if given else rule
        if isinstance(rule, FewWordLines):
            return replace(rule, least=int(given.get("least", rule.least)))
        if isinstance(rule, LongWordLines):
            return replace(rule, most=int(given.get("most", rule.most)))
        return replace(rule, **given) if isinstance(rule, FigureRule) else rule


_REASONS = {
    "join_split_words": ("split_words",),
    "remove_boilerplate": ("boilerplate", "only_boilerplate"),
    "repeated_paragraphs": ("repeated_paragraphs", "only_repeated_paragraphs"),
    "keep_portuguese": ("other_language",),
}
_FINEWEB2 = "FineWeb2, por_Latn.yml"
_DATATROVE = "FineWeb2: o padrão do datatrove"
_C4 = "C4 (datatrove)"
_OWN = "regra própria"
_DEFAULTS = ("words", "hashes_per_token", "ellipses_per_token", "bullet_lines", "ellipsis_lines")
"""Rules whose thresholds FineWeb2 leaves as datatrove has them."""


GROUPS: dict[str, tuple[Stage, ...]] = {"fineweb2": fineweb2(), "c4": c4()}
"""Rules that have a name together."""
RULES: dict[str, NamedRule] = {
    entry.rule.name: entry
    for entry in (
        NamedRule(JoinSplitWords(), _OWN),
        NamedRule(RemoveBoilerplate(), _OWN),
        NamedRule(RemoveRepeatedParagraphs(), "CCNet e Dolma, com números próprios"),
        *(NamedRule(rule, _C4) for rule in c4() if is_cleaning(rule)),
        NamedRule(KeepPortuguese(), "regra própria, com py3langid"),
        *(NamedRule(rule, _DATATROVE if rule.name in _DEFAULTS else _FINEWEB2) for rule in fineweb2()),
        *(NamedRule(rule, _C4) for rule in c4() if not is_cleaning(rule)),
        NamedRule(LongLines(), "mC4 (datatrove)"),
        NamedRule(ShortLines(), "FineWeb; o FineWeb2 a desliga"),
        NamedRule(ReplacementCharacters(), _OWN),
    )
}
"""Name -> rule, in the order in which a source that names several has them."""
