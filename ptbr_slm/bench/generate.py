"""`bench generate`: reading and writing speed of a model on this machine, every case in its own process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ptbr_slm.bench.machine import MachineFacts, machine
from ptbr_slm.bench.process import last_line, run_module
from ptbr_slm.demo import model_path
from ptbr_slm.errors import SlmError
from ptbr_slm.system import physical_cores

_MODULE = "ptbr_slm.bench.generate_measure"
LIMIT_S = 1800.0
"""A case that takes longer is given up."""
COLD_RUNS = 3
COLD_LIMIT_S = 300.0
PROMPT = "O Brasil é"
MOST_ROWS = 64

Progress = Callable[[float, str], None]
"""(share that is done, what begins)."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements of one thing."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Median, smallest and largest of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def times(self, factor: float) -> Spread:
        """Every value times a positive factor."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateCase:
    """One model, read and written in one process."""

    path: str
    """An export or a model folder."""
    engine: str = "ptbr-slm"
    """`ptbr-slm`, or the peer `transformers`."""
    device: str = "auto"
    batch: int = 1
    """Texts decoded together."""
    prompts: tuple[int, ...] = (256,)
    """Lengths of the prompt, in tokens, each measured."""
    decode: int = 64
    """Tokens decoded in a row."""
    rounds: int = 5
    """Repetitions, after one that is not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What was measured with one length of the prompt."""

    prompt: int
    batch: int
    prefill: Spread
    """Tokens/s of all rows."""
    first_token_s: Spread
    """From the prompt's ids to the first token's id, of one row, in an open and warm model."""
    decode: Spread
    """Tokens/s of all rows together."""
    step_bytes: int | None
    """Read in a step: weights, and the rows' keys and values half variant through; None where unknown."""
    kv_bytes: int | None
    """Memory of keys and values, as allocated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseResult:
    """A case, and its figures or why there are none."""

    case: GenerateCase
    status: str = "ok"
    """`ok`, `error`, `oom` or `time`."""
    reason: str = ""
    device: str = ""
    """Where it really ran."""
    precision: str = ""
    parameters: int = 0
    file_bytes: int = 0
    open_s: float = 0.0
    peak_bytes: int | None = None
    """Largest resident memory of the process."""
    device_bytes: int | None = None
    """Largest memory on the GPU; None on a CPU."""
    figures: tuple[Figures, ...] = ()
    skipped: tuple[str, ...] = ()
    """Prompts that do not fit the context, in words."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One of the models compared."""

    name: str
    path: str
    cold: Spread | None = None
    """Seconds from starting a process to its first character of text; None where it was not measured."""
    results: list[CaseResult] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateBench:
    """All of it."""

    machine: MachineFacts
    threads: int
    bandwidth: float
    """Bytes/s that the memory was read with."""
    candidates: tuple[Candidate, ...]

    def share(self, figures: Figures) -> float | None:
        """Of the measured bandwidth, what a decode step reads in its time."""
        if figures.step_bytes is None or not self.bandwidth:
            return None
        return figures.decode.median / figures.batch * figures.step_bytes / self.bandwidth

    def to_json(self) -> dict[str, Any]:
        """Plain values, the shares beside the figures they come from."""
        candidates = []
        for candidate in self.candidates:
            body = asdict(candidate)
            for result, plain in zip(candidate.results, body["results"], strict=True):
                for figures, row in zip(result.figures, plain["figures"], strict=True):
                    row["bandwidth_share"] = self.share(figures) if result.device == "cpu" else None
            candidates.append(body)
        return {
            "machine": asdict(self.machine),
            "threads": self.threads,
            "bandwidth_bytes_per_second": self.bandwidth,
            "entrants": candidates,
        }


def result_from(body: dict[str, Any]) -> CaseResult:
    """The inverse of `CaseResult.to_json`, out of a JSON file."""
    case = {**body["case"], "prompts": tuple(body["case"]["prompts"])}
    rows = [
        {**row, **{name: Spread(**row[name]) for name in ("prefill", "first_token_s", "decode")}}
        for row in body["figures"]
    ]
    return CaseResult(
        **{
            **body,
            "case": GenerateCase(**case),
            "figures": tuple(Figures(**row) for row in rows),
            "skipped": tuple(body["skipped"]),
        }
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateOptions:
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
    options: GenerateOptions,
    *,
    peer: Path | None = None,
    progress: Progress | None = None,
) -> GenerateBench:
    """Measure every model; cases take turns, so that whatever else the machine does falls on all alike.

    models: (name, export or model folder). peer: a model folder for transformers. Raises E_NOT_FOUND.
    """
    models = [(name, model_path(path)) for name, path in models]
    for _, path in models:
        if not path.exists():
            hint = (
                "Faça um export:  ptbr-slm export MODELO -o PASTA; ou use --size 85m, sem modelo nenhum, "
                "ou -m machado, que vem com o pacote."
            )
            raise SlmError("E_NOT_FOUND", "o modelo não existe.", where=path, hint=hint)
    threads = _threads()
    steps = _steps(models, options, peer)
    candidates = {name: Candidate(name=name, path=str(path)) for name, path in models}
    if peer is not None:
        candidates["transformers"] = Candidate(name="transformers", path=str(peer))
    report = progress or (lambda done, text: None)
    report(0.0, "banda da memória")
    request = {"what": "bandwidth", "threads": threads}
    bandwidth = run_module(_MODULE, request, LIMIT_S, {"OPENBLAS_NUM_THREADS": "1"}).answer or 0.0
    for index, (name, case) in enumerate(steps):
        report(index / len(steps), f"{name}, lote {case.batch}")
        candidates[name].results.append(_alone(case))
    if options.cold:
        for name, path in models:
            report(1.0, f"{name}, do zero ao primeiro texto")
            candidates[name] = replace(candidates[name], cold=cold_start(path, options.device, COLD_RUNS))
    ran_on = {result.device for candidate in candidates.values() for result in candidate.results}
    about = machine("cuda" if "cuda" in ran_on else "cpu")
    return GenerateBench(
        machine=about, threads=threads, bandwidth=bandwidth, candidates=tuple(candidates.values())
    )


def _steps(
    models: Sequence[tuple[str, Path]], options: GenerateOptions, peer: Path | None
) -> list[tuple[str, GenerateCase]]:
    steps = []
    for batch in options.batches:
        case = GenerateCase(
            path="",
            device=options.device,
            batch=batch,
            prompts=options.prompts,
            decode=options.decode,
            rounds=options.rounds,
        )
        steps += [(name, replace(case, path=str(path))) for name, path in models]
        if peer is not None:
            steps.append(("transformers", replace(case, path=str(peer), engine="transformers")))
    return steps


def _alone(case: GenerateCase) -> CaseResult:
    """The result of a case; a process that dies without a word is a result too."""
    ended = run_module(_MODULE, {"what": "case", "case": asdict(case)}, LIMIT_S)
    if ended.answer is not None:
        return result_from(ended.answer)
    if ended.code is None:
        return CaseResult(case=case, status="time", reason=f"não terminou em {LIMIT_S:.0f} s")
    if ended.code == -9:
        return CaseResult(case=case, status="oom", reason="o sistema encerrou o processo: faltou memória")
    return CaseResult(case=case, status="error", reason=f"código {ended.code}: {last_line(ended.errors)}")


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
