"""`bench gpu`: the sections one after the other, each in its own process, the page written after each."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ptbr_slm.bench.gpu.results import Answer, SectionRequest, SectionResult, explain
from ptbr_slm.bench.gpu.wheels import Wheels, open_wheels
from ptbr_slm.bench.machine import MachineFacts, machine
from ptbr_slm.bench.process import ProcessResult, last_line, run_module
from ptbr_slm.errors import SlmError
from ptbr_slm.faults import maybe_fail

RESERVE_S = 4.0
"""Of the whole time, to end a process and to write the page."""
SCHEMA = 1
"""Of gpu.json."""
BROKEN = ("error", "oom", "time")
"""Of a line or a section: it was tried, and did not come to its end."""
_MODULE = "ptbr_slm.bench.gpu.check"

Progress = Callable[[float, str], None]
"""(share of the time that is gone, what begins)."""

MINUTES = 10.0
"""That the times of the sections are for; another `--minutes` scales them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One part of the check."""

    name: str
    title: str
    """In Portuguese."""
    least_s: float
    """Seconds that are kept free for it while sections before it run."""
    most_s: float
    """Seconds after which it is ended."""


SECTIONS = (
    Section(name="machine", title="Máquina", least_s=20, most_s=60),
    Section(name="gemm", title="Produto de matrizes e banda da memória", least_s=15, most_s=60),
    Section(name="amp", title="fp16 com GradScaler contra fp32", least_s=20, most_s=90),
    Section(name="memory", title="Memória contra o planejador", least_s=40, most_s=150),
    Section(name="speed", title="Velocidade do treino", least_s=70, most_s=240),
    Section(name="ranks", title="Duas placas", least_s=30, most_s=120),
    Section(name="onnx", title="Exports para CUDA", least_s=60, most_s=210),
    Section(name="graphs", title="CUDA graphs no PyTorch", least_s=10, most_s=45),
    Section(name="tests", title="Testes marcados gpu", least_s=40, most_s=240),
)
"""`machine` always runs: the others ask it whether there is a card."""

NAMES = tuple(section.name for section in SECTIONS)


def chosen(names: Sequence[str] | None) -> tuple[Section, ...]:
    """The sections to run, in their order; None: all. Raises E_USAGE for a name that there is not."""
    if names is None:
        return SECTIONS
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise SlmError(
            "E_USAGE",
            f"não existe a seção {', '.join(unknown)!r}." if unknown else "--sections não diz seção nenhuma.",
            where="--sections",
            hint=f"Escolha entre: {', '.join(NAMES)}.",
        )
    return tuple(section for section in SECTIONS if section.name in names or section.name == "machine")


def limit(section: Section, later: Sequence[Section], left_s: float, minutes: float) -> float:
    """Seconds that a section may take, with `left_s` for it and those after it; below 1: there is no time."""
    scale = minutes / MINUTES
    kept = scale * sum(other.least_s for other in later)
    return min(scale * section.most_s, max(left_s - kept, min(left_s, scale * section.least_s)))


@dataclass(kw_only=True, slots=True)
class GpuCheck:
    """All sections, and what they ran on."""

    machine: MachineFacts
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
            "machine": asdict(self.machine),
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
    exporter: module that exports a model (`SectionRequest.exporter`). after: called with all results so far,
    after every section. Raises E_USAGE, and E_PROVIDER where there is no card and `smoke` is off.
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
            result = _run_section(section, seconds, facts, carried, smoke, exporter)
            facts |= result.answer.facts
            check.sections.append(result)
            if section.name == "machine":
                _require_card(result, smoke)
                check.machine = machine(str(facts.get("device", "cpu")))
            check.finished = index == len(todo) - 1
            after(check)
    return check


def _run_section(
    section: Section, seconds: float, facts: Mapping[str, Any], wheels: Wheels, smoke: bool, exporter: str
) -> SectionResult:
    if seconds < 1:
        reason = "não coube no tempo: aumente --minutes"
        return SectionResult(name=section.name, status="skipped", reason=reason)
    request = SectionRequest(
        section=section.name,
        device=str(facts.get("device", "cpu")),
        cards=int(facts.get("cards", 0)),
        smoke=smoke,
        limit_s=seconds,
        exporter=exporter,
        environment=wheels.environment,
        wheels=wheels.summary,
        facts=dict(facts),
    )
    began = time.monotonic()
    # Only what runs exports gets the wheels: a second CUDA beside torch's is none of the training's business.
    environment = wheels.environment if section.name in ("onnx", "tests") else {}
    with tempfile.TemporaryDirectory(prefix="ptbr-slm-gpu-") as scratch:
        ended = run_module(_MODULE, request.to_json(), seconds, {"TMPDIR": scratch, **OFFLINE, **environment})
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


def _judged(answer: Answer, ended: ProcessResult, seconds: float) -> tuple[str, str]:
    """(status, reason) of a section."""
    if ended.code is None:
        return "time", f"não terminou em {seconds:.0f} s; o que já estava medido ficou"
    if ended.code == -9:
        return "oom", "o sistema encerrou o processo (quase sempre, a memória do computador acabou)"
    if ended.code != 0:
        return "error", f"o processo morreu (código {ended.code}): {last_line(ended.errors)}"
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


def main() -> None:
    """Run one section: `python -m ptbr_slm.bench.gpu.check REQUEST.json ANSWER.json`.

    Each line is written into the second file as it is measured.
    """
    request = SectionRequest(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    answer = Answer(path=Path(sys.argv[2]))
    answer.save()
    try:
        maybe_fail(f"bench.{request.section}")
        measure_of(request.section)(request, answer)
    except Exception as error:
        answer.status, answer.reason = explain(error)
    answer.save()


def measure_of(section: str) -> Callable[[SectionRequest, Answer], None]:
    """The function of a section, imported where it is needed: some need torch, some must not have it."""
    if section in ("machine", "gemm", "graphs"):
        from ptbr_slm.bench.gpu import card

        return {"machine": card.measure_machine, "gemm": card.measure_gemm, "graphs": card.measure_graphs}[
            section
        ]
    if section in ("memory", "speed"):
        from ptbr_slm.bench.gpu import training

        return training.measure_memory if section == "memory" else training.measure_speed
    if section in ("amp", "ranks"):
        from ptbr_slm.bench.gpu import agreement

        return agreement.measure_amp if section == "amp" else agreement.measure_ranks
    if section == "onnx":
        from ptbr_slm.bench.gpu.exports import measure_exports

        return measure_exports
    from ptbr_slm.bench.gpu.gpu_tests import measure_tests

    return measure_tests


if __name__ == "__main__":
    main()
