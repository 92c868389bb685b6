"""`bench generate`: reading and writing speed of a model on this machine, every case in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ptbr_slm.bench.generate_cases import (
    CaseResult,
    Entrant,
    GenerateBench,
    GenerateCase,
    Spread,
    result_from,
)
from ptbr_slm.bench.process import ask, last_words
from ptbr_slm.bench.train import machine
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.onnx.cores import physical_cores

LIMIT_S = 1800.0
"""A case that takes longer is given up."""
COLD_RUNS = 3
COLD_LIMIT_S = 300.0
PROMPT = "O Brasil é"
MOST_ROWS = 64

Progress = Callable[[float, str], None]
"""(share that is done, what begins)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What to measure."""

    batches: tuple[int, ...] = (1, 4, 16)
    prompts: tuple[int, ...] = (256,)
    decode: int = 64
    rounds: int = 5
    device: str = "auto"
    cold: bool = True

    def __post_init__(self) -> None:
        checks = (
            ("--batch", self.batches, 1, MOST_ROWS),
            ("--prompt", self.prompts, 1, 1_000_000),
            ("--decode", (self.decode,), 1, 100_000),
            ("--rounds", (self.rounds,), 1, 1000),
        )
        for option, values, low, high in checks:
            if not values or any(not low <= value <= high for value in values):
                raise SlmError(
                    "E_USAGE",
                    f"{option} deve ter números de {low} a {high}.",
                    where=option,
                    hint="Por exemplo:  --batch 1,4,16 --prompt 256 --decode 64 --rounds 5",
                )


def bench_generate(
    models: Sequence[tuple[str, Path]],
    wanted: Wanted,
    *,
    peer: Path | None = None,
    progress: Progress | None = None,
) -> GenerateBench:
    """Measure every model; cases take turns, so that whatever else the machine does falls on all alike.

    models: (name, export or model folder). peer: a model folder for transformers. Raises E_NOT_FOUND.
    """
    for _, path in models:
        if not path.exists():
            hint = "Faça um export:  ptbr-slm export MODELO -o PASTA; ou use --size 85m, sem modelo nenhum."
            raise SlmError("E_NOT_FOUND", "o modelo não existe.", where=path, hint=hint)
    threads = _threads()
    steps = _steps(models, wanted, peer)
    entrants = {name: Entrant(name=name, path=str(path)) for name, path in models}
    if peer is not None:
        entrants["transformers"] = Entrant(name="transformers", path=str(peer))
    report = progress or (lambda done, text: None)
    report(0.0, "banda da memória")
    asked = {"what": "bandwidth", "threads": threads}
    bandwidth = ask(_MODULE, asked, LIMIT_S, {"OPENBLAS_NUM_THREADS": "1"}).answer or 0.0
    for index, (name, case) in enumerate(steps):
        report(index / len(steps), f"{name}, lote {case.batch}")
        entrants[name].results.append(_alone(case))
    if wanted.cold:
        for name, path in models:
            report(1.0, f"{name}, do zero ao primeiro texto")
            entrants[name] = replace(entrants[name], cold=cold_start(path, wanted.device, COLD_RUNS))
    ran_on = {result.device for entrant in entrants.values() for result in entrant.results}
    about = machine("cuda" if "cuda" in ran_on else "cpu")
    return GenerateBench(
        machine=about, threads=threads, bandwidth=bandwidth, entrants=tuple(entrants.values())
    )


_MODULE = "ptbr_slm.bench.generate_measure"


def _steps(
    models: Sequence[tuple[str, Path]], wanted: Wanted, peer: Path | None
) -> list[tuple[str, GenerateCase]]:
    steps = []
    for batch in wanted.batches:
        case = GenerateCase(
            path="",
            device=wanted.device,
            batch=batch,
            prompts=wanted.prompts,
            decode=wanted.decode,
            rounds=wanted.rounds,
        )
        steps += [(name, replace(case, path=str(path))) for name, path in models]
        if peer is not None:
            steps.append(("transformers", replace(case, path=str(peer), engine="transformers")))
    return steps


def _alone(case: GenerateCase) -> CaseResult:
    """The result of a case; a process that dies without a word is a result too."""
    ended = ask(_MODULE, {"what": "case", "case": asdict(case)}, LIMIT_S)
    if ended.answer is not None:
        return result_from(ended.answer)
    if ended.code is None:
        return CaseResult(case=case, status="time", reason=f"não terminou em {LIMIT_S:.0f} s")
    if ended.code == -9:
        return CaseResult(case=case, status="oom", reason="o sistema encerrou o processo: faltou memória")
    return CaseResult(case=case, status="error", reason=f"código {ended.code}: {last_words(ended.errors)}")


def cold_start(path: Path, device: str, runs: int) -> Spread | None:
    """Seconds from starting `ptbr-slm generate` to its first character of new text; None where it fails.

    The files are in the system's cache: they have just been read.
    """
    command = [sys.executable, "-m", "ptbr_slm", "generate", "-m", str(path), "--quiet", "--device", device]
    command += ["-n", "8", "--temperature", "0", PROMPT]
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            first = process.stdout.read(1)
            seconds.append(time.perf_counter() - began)
            process.stdout.read()
            if process.wait(COLD_LIMIT_S) or not first:
                return None
    return Spread.of(seconds)


def _threads() -> int:
    """As many as the runtime takes: PTBR_SLM_THREADS, OMP_NUM_THREADS, or the physical cores."""
    for name in ("PTBR_SLM_THREADS", "OMP_NUM_THREADS"):
        asked = os.environ.get(name, "").split(",")[0].strip()
        if asked.isdecimal() and int(asked) > 0:
            return int(asked)
    return physical_cores()
