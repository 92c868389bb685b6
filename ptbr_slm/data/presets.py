"""The stages of each cleaning preset, in order: the one place that lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ptbr_slm.data.stages.boilerplate import RemoveBoilerplate
from ptbr_slm.data.stages.clean import Clean
from ptbr_slm.data.stages.figures import FIGURES, Figures
from ptbr_slm.data.stages.hyphens import JoinSplitWords
from ptbr_slm.data.stages.language import KeepPortuguese, TagLanguage
from ptbr_slm.data.stages.length import AtLeastTwoWords
from ptbr_slm.data.stages.named import is_cleaning
from ptbr_slm.data.stages.repeated_paragraphs import RemoveRepeatedParagraphs
from ptbr_slm.data.stages.rules import ReplacementCharacters, fineweb2
from ptbr_slm.data.stages.spelling import Spelling
from ptbr_slm.data.stages.stage import Stage
from ptbr_slm.errors import SlmError


@dataclass(frozen=True, slots=True)
class Preset:
    """The stages that the documents of a source go through, in the order of the fields."""

    name: str
    cleaning: tuple[Stage, ...]
    """Change a text, or drop what is no text. Paragraphs become documents after these."""
    tagging: tuple[Stage, ...]
    """Set attributes, and drop nothing."""
    filtering: tuple[Stage, ...]
    """Drop by attributes or by text, and change nothing."""

    @property
    def all(self) -> tuple[Stage, ...]:
        """All stages in order."""
        return (*self.cleaning, *self.tagging, *self.filtering)

    def with_rule(self, rule: Stage) -> Preset:
        """The preset with a rule of `named.RULES`: in the place of its like, or after the others."""
        if rule.name in {stage.name for stage in self.all}:
            return replace(
                self,
                cleaning=tuple(rule if stage.name == rule.name else stage for stage in self.cleaning),
                filtering=tuple(rule if stage.name == rule.name else stage for stage in self.filtering),
            )
        if is_cleaning(rule):
            return replace(self, cleaning=(*self.cleaning, rule))
        tagging = self.tagging
        if isinstance(rule, KeepPortuguese):
            tagging = (*tagging, TagLanguage())
        elif rule.name in FIGURES:
            figures = next((stage for stage in tagging if isinstance(stage, Figures)), Figures(()))
            others = tuple(stage for stage in tagging if not isinstance(stage, Figures))
            if rule.name not in figures.names:
                tagging = (Figures((*figures.names, rule.name)), *others)
        return replace(self, tagging=tagging, filtering=(*self.filtering, rule))

    def without_rule(self, name: str) -> Preset:
        """The preset without the stage of this name."""
        return replace(
            self,
            cleaning=tuple(stage for stage in self.cleaning if stage.name != name),
            filtering=tuple(stage for stage in self.filtering if stage.name != name),
        )


def _none() -> Preset:
    return Preset("none", cleaning=(Clean(),), tagging=(), filtering=(AtLeastTwoWords(),))


def _curated() -> Preset:
    return Preset(
        "curated",
        cleaning=(Clean(), JoinSplitWords()),
        tagging=(Figures(), Spelling()),
        filtering=(AtLeastTwoWords(), ReplacementCharacters()),
    )


def _web() -> Preset:
    return Preset(
        "web",
        cleaning=(Clean(), JoinSplitWords(), RemoveBoilerplate(), RemoveRepeatedParagraphs()),
        tagging=(Figures(), Spelling(), TagLanguage()),
        filtering=(KeepPortuguese(), *fineweb2(), ReplacementCharacters()),
    )


DEFAULT = "none"
PRESETS: dict[str, Callable[[], Preset]] = {"none": _none, "curated": _curated, "web": _web}
"""Name -> its stages.

`none` makes text whole (encoding, line ends, wrapped lines) and judges nothing. `curated` is for books, laws
and encyclopaedias: it repairs and measures, and drops only what is broken. `web` is for crawled pages: the
rules of FineWeb2 for Portuguese, after other languages are out.
"""


def preset(name: str) -> Preset:
    """The preset of this name. Raises E_CONFIG."""
    if name not in PRESETS:
        raise SlmError(
            "E_CONFIG",
            f"não conheço a limpeza {name!r}.",
            where="--preset",
            hint=f"Use uma destas: {', '.join(PRESETS)}.",
        )
    return PRESETS[name]()
