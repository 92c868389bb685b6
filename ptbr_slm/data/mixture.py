"""The recipe of a command line, and of a mixture file: tables [[source]] in TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ptbr_slm.data import presets
from ptbr_slm.data.recipe import DEFAULT_OPTIONS, Recipe, Rule, Source, SourceOptions, VarietyChoice
from ptbr_slm.data.sources.hub_names import PREFIX, shown
from ptbr_slm.data.stages.named import GROUPS, RULES
from ptbr_slm.data.stages.personal_data import TOKENS
from ptbr_slm.data.stages.user_function import user_stage
from ptbr_slm.errors import SlmError, os_errors

MAX_WEIGHT = 100.0


def plan(
    inputs: Sequence[Path],
    *,
    mix: Path | None = None,
    options: SourceOptions = DEFAULT_OPTIONS,
    drop_near_duplicates: bool = False,
    repeat_copies: bool = False,
    evaluation: Sequence[Path] = (),
) -> Recipe:
    """The recipe of a command line: the sources of a mixture file, and the inputs as one more.

    options: of the inputs, and of the sources that say nothing. evaluation: sets whose items are taken out.
    Raises E_USAGE for nothing to prepare or kinds of personal data to keep where none is masked, and what
    `load_mixture` and `Recipe.without_evaluation` raise.
    """
    if not inputs and mix is None:
        raise SlmError(
            "E_USAGE",
            "falta dizer que textos preparar.",
            where="ENTRADA",
            hint="Dê arquivos ou pastas de texto, ou --mix mistura.toml.",
        )
    if not 0 <= options.max_wrong <= 1:
        raise SlmError(
            "E_CONFIG",
            f"a parte da fonte que pode estar errada vai de 0 a 1, e não {options.max_wrong}.",
            where="--max-wrong",
            hint="Use --max-wrong 0.05.",
        )
    stages = options.stages()
    _check_kinds(options, mix)
    sources = load_mixture(mix, options).sources if mix is not None else ()
    if inputs:
        name = ", ".join(map(shown, inputs[:3]))
        sources += (
            Source(
                tuple(inputs),
                name=name.encode("utf-8", "backslashreplace").decode(),
                stages=stages,
                text_field=options.text_field,
                paragraph_documents=options.paragraph_documents,
                max_wrong=options.max_wrong,
            ),
        )
    plain = options == SourceOptions(
        text_field=options.text_field,
        paragraph_documents=options.paragraph_documents,
        max_wrong=options.max_wrong,
    )
    recipe = Recipe(
        sources,
        drop_near_duplicates=drop_near_duplicates or repeat_copies,
        repeat_copies=repeat_copies,
        keep_records=not plain
        or mix is not None
        or drop_near_duplicates
        or repeat_copies
        or bool(evaluation),
    )
    return recipe.without_evaluation(evaluation)


def _check_kinds(options: SourceOptions, mix: Path | None) -> None:
    unknown = [kind for kind in options.keep if kind not in TOKENS]
    if unknown or (options.keep and not options.mask and mix is None):
        raise SlmError(
            "E_USAGE",
            f"não conheço o dado pessoal {unknown[0]!r}." if unknown else "nada está sendo mascarado.",
            where="--keep-personal-data",
            hint=f"Use: {', '.join(TOKENS)}." if unknown else "Acrescente --mask-personal-data.",
        )


_KEYS = (
    "name",
    "inputs",
    "weight",
    "preset",
    "rules",
    "variety",
    "mask",
    "keep",
    "licence",
    "text_field",
    "paragraph_documents",
    "max_wrong",
    "stages",
)


def load_mixture(path: Path, options: SourceOptions = DEFAULT_OPTIONS) -> Recipe:
    """The recipe of a mixture file. Paths in it begin at its folder, but for hf:// names.

    options: of what a source leaves out.

    Raises E_CONFIG for what it should not say, E_NOT_FOUND or E_PERMISSION.
    """
    with os_errors(path):
        raw = path.read_bytes()
    try:
        body = tomllib.loads(raw.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, f"não é TOML: {error}") from error
    tables = body.get("source")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise _wrong(path, "falta ao menos uma tabela [[source]]")
    unknown = sorted(set(body) - {"source"})
    if unknown:
        raise _wrong(path, f"não conheço {', '.join(unknown)}; há só tabelas [[source]]")
    found = [_SourceTable(table, path, number) for number, table in enumerate(tables, start=1)]
    return Recipe(tuple(table.source(options) for table in found), keep_records=True)


@dataclass(frozen=True, slots=True)
class _SourceTable:
    """A table [[source]], whose values are checked as they are read."""

    values: Mapping[str, object]
    path: Path
    number: int
    """Of the tables of the file, from 1."""

    def source(self, options: SourceOptions) -> Source:
        """The source; `options` are of what the table leaves out. Raises E_CONFIG."""
        unknown = sorted(set(self.values) - set(_KEYS))
        if unknown:
            raise self.wrong(f"não conheço {', '.join(unknown)} (há {', '.join(_KEYS)})")
        inputs = self.strings("inputs", ())
        if not inputs:
            raise self.wrong("toda [[source]] precisa de inputs")
        weight = self.values.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
            raise self.wrong(f"weight deve estar entre 0 e {MAX_WEIGHT:g}, e não {_shown(weight)}")
        options = self.options(options)
        own = [user_stage(target, self.path.parent) for target in self.strings("stages", ())]
        return Source(
            inputs=tuple(
                Path(given) if given.startswith(PREFIX) else self.path.parent / given for given in inputs
            ),
            name=self.string("name", inputs[0]),
            weight=float(weight),
            stages=options.stages(self.rules(), own),
            licence=self.string("licence", ""),
            text_field=options.text_field,
            paragraph_documents=options.paragraph_documents,
            max_wrong=options.max_wrong,
        )

    def options(self, default: SourceOptions) -> SourceOptions:
        """`default` with what the table says."""
        variety = self.choice("variety", default.variety, get_args(VarietyChoice))
        mask = self.boolean("mask", default.mask)
        keep = self.strings("keep", default.keep if mask else ())
        if keep and not mask:
            raise self.wrong("keep diz o que mask deixa: acrescente mask = true")
        for kind in keep:
            if kind not in TOKENS:
                raise self.wrong(f"keep pode ter {_listed(TOKENS)}, e não {_shown(kind)}")
        return SourceOptions(
            preset=self.choice("preset", default.preset, tuple(presets.PRESETS)),
            text_field=self.string("text_field", default.text_field),
            paragraph_documents=self.boolean("paragraph_documents", default.paragraph_documents),
            max_wrong=self.share("max_wrong", default.max_wrong),
            variety="br" if variety == "br" else "pt" if variety == "pt" else "any",
            mask=mask,
            keep=keep,
        )

    def rules(self) -> list[Rule]:
        """The rules that the table names, in the order of `RULES`: a list, or a table with thresholds."""
        given = self.values.get("rules", [])
        if isinstance(given, str):
            given = [given]
        if isinstance(given, list):
            given = {str(name): True for name in given}
        if not isinstance(given, dict):
            raise self.wrong("rules é uma lista de nomes, ou uma tabela: rules = {words = {least = 20}}")
        named: dict[str, object] = {}
        for name in sorted(given, key=lambda name: name not in GROUPS):  # a rule's own value is the last word
            if name in GROUPS and not isinstance(given[name], bool):
                raise self.wrong(f"rules.{name} é true ou false, e não {_shown(given[name])}")
            members = [stage.name for stage in GROUPS[name]] if name in GROUPS else [name]
            named |= dict.fromkeys(members, given[name])
        unknown = sorted(set(named) - set(RULES))
        if unknown:
            raise self.wrong(f"não conheço a regra {unknown[0]!r} (há {', '.join((*GROUPS, *RULES))})")
        return [self.rule(name, named[name]) for name in RULES if name in named]

    def rule(self, name: str, value: object) -> Rule:
        """A rule with its value: true, false, a threshold, or a table of them."""
        entry = RULES[name]
        known = entry.thresholds
        if value is False:
            return Rule(name, None)
        given = {} if value is True else value
        if _is_number(given) and len(known) == 1:
            given = dict.fromkeys(known, given)
        if not isinstance(given, dict) or set(given) - set(known) or not all(map(_is_number, given.values())):
            fields = ", ".join(f"{key} = {limit:g}" for key, limit in known.items())
            forms = f"true, false ou {{{fields}}}" if known else "true ou false"
            raise self.wrong(f"rules.{name} pode ser {forms}, e não {_shown(value)}")
        return Rule(name, entry.with_thresholds({key: float(limit) for key, limit in given.items()}))

    def string(self, key: str, default: str) -> str:
        """The text of a key. Raises E_CONFIG."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(f"{key} é um texto entre aspas, e não {_shown(value)}")
        return value

    def choice(self, key: str, default: str, allowed: Sequence[str]) -> str:
        """The text of a key, one of `allowed`. Raises E_CONFIG."""
        value = self.values.get(key, default)
        if value not in allowed:
            raise self.wrong(f"{key} pode ser {_listed(allowed)}, e não {_shown(value)}")
        return str(value)

    def boolean(self, key: str, default: bool) -> bool:
        """True or false. Raises E_CONFIG."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(f"{key} é true ou false, e não {_shown(value)}")
        return value

    def share(self, key: str, default: float) -> float:
        """A number from 0 to 1. Raises E_CONFIG."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.wrong(f"{key} é uma parte da fonte, de 0 a 1, e não {_shown(value)}")
        return float(value)

    def strings(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        """The texts of a key; one text is a list of one. Raises E_CONFIG."""
        value = self.values.get(key, list(default))
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(f"{key} é uma lista de textos, e não {_shown(value)}")
        return tuple(str(item) for item in value)

    def wrong(self, what: str) -> SlmError:
        """E_CONFIG with the table's number and name."""
        name = self.values.get("name")
        told = f" ({name})" if isinstance(name, str) else ""
        return _wrong(self.path, f"na {self.number}ª tabela [[source]]{told}, {what}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def _shown(value: object) -> str:
    """A value as TOML writes it."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _wrong(path: Path, what: str) -> SlmError:
    return SlmError(
        "E_CONFIG",
        f"mistura inválida: {what}.",
        where=path,
        hint='Um exemplo:  [[source]]  inputs = ["textos"]  weight = 2.0  preset = "curated"',
    )
