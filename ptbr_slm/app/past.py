"""What Desfazer and Tentar de novo remember of one visitor's text box."""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_SNAPSHOTS = 20
MAX_CHARACTERS = 200_000
"""Of one snapshot: a pasted megabyte that the model refuses anyway is not kept in the server's memory."""


@dataclass(frozen=True, slots=True)
class Past:
    """Earlier contents of the box, newest last. Immutable: every action gives a new one."""

    base: str | None = None
    """The text that was last continued: what Tentar de novo starts from. None before the first time."""
    snapshots: tuple[tuple[str, str | None], ...] = ()
    """(text, base) before each action."""

    def before_continuing(self, text: str) -> Past:
        """`text` is about to be continued."""
        return replace(self.remember(text), base=text if len(text) <= MAX_CHARACTERS else None)

    def remember(self, text: str) -> Past:
        """The box is about to change and holds `text`."""
        if len(text) > MAX_CHARACTERS or (self.snapshots and self.snapshots[-1][0] == text):
            return self
        return replace(self, snapshots=(*self.snapshots, (text, self.base))[-MAX_SNAPSHOTS:])

    def undone(self) -> tuple[str | None, Past]:
        """The text before the last action (None where there is none), and the past that it had."""
        if not self.snapshots:
            return None, self
        text, base = self.snapshots[-1]
        return text, Past(base, self.snapshots[:-1])

    def settled(self, text: str) -> Past:
        """The action is over and left `text`: one that changed nothing (an error) is forgotten."""
        if self.snapshots and self.snapshots[-1][0] == text:
            return self.undone()[1]
        return self
