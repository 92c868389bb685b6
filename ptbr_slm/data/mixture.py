"""What is prepared and how: sources with a weight and stages each, as in a mixture file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from ptbr_slm.data import presets
from ptbr_slm.data.decontamination.evaluation_sets import read_evaluation_set
from ptbr_slm.data.decontamination.overlaps import EvaluationIndex
from ptbr_slm.data.document import Document
from ptbr_slm.data.duplicates.signatures import NearDuplicateSettings
from ptbr_slm.data.presets import Preset
from ptbr_slm.data.read.formats import TEXT_FIELD
from ptbr_slm.data.stages.decontaminate import Decontaminate
from ptbr_slm.data.stages.personal_data import MaskPersonalData
from ptbr_slm.data.stages.stage import Dropped, Stage
from ptbr_slm.data.stages.variety import KeepVariety, TagVariety
from ptbr_slm.errors import SlmError, os_errors

MAX_WEIGHT = 100.0
VarietyChoice = Literal["any", "br", "pt"]
UserFunction = Callable[[Document], Document | Dropped | bool | None]
"""A user's stage: a document or True to keep; False, None or a `Dropped` to drop."""


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

    def with_stages(
        self,
        *,
        mask_personal_data: bool = False,
        variety: VarietyChoice = "any",
        evaluation: Sequence[Path] = (),
    ) -> Recipe:
        """The recipe with more done to every source, after its own stages.

        variety: br or pt drops what is surely the other one; what is neither stays.
        Raises what `read_evaluation_set` raises.
        """
        cleaning: tuple[Stage, ...] = ()
        if evaluation:
            items = [item for path in evaluation for item in read_evaluation_set(path)]
            cleaning += (Decontaminate(EvaluationIndex(items)),)
        if mask_personal_data:
            cleaning += (MaskPersonalData(),)
        tagging: tuple[Stage, ...] = () if variety == "any" else (TagVariety(),)
        filtering: tuple[Stage, ...] = () if variety == "any" else (KeepVariety(variety),)

        def extended(stages: Preset) -> Preset:
            return replace(
                stages,
                cleaning=(*stages.cleaning, *cleaning),
                tagging=(*stages.tagging, *tagging),
                filtering=(*stages.filtering, *filtering),
            )

        sources = tuple(replace(source, stages=extended(source.stages)) for source in self.sources)
        return replace(self, sources=sources, kept_out=(*self.kept_out, *evaluation))

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
class UserStage:
    """A function of the user's, named `module:function` or `file.py:function`."""

    target: str
    sha256: str = ""
    """Of the file, so that a changed function makes other data."""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.target.rpartition(":")[2]

    def __call__(self, document: Document) -> Document | Dropped:
        """What the function answers. Raises E_CONFIG for one that fails or answers something else."""
        try:
            answer = load_function(self.target)(document)
        except Exception as error:
            if isinstance(error, SlmError):
                raise
            raise SlmError(
                "E_CONFIG",
                f"a etapa {self.target} falhou: {type(error).__name__}: {error}",
                where=document.source,
                hint="Corrija a função; com --debug aparece o erro completo.",
            ) from error
        if answer is True:
            return document
        if answer is False or answer is None:
            return Dropped(self.name)
        if isinstance(answer, Document | Dropped):
            return answer
        raise SlmError(
            "E_CONFIG",
            f"a etapa {self.target} deve devolver um Document, um Dropped, True ou False, "
            f"e não {type(answer).__name__}.",
            where=document.source,
            hint="Veja docs/DADOS.md.",
        )


@lru_cache
def load_function(target: str) -> UserFunction:
    """The function that `module:function` or `file.py:function` names. Raises E_CONFIG."""
    place, _, name = target.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        function: UserFunction = vars(module)[name]
    except Exception as error:
        raise SlmError(
            "E_CONFIG",
            f"não achei a etapa {target!r} ({type(error).__name__}: {error}).",
            where="stages",
            hint="Escreva modulo:funcao ou arquivo.py:funcao.",
        ) from error
    if not callable(function):
        raise SlmError(
            "E_CONFIG", f"{target!r} não é uma função.", where="stages", hint="Escreva arquivo.py:funcao."
        )
    return function


def user_stage(target: str, folder: Path) -> UserStage:
    """The stage of a mixture file in `folder`, checked by loading it. Raises E_CONFIG."""
    place, separator, name = target.rpartition(":")
    sha256 = ""
    if separator and place.endswith(".py"):
        file = folder / place
        with os_errors(file):
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        target = f"{file}:{name}"
    load_function(target)
    return UserStage(target, sha256)


def plan(
    inputs: Sequence[Path],
    *,
    mix: Path | None = None,
    preset: str | None = None,
    text_field: str = TEXT_FIELD,
    paragraph_documents: bool = False,
    drop_near_duplicates: bool = False,
    repeat_copies: bool = False,
    mask_personal_data: bool = False,
    variety: VarietyChoice = "any",
    evaluation: Sequence[Path] = (),
) -> Recipe:
    """The recipe of a command line: the sources of a mixture file, and the inputs as one more.

    Raises E_USAGE for nothing to prepare, and what `load_mixture` and `Recipe.with_stages` raise.
    """
    if not inputs and mix is None:
        raise SlmError(
            "E_USAGE",
            "falta dizer que textos preparar.",
            where="ENTRADA",
            hint="Dê arquivos ou pastas de texto, ou --mix mistura.toml.",
        )
    stages = presets.preset(preset or presets.DEFAULT)
    sources: tuple[Source, ...] = ()
    if mix is not None:
        given = {"text_field": text_field, "paragraph_documents": paragraph_documents}
        sources = load_mixture(mix, {"preset": preset or presets.DEFAULT, **given}).sources
    if inputs:
        name = ", ".join(map(str, inputs[:3]))
        sources += (
            Source(
                tuple(inputs),
                name=name.encode("utf-8", "backslashreplace").decode(),
                stages=stages,
                text_field=text_field,
                paragraph_documents=paragraph_documents,
            ),
        )
    plain = mix is None and preset in (None, "none")
    recipe = Recipe(
        sources,
        drop_near_duplicates=drop_near_duplicates or repeat_copies,
        repeat_copies=repeat_copies,
        keep_records=not plain
        or drop_near_duplicates
        or repeat_copies
        or mask_personal_data
        or variety != "any"
        or bool(evaluation),
    )
    return recipe.with_stages(mask_personal_data=mask_personal_data, variety=variety, evaluation=evaluation)


_KEYS = ("name", "inputs", "weight", "preset", "licence", "text_field", "paragraph_documents", "stages")


def load_mixture(path: Path, defaults: Mapping[str, object] = MappingProxyType({})) -> Recipe:
    """The recipe of a mixture file. Paths in it begin at its folder. defaults: of what a source leaves out.

    Raises E_CONFIG for what it should not say, E_NOT_FOUND or E_PERMISSION.
    """
    with os_errors(path):
        raw = path.read_bytes()
    try:
        body = tomllib.loads(raw.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, f"não é TOML: {error}") from error
    tables = body.get("source")
    if not isinstance(tables, list) or not tables:
        raise _wrong(path, "falta ao menos uma tabela [[source]]")
    unknown = sorted(set(body) - {"source"})
    if unknown:
        raise _wrong(path, f"não conheço {', '.join(unknown)}")
    return Recipe(tuple(_source(table, path, defaults) for table in tables), keep_records=True)


def _source(table: Mapping[str, object], path: Path, defaults: Mapping[str, object]) -> Source:
    unknown = sorted(set(table) - set(_KEYS))
    if unknown:
        raise _wrong(path, f"não conheço {', '.join(unknown)} em [[source]] (há {', '.join(_KEYS)})")
    table = {**defaults, **table}
    inputs = _strings(table, "inputs", path)
    if not inputs:
        raise _wrong(path, "toda [[source]] precisa de inputs")
    weight = table.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
        raise _wrong(path, f"weight deve estar entre 0 e {MAX_WEIGHT:g}, e não {weight}")
    by_paragraph = table.get("paragraph_documents", False)
    if not isinstance(by_paragraph, bool):
        raise _wrong(path, "paragraph_documents é true ou false")
    stages = presets.preset(_string(table, "preset", presets.DEFAULT, path))
    own = tuple(user_stage(target, path.parent) for target in _strings(table, "stages", path))
    return Source(
        inputs=tuple(path.parent / given for given in inputs),
        name=_string(table, "name", inputs[0], path),
        weight=float(weight),
        stages=replace(stages, filtering=(*stages.filtering, *own)),
        licence=_string(table, "licence", "", path),
        text_field=_string(table, "text_field", TEXT_FIELD, path),
        paragraph_documents=by_paragraph,
    )


def _string(table: Mapping[str, object], key: str, default: str, path: Path) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise _wrong(path, f"{key} é um texto entre aspas")
    return value


def _strings(table: Mapping[str, object], key: str, path: Path) -> list[str]:
    value = table.get(key, [])
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(path, f"{key} é uma lista de textos")
    return [str(item) for item in value]


def _wrong(path: Path, what: str) -> SlmError:
    return SlmError(
        "E_CONFIG",
        f"mistura inválida: {what}.",
        where=path,
        hint='Um exemplo:  [[source]]  inputs = ["textos"]  weight = 2.0  preset = "curated"',
    )
