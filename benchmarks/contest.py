"""A contest: every engine in a process of its own, taking turns so that whatever else the machine does falls
on all of them alike.

Own processes, because idle thread pools of one engine spin on the cores that another is measured on; and a
pause before each turn, so that the last one's threads have gone to sleep.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from contestants import Contestant, Floats, Turn
from machine import peak_memory

PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Entry:
    """One engine with one file."""

    tool: str
    weights: str
    """How its weights are stored, as the tool calls it."""
    kind: Callable[..., Contestant]
    """Called with the path, `capacity` and `threads`."""
    path: Path


@dataclass(slots=True)
class Score:
    """What one entry did."""

    entry: Entry
    open_s: float
    """Seconds to open the model, imports included."""
    logits: Floats
    """(V,) after the prompt."""
    turns: list[Turn] = field(default_factory=list)
    peak_bytes: int = 0
    """Largest resident memory of its process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """The same for all."""

    prompt: tuple[int, ...]
    steps: int
    """Decoded tokens after the first."""
    rounds: int
    capacity: int
    """Tokens the KV cache may hold."""
    threads: int


def hold(entries: Sequence[Entry], rules: Rules, progress: Callable[[str], None]) -> list[Score]:
    """One turn each to warm up, then `rules.rounds` rounds; each round begins with another entry."""
    with ExitStack() as stack:
        players = [stack.enter_context(_Player(entry, rules)) for entry in entries]
        scores = []
        for player in players:
            progress(f"opening {player.entry.tool} {player.entry.weights}")
            scores.append(Score(player.entry, player.ask_open(), player.ask_logits()))
            player.ask_turn()
        for index in range(rules.rounds):
            progress(f"round {index + 1} of {rules.rounds}")
            for turn in range(len(players)):
                chosen = (index + turn) % len(players)
                time.sleep(PAUSE_S)
                scores[chosen].turns.append(players[chosen].ask_turn())
        for player, score in zip(players, scores, strict=True):
            score.peak_bytes = player.ask_peak()
        return scores


class _Player:
    """A contestant in a process of its own."""

    def __init__(self, entry: Entry, rules: Rules) -> None:
        self.entry = entry
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        os.environ["PTBR_SLM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(
            rules.threads
        )  # children inherit
        self._process = context.Process(target=_play, args=(theirs, entry, rules), daemon=True)
        self._process.start()
        theirs.close()  # so that a child's death is an EOFError here

    def __enter__(self) -> _Player:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()

    def ask_open(self) -> float:
        """Open the model; seconds it took."""
        return float(self._ask("open"))  # type: ignore[arg-type]

    def ask_logits(self) -> Floats:
        """Logits after the prompt."""
        return self._ask("logits")  # type: ignore[return-value]

    def ask_turn(self) -> Turn:
        """One measured turn."""
        return self._ask("turn")  # type: ignore[return-value]

    def ask_peak(self) -> int:
        """Bytes of its largest resident memory."""
        return int(self._ask("peak"))  # type: ignore[call-overload,no-any-return]

    def _ask(self, question: str) -> object:
        self._pipe.send(question)
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"{self.entry.tool} {self.entry.weights} exited; its error is above") from None


def _play(pipe: Connection, entry: Entry, rules: Rules) -> None:
    """The child: answer questions until the parent goes."""
    engine: Contestant | None = None
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        if question == "open":
            start = time.perf_counter()
            engine = entry.kind(entry.path, capacity=rules.capacity, threads=rules.threads)
            pipe.send(time.perf_counter() - start)
        elif question == "peak":
            pipe.send(peak_memory())
        else:
            assert engine is not None, "opened first"
            answer = (
                engine.last_logits(rules.prompt)
                if question == "logits"
                else engine.turn(rules.prompt, rules.steps)
            )
            pipe.send(answer)
