"""`bench gpu`: the sections one after the other, each in its own process, the page written after each."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptbr_slm.bench.gpu.asked import Asked
from ptbr_slm.bench.gpu.results import Answer, SectionResult
from ptbr_slm.bench.gpu.sections import Section, chosen, limit
from ptbr_slm.bench.gpu.wheels import Wheels, open_wheels
from ptbr_slm.bench.process import Ended, ask, last_words
from ptbr_slm.bench.train import machine
from ptbr_slm.errors import SlmError

RESERVE_S = 4.0
"""Of the whole time, to end a process and to write the page."""
SCHEMA = 1
"""Of gpu.json."""
BROKEN = ("error", "oom", "time")
"""Of a line or a section: it was tried, and did not come to its end."""
_MODULE = "ptbr_slm.bench.gpu.section"

Progress = Callable[[float, str], None]
"""(share of the time that is gone, what begins)."""


@dataclass(kw_only=True, slots=True)
class GpuCheck:
    """All sections, and what they ran on."""

    machine: dict[str, Any]
    smoke: bool
    minutes: float
    sections: list[SectionResult] = field(default_factory=list)
    finished: bool = False

    @property
    def failures(self) -> list[str]:
        """Checks that failed, and what ran and did not come to its end, in words."""
        found = []
        for section in self.sections:
            if section.status in BROKEN and section.reason:
                found.append(f"{section.name}: {section.reason}")
            found += [
                f"{section.name}, {line.name}: {line.reason}"
                for line in section.answer.lines
                if line.status in BROKEN
            ]
            found += [f"{section.name}: {c.label}" for c in section.answer.checks if c.passed is False]
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": SCHEMA,
            "smoke": self.smoke,
            "minutes": self.minutes,
            "finished": self.finished,
            "machine": self.machine,
            "failures": self.failures,
            "sections": [section.to_json() for section in self.sections],
        }


def bench_gpu(
    *,
    minutes: float = 10.0,
    sections: Sequence[str] | None = None,
    smoke: bool = False,
    wheels: Path | None = None,
    exporter: str = "",
    after: Callable[[GpuCheck], object] = lambda check: None,
    progress: Progress = lambda share, text: None,
) -> GpuCheck:
    """Measure what the sections name, in at most `minutes`.

    smoke: shrink everything, on a CPU too. wheels: a folder with onnxruntime-gpu and what it needs.
    exporter: module that exports a model (`asked.Asked`). after: called with all results so far, after every
    section. Raises E_USAGE, and E_PROVIDER where there is no card and smoke was not asked for.
    """
    began = time.monotonic()
    todo = chosen(sections)
    if not 0 < minutes <= 600:
        hint = "Use um número de minutos, como --minutes 10."
        raise SlmError("E_USAGE", f"--minutes não pode ser {minutes}.", where="--minutes", hint=hint)
    check = GpuCheck(machine=machine("cpu"), smoke=smoke, minutes=minutes)
    facts: dict[str, Any] = {}
    with ExitStack() as held:
        carried = held.enter_context(open_wheels(wheels))
        for index, section in enumerate(todo):
            progress((time.monotonic() - began) / (60 * minutes), section.title)
            left = 60 * minutes - RESERVE_S - (time.monotonic() - began)
            seconds = limit(section, todo[index + 1 :], left, minutes)
            result = _alone(section, seconds, facts, carried, smoke, exporter)
            facts |= result.answer.facts
            check.sections.append(result)
            if section.name == "machine":
                _require_card(result, smoke)
                check.machine = machine(str(facts.get("device", "cpu")))
            check.finished = index == len(todo) - 1
            after(check)
    return check


def _alone(
    section: Section, seconds: float, facts: Mapping[str, Any], wheels: Wheels, smoke: bool, exporter: str
) -> SectionResult:
    if seconds < 1:
        reason = "não coube no tempo: aumente --minutes"
        return SectionResult(name=section.name, status="skipped", reason=reason)
    asked = Asked(
        section=section.name,
        device=str(facts.get("device", "cpu")),
        cards=int(facts.get("cards", 0)),
        smoke=smoke,
        limit_s=seconds,
        exporter=exporter,
        environment=wheels.environment,
        wheels=wheels.told,
        facts=dict(facts),
    )
    began = time.monotonic()
    # Only what runs exports gets the wheels: a second CUDA beside torch's is none of the training's business.
    environment = wheels.environment if section.name in ("onnx", "tests") else {}
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-gpu-") as scratch:
        ended = ask(_MODULE, asked.to_json(), seconds, {"TMPDIR": scratch, **OFFLINE, **environment})
    answer = Answer.from_json(ended.answer)
    status, reason = _judged(answer, ended, seconds)
    return SectionResult(
        name=section.name,
        status=status,
        reason=reason,
        seconds=time.monotonic() - began,
        limit_s=seconds,
        answer=answer,
    )


OFFLINE = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def _judged(answer: Answer, ended: Ended, seconds: float) -> tuple[str, str]:
    """(status, reason) of a section."""
    if ended.code is None:
        return "time", f"não terminou em {seconds:.0f} s; o que já estava medido ficou"
    if ended.code == -9:
        return "oom", "o sistema encerrou o processo (quase sempre, a memória do computador acabou)"
    if ended.code != 0:
        return "error", f"o processo morreu (código {ended.code}): {last_words(ended.errors)}"
    if answer.status != "ok":
        return answer.status, answer.reason
    if any(check.passed is False for check in answer.checks):
        return "failed", "uma verificação passou da tolerância"
    if any(line.status == "ok" for line in answer.lines):
        return "ok", ""
    broken = next((line for line in answer.lines if line.status in BROKEN), None)
    if broken is not None:
        return broken.status, ""
    return "absent", next((line.reason for line in answer.lines if line.reason), "nada foi medido")


def _require_card(result: SectionResult, smoke: bool) -> None:
    """Raise E_PROVIDER, with the reason, where there is nothing to check."""
    if smoke or result.answer.facts.get("device") == "cuda":
        return
    why = result.reason or "o PyTorch não encontra GPU nenhuma"
    raise SlmError(
        "E_PROVIDER",
        f"esta conferência precisa de uma GPU NVIDIA: {why}.",
        where="bench gpu",
        hint="Confira com:  ptbr-slm doctor   (para só experimentar o comando, sem placa: --smoke)",
    )
