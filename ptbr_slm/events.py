"""Typed events: what a command tells while it works.

An event is a frozen dataclass. `Event.record` is the one renderer for machines: the JSON object of `--json`,
of metrics.jsonl and of sessions.jsonl, with English keys. What a person reads is made from the same object by
the command that shows it. docs/eventos.md is written from these classes (scripts/generate_events_docs.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened. A subclass names it in EVENT and declares its keys with `entry`."""

    EVENT: ClassVar[str]
    """The value of the key `event`."""

    def record(self) -> dict[str, Any]:
        """The JSON-ready object: `event`, then each key. An optional key whose value is None is left out."""
        body: dict[str, Any] = {"event": self.EVENT}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is not None or not is_optional(item):
                body[key_of(item)] = _plain(value)
        return body

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The event that a record tells. Keys that this version does not know are left out.

        Raises ValueError where a key is missing: the record of another version, or of something else.
        """
        known = {item.name: record[key_of(item)] for item in fields(cls) if key_of(item) in record}
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError(f"{cls.EVENT}: {error}") from error


def entry(about: str, *, key: str = "", optional: bool = False) -> Any:
    """A field of an event.

    about: its sentence in docs/eventos.md, in Portuguese. key: its JSON key, where that is no Python name.
    optional: whether the key is left out where there is no value.
    """
    metadata = {"about": about, "key": key, "optional": optional}
    return field(default=None, metadata=metadata) if optional else field(metadata=metadata)


def key_of(item: Field[Any]) -> str:
    """The JSON key of a field."""
    return item.metadata.get("key") or item.name


def is_optional(item: Field[Any]) -> bool:
    """Whether the key may be missing."""
    return bool(item.metadata.get("optional"))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
