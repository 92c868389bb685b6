"""What a setting allows, as data: `field(default=256, metadata=integer(1, unit="tokens"))`.

The check of a value, the sentence of its error, how TOML reads and writes it and its documentation all come
from this metadata. The Portuguese sentence follows from the limits; `wanted` replaces it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar

from ptbr_slm.errors import SlmError

AUTO = 0
"""What a number for which TOML says `auto` holds in memory; the plan of a run has a number in its place."""

Metadata = Mapping[str, "Setting"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What is known of a setting besides its type and default. None, where the type has it, is allowed."""

    wanted: str = ""
    """What a value must be, as the error says it: `KEY deve ser ...`. Empty: the type says it all."""
    choices: tuple[str, ...] = ()
    """The only values; empty: any."""
    pattern: str = ""
    """What the whole text matches; empty: any text."""
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    """Whether a number must be above `low`, and not `low` itself."""
    open_high: bool = False
    """Whether a number must be below `high`, and not `high` itself."""
    unit: str = ""
    """What a number counts, in Portuguese; empty for a ratio."""
    auto: bool = False
    """Whether TOML and the command line may say `auto`, which is `AUTO` in memory."""
    stored: bool = True
    """Whether config.resolved.toml holds it: what a run is, not how it was started."""
    per_session: bool = False
    """Whether each session of a run may have its own value: it does not alter the course of the weights, or
    is compared as what it stands for (the model's shape, the sha256 of the data and of the tokenizer)."""

    def allows(self, value: Any) -> bool:
        """Whether this value, of the right type, is within the limits."""
        if value is None or (self.auto and value == AUTO):
            return True
        if self.choices:
            return value in self.choices
        if self.pattern:
            return re.fullmatch(self.pattern, value) is not None
        if isinstance(value, int | float):
            above = value > self.low if self.open_low else value >= self.low
            return above and (value < self.high if self.open_high else value <= self.high)
        return True


def per_session(*, stored: bool = True) -> Metadata:
    """Any value of the type, which each session of a run may choose."""
    return {SETTING: Setting(stored=stored, per_session=True)}


def integer(
    low: int,
    high: int | None = None,
    *,
    unit: str = "",
    auto: bool = False,
    wanted: str = "",
    per_session: bool = False,
) -> Metadata:
    """Whole numbers from `low` to `high`."""
    if not wanted:
        wanted = _limits("um inteiro", low, high, positive=low == 1) + (" ou auto" if auto else "")
    most = math.inf if high is None else high
    return {
        SETTING: Setting(low=low, high=most, wanted=wanted, unit=unit, auto=auto, per_session=per_session)
    }


def number(
    low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False, unit: str = ""
) -> Metadata:
    """Numbers from `low` to `high`, either of which may be left out itself."""
    wanted = _limits("um número", low, None if high == math.inf else high, positive=open_low)
    if high < math.inf:
        left_out = [f"o {limit:g}" for limit, is_open in ((low, open_low), (high, open_high)) if is_open]
        wanted += f" (sem {' e '.join(left_out)})" if left_out else ""
    return {
        SETTING: Setting(low=low, high=high, open_low=open_low, open_high=open_high, wanted=wanted, unit=unit)
    }


def choice(*choices: str, wanted: str = "", per_session: bool = False) -> Metadata:
    """One of these words."""
    wanted = wanted or f"{', '.join(choices[:-1])} ou {choices[-1]}"
    return {SETTING: Setting(choices=choices, wanted=wanted, per_session=per_session)}


def text(pattern: str, wanted: str, *, per_session: bool = False) -> Metadata:
    """Text that matches a pattern."""
    return {SETTING: Setting(pattern=pattern, wanted=wanted, per_session=per_session)}


def _limits(noun: str, low: float, high: float | None, *, positive: bool) -> str:
    if high is not None:
        return f"{noun} de {low:g} a {high:g}"
    return f"{noun} positivo" if positive else f"zero ou {noun} positivo"


SETTING = "setting"
"""Key of a `Setting` in the metadata of a field."""


def setting_of(item: Field[Any]) -> Setting:
    """What a field of a section allows."""
    found: Setting = item.metadata.get(SETTING, Setting())
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A group of settings. Making one checks its values: E_CONFIG names the first that is not allowed."""

    PREFIX: ClassVar[str] = ""
    """What its keys begin with in TOML, in --set and in messages."""
    PER_SESSION: ClassVar[bool] = False
    """Whether all its settings are `Setting.per_session`."""

    def __post_init__(self) -> None:
        for item in fields(self):
            setting, value = setting_of(item), getattr(self, item.name)
            if not setting.allows(value):
                key = f"{self.PREFIX}{item.name}"
                raise SlmError(
                    "E_CONFIG",
                    f"{key} deve ser {setting.wanted}, e não {value!r}.",
                    where=key,
                    hint=f"Corrija no arquivo de configuração, na linha de comando ou com --set {key}=VALOR.",
                )
