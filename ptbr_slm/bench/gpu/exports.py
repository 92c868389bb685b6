"""Section `onnx`: exports for CUDA, checked against PyTorch, and the speed of reading and writing.

Also `python -m ptbr_slm.bench.gpu.exports ASKED.json ANSWER.json`: whether ONNX Runtime's CUDA provider runs.
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
from ptbr_slm.bench.generate_cases import CaseResult, GenerateCase, result_from
from ptbr_slm.bench.gpu.asked import Asked
from ptbr_slm.bench.gpu.results import Answer
from ptbr_slm.bench.process import Ended, ask, last_words
from ptbr_slm.brazilian import number
from ptbr_slm.config import ModelConfig, model_config
from ptbr_slm.faults import maybe_fail
from ptbr_slm.storage.atomic import write_json

PROVIDER = "CUDAExecutionProvider"
CARRY = (
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
class Way:
    """One way to run an export."""

    precision: str
    graphs: bool = True
    """PTBR_SLM_CUDA_GRAPH."""
    kernel: str = "auto"
    """PTBR_SLM_SDPA_KERNEL; `auto` is `efficient` where a T4's rules are in force."""
    batch: int = 1


WAYS = (
    Way(precision="fp16"),
    Way(precision="int4"),
    Way(precision="fp16", graphs=False),
    Way(precision="fp16", kernel="math"),
    Way(precision="int8"),
    Way(precision="int4", kernel="math"),
    Way(precision="int4", graphs=False),
    Way(precision="fp16", batch=16),
)
"""In the order of what is worth knowing first."""
PRECISIONS = ("fp16", "int8", "int4")


def measure(asked: Asked, answer: Answer) -> None:
    """Check small exports of each precision, then the speed of an 85m, and of a 400m if there is time."""
    missing = [name for name in ("onnx", "onnx_ir") if importlib.util.find_spec(name) is None]
    if asked.wheels:
        answer.note(f"Wheels: {asked.wheels}.")
    if missing or not asked.exporter:
        answer.missing("export", "absent", f"falta o pacote {', '.join(missing)}; {CARRY}")
        return
    fault = provider_fault(asked)
    with tempfile.TemporaryDirectory() as scratch:
        work = _Work(asked, answer, Path(scratch), fault)
        work.verify()
        work.speeds()


def provider_fault(asked: Asked) -> str:
    """Why the CUDA provider does not run, in Portuguese; empty where it does."""
    if asked.device != "cuda":
        return "não há GPU"
    if importlib.util.find_spec("onnxruntime") is None:
        return f"falta o onnxruntime; {CARRY}"
    ended = ask("ptbr_slm.bench.gpu.exports", {}, 60, asked.environment)
    if ended.answer is None:
        return f"o ONNX Runtime não respondeu: {_words(ended)}"
    return str(ended.answer["fault"])


class _Work:
    """The section's folder, and what is made in it."""

    def __init__(self, asked: Asked, answer: Answer, scratch: Path, fault: str) -> None:
        self.asked, self.answer, self.scratch, self.fault = asked, answer, scratch, fault
        # The rules in words only: this process is not the one that runs the exports.
        name = str(asked.facts.get("card") or "")
        self.kernel = "auto" if t4_rules.is_t4(name) or not name else t4_rules.SDPA_KERNEL

    def verify(self) -> None:
        """Exports of a small model in each precision, compared with PyTorch: on the card where it runs."""
        size = "nano" if self.asked.smoke else "mini"
        for precision in ("fp16", "int4") if self.asked.smoke else PRECISIONS:
            name = f"verify {size} {precision}"
            if self.asked.left_s < NEED_S:
                self.answer.missing(name, "skipped", "não coube no tempo da seção")
                continue
            made = self._export(size, precision, "cuda", verify=True)
            parity = made.get("parity")
            passed = None if parity is None else float(parity["passed"])
            if made.get("code") == "E_VERIFY" or maybe_fail("bench.onnx.verify"):
                passed = 0.0
            label = f"{size} em {precision} responde como o PyTorch (1: sim)"
            self.answer.check(f"verify_{precision}", label, passed, low=1.0)
            if parity is None:
                status = "absent" if made.get("code") == "E_DEPENDENCY" else "error"
                self.answer.missing(name, status, made.get("reason") or "este computador não roda este alvo")
                continue
            worst = {check["name"]: check["value"] for check in parity["checks"]}
            self.answer.line(name, provider=parity["provider"], seconds=made["seconds"], **worst)

    def speeds(self) -> None:
        """Reading and writing, way after way."""
        if self.fault:
            for way in WAYS[:1] if self.asked.smoke else WAYS:
                self.answer.missing(_name("85m", way), "absent", self.fault)
        if self.fault and not self.asked.smoke:
            return
        if self.fault:  # the code, on the CPU
            made = self._export("nano", "int8", "cpu", verify=False)
            self._speed("nano", Way(precision="int8"), made, target="cpu")
            return
        found = self._all_ways("nano" if self.asked.smoke else "85m", WAYS)
        if self.asked.left_s > LARGE_S and not self.asked.smoke:
            self._all_ways("400m", (WAYS[0], WAYS[1]))
        self._judge(found)

    def _all_ways(self, size: str, ways: tuple[Way, ...]) -> dict[Way, float]:
        """Tokens/s written, of those that were measured."""
        exports: dict[str, dict[str, Any]] = {}
        found = {}
        for way in ways:
            if self.asked.left_s < NEED_S:
                self.answer.missing(_name(size, way), "skipped", "não coube no tempo da seção")
                continue
            if way.precision not in exports:
                exports[way.precision] = self._export(size, way.precision, "cuda", verify=False)
            speed = self._speed(size, way, exports[way.precision], target="cuda")
            if speed is not None:
                found[way] = speed
        return found

    def _speed(self, size: str, way: Way, made: Mapping[str, Any], *, target: str) -> float | None:
        """A line of one way."""
        name = _name(size, way) if target == "cuda" else f"{size} {way.precision}, no processador"
        if "code" in made:
            self.answer.missing(name, "error", f"{made['code']}: {made['reason']}")
            return None
        case = GenerateCase(
            path=made["path"],
            device=target,
            batch=way.batch,
            prompts=(16,) if self.asked.smoke else (256,),
            decode=8 if self.asked.smoke else 64,
            rounds=1 if self.asked.smoke else 3,
        )
        environment = {
            **self.asked.environment,
            "PTBR_SLM_CUDA_GRAPH": "1" if way.graphs else "0",
            "PTBR_SLM_SDPA_KERNEL": self.kernel if way.kernel == "auto" else way.kernel,
        }
        question = {"what": "case", "case": asdict(case)}
        ended = ask("ptbr_slm.bench.generate_measure", question, self.asked.left_s - 1, environment)
        if ended.answer is None:
            status = "time" if ended.code is None else "oom" if ended.code == -9 else "error"
            self.answer.missing(name, status, _words(ended))
            return None
        return self._told(name, size, way, made, result_from(ended.answer))

    def _told(
        self, name: str, size: str, way: Way, made: Mapping[str, Any], result: CaseResult
    ) -> float | None:
        if result.status != "ok" or not result.figures:
            status = "error" if result.status == "ok" else result.status
            self.answer.missing(name, status, result.reason or "; ".join(result.skipped))
            return None
        (figures,) = result.figures
        decode = figures.decode.median
        bandwidth = self.asked.facts.get("bandwidth")
        share = None
        if bandwidth and figures.step_bytes and result.device == "cuda":
            share = decode / way.batch * figures.step_bytes / bandwidth
            self.answer.check(
                f"share_{self._slug(size, way)}", f"{name}: parte da banda medida", share, high=MOST_SHARE
            )
        self.answer.line(
            name,
            device=result.device,
            batch=way.batch,
            prefill_tokens_per_second=figures.prefill.median,
            first_token_s=figures.first_token_s.median,
            decode_tokens_per_second=decode,
            decode_low=figures.decode.low,
            decode_high=figures.decode.high,
            step_bytes=figures.step_bytes,
            bandwidth_share=share,
            kv_bytes=figures.kv_bytes,
            open_s=result.open_s,
            export_bytes=made["bytes"],
            export_s=made["seconds"],
            sdpa_kernel=self.kernel if way.kernel == "auto" else way.kernel,
            cuda_graph=way.graphs,
        )
        return decode

    def _judge(self, found: Mapping[Way, float]) -> None:
        gains = {}
        for precision in ("fp16", "int4"):
            on, off = (found.get(Way(precision=precision, graphs=graphs)) for graphs in (True, False))
            math_kernel = found.get(Way(precision=precision, kernel="math"))
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

    def _slug(self, size: str, way: Way) -> str:
        """A name of letters and digits, for JSON."""
        return f"{size}_{way.precision}_{way.kernel}_{'graph' if way.graphs else 'plain'}_{way.batch}"

    def _export(self, size: str, precision: str, target: str, *, verify: bool) -> dict[str, Any]:
        """What the exporter answers, and the folder in `path`; `code` and `reason` where there is none."""
        model = self._model(size)
        output = self.scratch / f"{size}-{target}-{precision}{'-verified' if verify else ''}"
        question = {
            "model": str(model),
            "output": str(output),
            "target": target,
            "precision": precision,
            "verify": verify,
        }
        ended = ask(self.asked.exporter, question, self.asked.left_s - 1, self.asked.environment)
        if ended.answer is None:
            return {"code": "E_INTERNAL", "reason": _words(ended)}
        return {**ended.answer, "path": str(output)}

    def _model(self, size: str) -> Path:
        """A random model of this size, drawn once."""
        from ptbr_slm.bench.random_model import write_random_model

        folder = self.scratch / f"modelo-{size}"
        if not folder.exists():
            write_random_model(folder, self._config(size))
        return folder

    def _config(self, size: str) -> ModelConfig:
        return model_config(size, vocab_size=512 if self.asked.smoke else 32_000)


def _name(size: str, way: Way) -> str:
    parts = [f"{size} {way.precision}"]
    parts += [] if way.graphs else ["sem CUDA graph"]
    parts += [] if way.kernel == "auto" else [f"atenção {way.kernel}"]
    parts += [] if way.batch == 1 else [f"lote {way.batch}"]
    return ", ".join(parts)


def _words(ended: Ended) -> str:
    """How a process ended that gave no answer."""
    if ended.code is None:
        return "não terminou no tempo da seção"
    return f"código {ended.code}: {last_words(ended.errors)}"


def main() -> None:
    """Say whether the CUDA provider of the ONNX Runtime that is importable here runs a graph of one node."""
    from ptbr_slm.system import onnx_provider_faults, onnx_providers

    failures: dict[str, str] = {}
    providers = onnx_providers(failures)
    if "onnxruntime" in failures:
        fault = f"o onnxruntime não abre: {failures['onnxruntime']}"
    elif PROVIDER not in providers:
        fault = f"o onnxruntime instalado é o de processador; {CARRY}"
    else:
        fault = onnx_provider_faults(failures).get(PROVIDER, "")
    write_json(Path(sys.argv[2]), {"fault": fault, "providers": list(providers)})


if __name__ == "__main__":
    main()
