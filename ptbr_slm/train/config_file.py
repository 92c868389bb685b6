"""A run's settings from defaults < file < flags < --set, and back to TOML: a TrainConfig, or a subclass."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.text import decode, path_to_text, text_to_path
from ptbr_slm.train.config import AUTO, TrainConfig
from ptbr_slm.train.config.setting import Section, Setting, setting_of


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting as TOML and --set know it."""

    kind: Any
    """Its type, as annotated: `int | None`."""
    setting: Setting
    """What it allows."""
    per_session: bool
    """Whether each session of a run may have its own value."""


def settings(section: type[Section] = TrainConfig) -> dict[str, Entry]:
    """Dotted key -> what is known of it, for every setting of the section and of those below it."""
    kinds = typing.get_type_hints(section)
    found: dict[str, Entry] = {}
    for item in fields(section):
        kind = kinds[item.name]
        if _is_section(kind):
            found |= settings(kind)
        else:
            setting = setting_of(item)
            per_session = section.PER_SESSION or setting.per_session
            found[f"{section.PREFIX}{item.name}"] = Entry(kind, setting, per_session)
    return found


ConfigT = typing.TypeVar("ConfigT", bound=TrainConfig)


def load_values(
    file: Path | None = None, flags: Mapping[str, Any] | None = None, sets: Sequence[str] = ()
) -> dict[str, Any]:
    """Dotted key -> value from a TOML file, flags (None where not given) and `--set a.b=c`, not checked.

    Raises E_CONFIG for what is no TOML, and for a --set without a key.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values |= dict(_flatten(_read_toml(file)))
    values |= {key: value for key, value in (flags or {}).items() if value is not None}
    return values | dict(_parse_set(text) for text in sets)


def load_config(
    file: Path | None = None, flags: Mapping[str, Any] | None = None, sets: Sequence[str] = ()
) -> TrainConfig:
    """The settings that `load_values` finds.

    Raises E_CONFIG for an unknown key (naming the nearest) or a value of another type.
    """
    return from_values(load_values(file, flags, sets))


@typing.overload
def from_values(values: Mapping[str, Any]) -> TrainConfig: ...


@typing.overload
def from_values(values: Mapping[str, Any], kind: type[ConfigT]) -> ConfigT: ...


def from_values(values: Mapping[str, Any], kind: type[TrainConfig] = TrainConfig) -> TrainConfig:
    """The settings from dotted keys. Raises E_CONFIG, or E_USAGE where data or output is missing."""
    known = settings(kind)
    for key in values:
        if key not in known:
            raise _unknown(key, known)
    for key in ("data", "output"):
        if key not in values:
            raise SlmError(
                "E_USAGE",
                f"falta {key}.",
                where=f"--{key}",
                hint=f"Diga --{key} CAMINHO, ou {key} = ... no arquivo.",
            )
    return _build(kind, {key: _convert(key, value, known[key]) for key, value in values.items()})


def to_values(config: Section) -> dict[str, Any]:
    """Dotted key -> plain value (paths as text, tuples as lists), fields that are None left out."""
    values: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if isinstance(value, Section):
            values |= to_values(value)
        elif value is not None:
            auto = setting_of(item).auto and value == AUTO
            values[f"{config.PREFIX}{item.name}"] = "auto" if auto else _plain(value)
    return values


def to_toml(config: TrainConfig) -> str:
    """The settings as TOML, which `load_config` (of a subclass: `from_values`) reads back to equal ones."""
    known = settings(type(config))
    return toml_text({key: value for key, value in to_values(config).items() if known[key].setting.stored})


def toml_text(values: Mapping[str, Any]) -> str:
    """Dotted key -> value as TOML; the keys of a section stand together."""
    lines, section = [], ""
    for key, value in values.items():
        head, _, name = key.rpartition(".")
        if head in values:  # `data` is a path, and data.X a setting beside it: not a table, but a quoted key
            head, name = "", json.dumps(key)
        if head != section:
            section = head
            lines += ["", f"[{section}]"]
        lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return path_to_text(value)
    return list(value) if isinstance(value, tuple) else value


def _toml(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _read_toml(file: Path) -> dict[str, Any]:
    with os_errors(file):
        raw = file.read_bytes()
    try:
        return tomllib.loads(decode(raw))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SlmError(
            "E_CONFIG",
            f"o arquivo não é TOML válido ({error}).",
            where=file,
            hint="Exemplo de linha:  seq_len = 256",
        ) from error


def _flatten(body: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in body.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _parse_set(text: str) -> tuple[str, Any]:
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise SlmError(
            "E_CONFIG",
            f"--set espera chave=valor, e não {text!r}.",
            where="--set",
            hint="Exemplo: --set optimizer.beta2=0.99",
        )
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()  # --set schedule.kind=wsd needs no quotes
    return key.strip(), value


SectionT = typing.TypeVar("SectionT", bound=Section)


def _build(section: type[SectionT], values: Mapping[str, Any]) -> SectionT:
    return section(**_arguments(section, values))


def _arguments(section: type[Section], values: Mapping[str, Any]) -> dict[str, Any]:
    """What of a section is given; a section below it is its default with what of that is given."""
    found: dict[str, Any] = {}
    kinds = typing.get_type_hints(section)
    for item in fields(section):
        if _is_section(kinds[item.name]):
            assert callable(item.default_factory)
            default: Any = item.default_factory()
            found[item.name] = replace(default, **_arguments(type(default), values))
        elif section.PREFIX + item.name in values:
            found[item.name] = values[section.PREFIX + item.name]
    return found


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


_NAMES = {int: "um inteiro", float: "um número", bool: "true ou false", str: "um texto", Path: "um caminho"}
_TEXTS = 'uma lista de textos, como ["O Brasil é"]'


def wanted(entry: Entry) -> str:
    """What a value must be, in Portuguese: what the setting says, or else its type."""
    return entry.setting.wanted or _type_name(_plain_type(entry.kind))


def _plain_type(kind: Any) -> Any:
    """`int` of `int | None`."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return next(option for option in options if option is not type(None))


def _type_name(kind: Any) -> str:
    return _NAMES.get(kind, _TEXTS)


def _convert(key: str, value: Any, entry: Entry) -> Any:
    """A plain value as its setting's type. Raises E_CONFIG for another type."""
    kind, setting = _plain_type(entry.kind), entry.setting
    if setting.auto and value == "auto":
        return AUTO
    if setting.auto and value == AUTO:
        raise _wrong_type(key, value, setting.wanted)
    if value is None and kind is not entry.kind:
        return None
    if typing.get_origin(kind) is tuple:
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif kind is Path and isinstance(value, str | Path) and str(value):
        return text_to_path(str(value))
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif type(value) is kind:
        return value
    raise _wrong_type(key, value, _type_name(kind))


def _wrong_type(key: str, value: Any, wanted: str) -> SlmError:
    return SlmError(
        "E_CONFIG",
        f"{key} deve ser {wanted}, e não {value!r}.",
        where=key,
        hint=f"Exemplo: --set {key}=VALOR",
    )


def _unknown(key: str, known: Mapping[str, Any]) -> SlmError:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]
    same_name = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    return SlmError(
        "E_CONFIG",
        f"não existe a opção {key!r}.",
        where=key,
        hint=f"Você quis dizer {(same_name or [near])[0]!r}?",
    )
