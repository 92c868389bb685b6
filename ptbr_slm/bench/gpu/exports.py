"""Section `onnx`: exports for CUDA, checked against PyTorch, and the speed of reading and writing.

`python -m ptbr_slm.bench.gpu.exports REQUEST.json ANSWER.json` says whether the CUDA provider runs here.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.bench import t4_rules
from ptbr_slm.bench.generate import CaseResult, GenerateCase, result_from
from ptbr_slm.bench.gpu.results import Answer, SectionRequest
from ptbr_slm.bench.process import ProcessResult, last_line, run_module
from ptbr_slm.config import ModelConfig, model_config
from ptbr_slm.faults import maybe_fail
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.text import number

PROVIDER = "CUDAExecutionProvider"
BRING_WHEELS = (
    "para medir, leve o wheel do onnxruntime-gpu (e o do onnx-ir, se faltar) numa pasta e repita com "
    "--wheels PASTA: docs/GPU.md diz quais"
)
NEED_S = 8.0
"""Seconds that a measurement must have left."""
LARGE_S = 60.0
"""Seconds that the 400m must have left."""
MOST_SHARE = 1.05
"""Of the bandwidth measured beside it: a step that reads faster does not read what we count."""
LEAST_GAIN = 0.95
"""Of a captured step over a plain one, the tolerance being the noise of the two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to run an export."""

    precision: str
    graphs: bool = True
    """PTBR_SLM_CUDA_GRAPH."""
    kernel: str = "auto"
    """PTBR_SLM_SDPA_KERNEL; `auto` is `efficient` where a T4's rules are in force."""
    batch: int = 1


VARIANTS = (
    Variant(precision="fp16"),
    Variant(precision="int4"),
    Variant(precision="fp16", graphs=False),
    Variant(precision="fp16", kernel="math"),
    Variant(precision="int8"),
    Variant(precision="int4", kernel="math"),
    Variant(precision="int4", graphs=False),
    Variant(precision="fp16", batch=16),
)
"""In the order of what is worth knowing first."""
PRECISIONS = ("fp16", "int8", "int4")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What the exporter answered."""

    path: str = ""
    seconds: float = 0.0
    bytes: int = 0
    parity: dict[str, Any] | None = None
    """What the verification found; None where this computer does not run the target."""
    code: str = ""
    """Of the error; empty where there is an export."""
    reason: str = ""
    """In Portuguese."""


def measure_exports(request: SectionRequest, answer: Answer) -> None:
    """Check small exports of each precision, then the speed of an 85m, and of a 400m if there is time."""
    missing = [name for name in ("onnx", "onnx_ir") if importlib.util.find_spec(name) is None]
    if request.wheels:
        answer.note(f"Wheels: {request.wheels}.")
    if missing or not request.exporter:
        answer.missing("export", "absent", f"falta o pacote {', '.join(missing)}; {BRING_WHEELS}")
        return
    fault = provider_fault(request)
    with tempfile.TemporaryDirectory() as scratch:
        work = _Exports(request, answer, Path(scratch), fault)
        work.verify()
        work.speeds()


def provider_fault(request: SectionRequest) -> str:
    """Why the CUDA provider does not run, in Portuguese; empty where it does."""
    if request.device != "cuda":
        return "não há GPU"
    if importlib.util.find_spec("onnxruntime") is None:
        return f"falta o onnxruntime; {BRING_WHEELS}"
    ended = run_module("ptbr_slm.bench.gpu.exports", {}, 60, request.environment)
    if ended.answer is None:
        return f"o ONNX Runtime não respondeu: {_ending(ended)}"
    return str(ended.answer["fault"])


class _Exports:
    """The section's folder, and what is made in it."""

    def __init__(self, request: SectionRequest, answer: Answer, scratch: Path, fault: str) -> None:
        self.request, self.answer, self.scratch, self.fault = request, answer, scratch, fault
        # The rules in words only: this process is not the one that runs the exports.
        name = str(request.facts.get("card") or "")
        self.kernel = "auto" if t4_rules.is_t4(name) or not name else t4_rules.SDPA_KERNEL

    def verify(self) -> None:
        """Exports of a small model in each precision, compared with PyTorch: on the card where it runs."""
        size = "nano" if self.request.smoke else "mini"
        for precision in ("fp16", "int4") if self.request.smoke else PRECISIONS:
            name = f"verify {size} {precision}"
            if self.request.left_s < NEED_S:
                self.answer.missing(name, "skipped", "não coube no tempo da seção")
                continue
            made = self._export(size, precision, "cuda", verify=True)
            parity = made.parity
            passed = None if parity is None else float(parity["passed"])
            if made.code == "E_VERIFY" or maybe_fail("bench.onnx.verify"):
                passed = 0.0
            label = f"{size} em {precision} responde como o PyTorch (1: sim)"
            self.answer.check(f"verify_{precision}", label, passed, low=1.0)
            if parity is None:
                status = "absent" if made.code == "E_DEPENDENCY" else "error"
                self.answer.missing(name, status, made.reason or "este computador não roda este alvo")
                continue
            worst = {check["name"]: check["value"] for check in parity["checks"]}
            self.answer.line(name, provider=parity["provider"], seconds=made.seconds, **worst)

    def speeds(self) -> None:
        """Prefill and decode speed, one variant after the other."""
        if self.fault:
            for variant in VARIANTS[:1] if self.request.smoke else VARIANTS:
                self.answer.missing(_name("85m", variant), "absent", self.fault)
        if self.fault and not self.request.smoke:
            return
        if self.fault:  # the code, on the CPU
            made = self._export("nano", "int8", "cpu", verify=False)
            self._speed("nano", Variant(precision="int8"), made, target="cpu")
            return
        found = self._all_variants("nano" if self.request.smoke else "85m", VARIANTS)
        if self.request.left_s > LARGE_S and not self.request.smoke:
            self._all_variants("400m", (VARIANTS[0], VARIANTS[1]))
        self._judge(found)

    def _all_variants(self, size: str, variants: tuple[Variant, ...]) -> dict[Variant, float]:
        """Tokens/s written, of those that were measured."""
        exports: dict[str, Exported] = {}
        found = {}
        for variant in variants:
            if self.request.left_s < NEED_S:
                self.answer.missing(_name(size, variant), "skipped", "não coube no tempo da seção")
                continue
            if variant.precision not in exports:
                exports[variant.precision] = self._export(size, variant.precision, "cuda", verify=False)
            speed = self._speed(size, variant, exports[variant.precision], target="cuda")
            if speed is not None:
                found[variant] = speed
        return found

    def _speed(self, size: str, variant: Variant, made: Exported, *, target: str) -> float | None:
        """A line of one variant."""
        name = _name(size, variant) if target == "cuda" else f"{size} {variant.precision}, no processador"
        if made.code:
            self.answer.missing(name, "error", f"{made.code}: {made.reason}")
            return None
        case = GenerateCase(
            path=made.path,
            device=target,
            batch=variant.batch,
            prompts=(16,) if self.request.smoke else (256,),
            decode=8 if self.request.smoke else 64,
            rounds=1 if self.request.smoke else 3,
        )
        environment = {
            **self.request.environment,
            "PTBR_SLM_CUDA_GRAPH": "1" if variant.graphs else "0",
            "PTBR_SLM_SDPA_KERNEL": self.kernel if variant.kernel == "auto" else variant.kernel,
        }
        question = {"what": "case", "case": asdict(case)}
        ended = run_module("ptbr_slm.bench.generate_measure", question, self.request.left_s - 1, environment)
        if ended.answer is None:
            status = "time" if ended.code is None else "oom" if ended.code == -9 else "error"
            self.answer.missing(name, status, _ending(ended))
            return None
        return self._add_speed(name, size, variant, made, result_from(ended.answer))

    def _add_speed(
        self, name: str, size: str, variant: Variant, made: Exported, result: CaseResult
    ) -> float | None:
        if result.status != "ok" or not result.figures:
            status = "error" if result.status == "ok" else result.status
            self.answer.missing(name, status, result.reason or "; ".join(result.skipped))
            return None
        (figures,) = result.figures
        decode = figures.decode.median
        bandwidth = self.request.facts.get("bandwidth")
        share = None
        if bandwidth and figures.step_bytes and result.device == "cuda":
            share = decode / variant.batch * figures.step_bytes / bandwidth
            self.answer.check(
                f"share_{self._slug(size, variant)}", f"{name}: parte da banda medida", share, high=MOST_SHARE
            )
        self.answer.line(
            name,
            device=result.device,
            batch=variant.batch,
            prefill_tokens_per_second=figures.prefill.median,
            first_token_s=figures.first_token_s.median,
            decode_tokens_per_second=decode,
            decode_low=figures.decode.low,
            decode_high=figures.decode.high,
            step_bytes=figures.step_bytes,
            bandwidth_share=share,
            kv_bytes=figures.kv_bytes,
            open_s=result.open_s,
            export_bytes=made.bytes,
            export_s=made.seconds,
            sdpa_kernel=self.kernel if variant.kernel == "auto" else variant.kernel,
            cuda_graph=variant.graphs,
        )
        return decode

    def _judge(self, found: Mapping[Variant, float]) -> None:
        gains = {}
        for precision in ("fp16", "int4"):
            on, off = (found.get(Variant(precision=precision, graphs=graphs)) for graphs in (True, False))
            math_kernel = found.get(Variant(precision=precision, kernel="math"))
            gain = on / off if on and off else None
            self.answer.check(
                f"graph_gain_{precision}",
                f"{precision}: escrita com CUDA graph sobre sem",
                gain,
                low=LEAST_GAIN,
            )
            if on and math_kernel:
                gains[precision] = math_kernel / on
        self.answer.facts["math_kernel_gain"] = gains
        for precision, gain in gains.items():
            better = "math" if gain > 1 else "auto"
            ratio = number(gain, 2)
            self.answer.note(f"{precision}: a atenção mais rápida aqui é {better} (math/auto: {ratio}).")

    def _slug(self, size: str, variant: Variant) -> str:
        """A name of letters and digits, for JSON."""
        graph = "graph" if variant.graphs else "plain"
        return f"{size}_{variant.precision}_{variant.kernel}_{graph}_{variant.batch}"

    def _export(self, size: str, precision: str, target: str, *, verify: bool) -> Exported:
        """Export a random model of this size with the exporter, in a process of its own."""
        model = self._model(size)
        output = self.scratch / f"{size}-{target}-{precision}{'-verified' if verify else ''}"
        question = {
            "model": str(model),
            "output": str(output),
            "target": target,
            "precision": precision,
            "verify": verify,
        }
        ended = run_module(self.request.exporter, question, self.request.left_s - 1, self.request.environment)
        if ended.answer is None:
            return Exported(code="E_INTERNAL", reason=_ending(ended))
        return Exported(path=str(output), **ended.answer)

    def _model(self, size: str) -> Path:
        """A random model of this size, drawn once."""
        from ptbr_slm.bench.synthetic import write_random_model

        folder = self.scratch / f"modelo-{size}"
        if not folder.exists():
            write_random_model(folder, self._config(size))
        return folder

    def _config(self, size: str) -> ModelConfig:
        return model_config(size, vocab_size=512 if self.request.smoke else 32_000)


def _name(size: str, variant: Variant) -> str:
    parts = [f"{size} {variant.precision}"]
    parts += [] if variant.graphs else ["sem CUDA graph"]
    parts += [] if variant.kernel == "auto" else [f"atenção {variant.kernel}"]
    parts += [] if variant.batch == 1 else [f"lote {variant.batch}"]
    return ", ".join(parts)


def _ending(ended: ProcessResult) -> str:
    """How a process ended that gave no answer."""
    if ended.code is None:
        return "não terminou no tempo da seção"
    return f"código {ended.code}: {last_line(ended.errors)}"


def main() -> None:
    """Say whether the CUDA provider of the ONNX Runtime that is importable here runs a graph of one node."""
    from ptbr_slm.doctor.facts import onnx_provider_faults, onnx_providers

    failures: dict[str, str] = {}
    providers = onnx_providers(failures)
    if "onnxruntime" in failures:
        fault = f"o onnxruntime não abre: {failures['onnxruntime']}"
    elif PROVIDER not in providers:
        fault = f"o onnxruntime instalado é o de processador; {BRING_WHEELS}"
    else:
        fault = onnx_provider_faults(failures).get(PROVIDER, "")
    write_json(Path(sys.argv[2]), {"fault": fault, "providers": list(providers)})


if __name__ == "__main__":
    main()
