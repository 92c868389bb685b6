"""What is prepared and how: sources, each with a weight and stages of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ptbr_slm.data import presets
from ptbr_slm.data.decontamination.evaluation_sets import read_evaluation_set
from ptbr_slm.data.decontamination.overlaps import EvaluationIndex
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings
from ptbr_slm.data.presets import Preset
from ptbr_slm.data.read.formats import TEXT_FIELD
from ptbr_slm.data.sources.hub_inputs import DownloadOptions, HubPin, local_inputs
from ptbr_slm.data.stages.decontaminate import Decontaminate
from ptbr_slm.data.stages.personal_data import MaskPersonalData
from ptbr_slm.data.stages.stage import Stage
from ptbr_slm.data.stages.variety import KeepVariety, TagVariety
from ptbr_slm.data.wrong_input import MAX_WRONG

VarietyChoice = Literal["any", "br", "pt"]


@dataclass(frozen=True, slots=True)
class Source:
    """Texts that are cleaned in one way and have one weight."""

    inputs: tuple[Path, ...]
    name: str = ""
    weight: float = 1.0
    """How often each document is in the training part: 2 is twice, 0.5 is every second one, 2.5 both."""
    stages: Preset = field(default_factory=lambda: presets.preset(presets.DEFAULT))
    licence: str = ""
    """Of the documents that do not name their own."""
    text_field: str = TEXT_FIELD
    paragraph_documents: bool = False
    """In text files each block between blank lines is a document."""
    max_wrong: float = MAX_WRONG
    """Share of its lines and files that may be wrong (`wrong_input`)."""
    hub: tuple[HubPin, ...] = ()
    """Where inputs that were downloaded from the hub are from."""

    def with_local_inputs(self, options: DownloadOptions | None = None) -> Source:
        """The source with every input on this machine (`hub_inputs.local_inputs`, and what it raises)."""
        local = local_inputs(self.inputs, options)
        if not local.hub:
            return self
        return replace(self, inputs=local.paths, hub=local.hub, licence=self.licence or local.licence)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides which text the data hold."""

    sources: tuple[Source, ...]
    near_duplicates: NearDuplicateSettings | None = NearDuplicateSettings()  # noqa: RUF009
    """How near copies are found, which never fall on both sides of the split; None: exact copies only."""
    drop_near_duplicates: bool = False
    """Whether only the first of near copies is kept."""
    repeat_copies: bool = False
    """Whether what stands for many dropped copies is repeated (`duplicates.clusters.repeats`)."""
    kept_out: tuple[Path, ...] = ()
    """Evaluation sets whose items are taken out."""
    keep_records: bool = False
    """Whether the prepared folder says of every document what was decided, beside its tokens (`records`)."""

    def with_local_inputs(self, options: DownloadOptions | None = None) -> Recipe:
        """The recipe with every input on this machine; it may take a long download."""
        return replace(self, sources=tuple(source.with_local_inputs(options) for source in self.sources))

    def without_evaluation(self, sets: Sequence[Path]) -> Recipe:
        """The recipe with the items of evaluation sets taken out, before personal data are masked.

        Raises what `read_evaluation_set` raises.
        """
        if not sets:
            return self
        items = [item for path in sets for item in read_evaluation_set(path)]
        decontaminate = Decontaminate(EvaluationIndex(items))

        def extended(stages: Preset) -> Preset:
            masking = [stage for stage in stages.cleaning if isinstance(stage, MaskPersonalData)]
            others = [stage for stage in stages.cleaning if not isinstance(stage, MaskPersonalData)]
            return replace(stages, cleaning=(*others, decontaminate, *masking))

        sources = tuple(replace(source, stages=extended(source.stages)) for source in self.sources)
        return replace(self, sources=sources, kept_out=(*self.kept_out, *sets))

    def description(self) -> list[object]:
        """What identifies the recipe, but for the content of the inputs; JSON can hold it."""
        sources: list[object] = [
            [source.name, source.weight, source.licence, source.text_field, source.paragraph_documents]
            + [_described(stage) for stage in source.stages.all]
            for source in self.sources
        ]
        kept_out = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in self.kept_out]
        return [sources, repr(self.near_duplicates), kept_out]


def _described(stage: Stage) -> str:
    return stage.name if isinstance(stage, Decontaminate) else repr(stage)


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a source is read and cleaned: what the command line says, where a mixture file says nothing."""

    preset: str = presets.DEFAULT
    text_field: str = TEXT_FIELD
    paragraph_documents: bool = False
    max_wrong: float = MAX_WRONG
    variety: VarietyChoice = "any"
    """br or pt drops what is surely the other one; what is neither stays."""
    mask: bool = False
    """Whether personal data are masked."""
    keep: tuple[str, ...] = ()
    """Kinds of personal data (keys of `TOKENS`) that masking leaves."""

    def stages(self, rules: Sequence[Rule] = (), own: Sequence[Stage] = ()) -> Preset:
        """The preset with `rules` changed, and with the user's own stages, masking and the variety after it.

        Raises E_CONFIG for an unknown preset.
        """
        stages = presets.preset(self.preset)
        for rule in rules:
            stages = stages.with_rule(rule.stage) if rule.stage else stages.without_rule(rule.name)
        stages = replace(stages, filtering=(*stages.filtering, *own))
        if self.mask:
            stages = replace(stages, cleaning=(*stages.cleaning, MaskPersonalData(self.keep)))
        if self.variety == "any":
            return stages
        return replace(
            stages,
            tagging=(*stages.tagging, TagVariety()),
            filtering=(*stages.filtering, KeepVariety(self.variety)),
        )


DEFAULT_OPTIONS = SourceOptions()


@dataclass(frozen=True, slots=True)
class Rule:
    """What a mixture file says of a rule of `named.RULES`."""

    name: str
    stage: Stage | None
    """None where the rule is turned off."""
