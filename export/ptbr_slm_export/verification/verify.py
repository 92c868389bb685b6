"""`verify_export`: an export against the model folder it was made from, by hashes and by asking both.

The two engines run one after the other, so that only one model is in memory at a time. torch is imported by
the runtime's reference engine, never here.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ptbr_slm.errors import SlmError, missing_extra
from ptbr_slm.eval.bits import HeldOut
from ptbr_slm.runtime.load import open_engine, open_oracle
from ptbr_slm.runtime.protocol import Engine
from ptbr_slm.storage.draft_folder import DraftFolder
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.storage.model_folder import ModelFolder, check_vocabulary
from ptbr_slm.text import quoted
from ptbr_slm_export.verification.checks import Check, mask_check, run_checks
from ptbr_slm_export.verification.draft import draft_check, drafted_layer
from ptbr_slm_export.verification.locate import TEXT, WorstPart, locate
from ptbr_slm_export.verification.probe import (
    Answers,
    Probe,
    SelfAgreement,
    ask,
    check_self_agreement,
    held_out_bits,
    make_probe,
    measure_noise,
)
from ptbr_slm_export.verification.stored_weights import StoredWeights, WrongWeight, worst_weight


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What was measured."""

    precision: str
    checks: tuple[Check, ...]
    bits_per_byte: float
    """Of the export, on the held-out text."""
    reference_bits_per_byte: float
    """Of the model in PyTorch, on the same text."""
    text: HeldOut
    """The windows of it that were read."""
    weight: WrongWeight
    """The stored weight that errs most."""
    worst_part: WorstPart | None
    """The graph's first wrong part, or its worst one; None where it could not be looked into."""
    provider: str
    """ONNX Runtime's provider that answered."""
    stand_in: bool
    """Whether it was the CPU's for a GPU that this computer lacks: the same graph, other kernels."""
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def culprit(self) -> str:
        """Which weight or which part of the graph is wrong, with its layer; '' where none is found."""
        if not self.weight.passed:
            return str(self.weight)
        return str(self.worst_part) if self.worst_part is not None and not self.worst_part.passed else ""

    def measured(self, model: ModelFolder) -> dict[str, Any]:
        """`bits_per_byte` and `held_out` of the export's manifest: the value, and what it was measured on.

        Where the model's manifest records what its training's evaluation found on the same windows, of which
        fewer were read here, the value is that one times the change that was measured: the text's own
        variation cancels in the change, and the model and its exports can be compared. `sampled` says on how
        many targets. Otherwise it is what was measured here.
        """
        text, manifest = self.text.facts(), model.manifest
        trained = {} if manifest is None else manifest.extra
        known, value = trained.get("held_out"), trained.get("bits_per_byte")
        if (
            isinstance(known, dict)
            and isinstance(value, float)
            and "data_sha256" in text
            and all(known.get(key) == text[key] for key in ("data_sha256", "seq_len"))
            and known.get("targets") != text["targets"]
        ):
            change = self.bits_per_byte / self.reference_bits_per_byte
            return {"bits_per_byte": value * change, "held_out": {**known, "sampled": text["targets"]}}
        return {"bits_per_byte": self.bits_per_byte, "held_out": text}

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and `--json`."""
        body = {
            "passed": self.passed,
            "checks": [check.as_dict() for check in self.checks],
            "bits_per_byte": self.bits_per_byte if math.isfinite(self.bits_per_byte) else None,
            "reference_bits_per_byte": self.reference_bits_per_byte,
            "held_out": self.text.name,
            "seq_len": self.text.inputs.shape[1],
            "targets": self.text.counted,
            "provider": self.provider,
            "stand_in": self.stand_in,
        }
        if not self.passed:
            wrong_part = self.worst_part is not None and not self.worst_part.passed
            body["culprit"] = {
                "weight": None if self.weight.passed else self.weight.as_dict(),
                "part": self.worst_part.as_dict() if wrong_part and self.worst_part else None,
            }
        return body

    def failure(self, export: Path) -> SlmError | None:
        """E_VERIFY with the first check that failed and what is to blame, or None."""
        failed = next((check for check in self.checks if not check.passed), None)
        if failed is None:
            return None
        where = f" ({failed.where})" if failed.where else ""
        blamed = self.culprit if self.culprit and self.culprit != failed.where else ""
        return SlmError(
            "E_VERIFY",
            f"{failed.label}: {failed.value:.3g}, e o limite é {failed.limit:.3g}{where}."
            + (f" A diferença está em: {blamed}." if blamed else ""),
            where=export,
            hint=_HINTS.get(failed.name, _WRONG_GRAPH),
        )

    def require(self, export: Path) -> None:
        """Raise `failure`, if there is one."""
        failure = self.failure(export)
        if failure is not None:
            raise failure


_WRONG_GRAPH = "O export não equivale ao modelo e não deve ser usado: exporte de novo, ou relate o defeito."
_HINTS = {
    "bits_per_byte": "Esta precisão custa qualidade demais neste modelo: use --precision int8, ou fp32.",
}


def verify_export(
    export: Path,
    source: Path | ModelFolder,
    *,
    held_out: Path | None = None,
    draft: Path | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> VerifyReport:
    """Check the hashes of both folders, that they belong together, and that they answer alike.

    source: a path, or a folder that is open already. held_out: prepared data to measure bits per byte on
    (see `held_out_text`). draft: the draft layer of the export, where it is not in the model's folder.
    Raises E_MANIFEST for an export whose files differ from its manifest,
    E_MODEL_INVALID likewise for the model, E_VERIFY for an export of another model. Whether they answer alike
    is in the report: `report.require(export)` raises.
    """
    require_engines()
    on_step("conferindo os arquivos")
    manifest = read_manifest(export)
    if manifest.kind != "export":
        raise SlmError(
            "E_MANIFEST",
            f"a pasta não é um export (é {manifest.kind}).",
            where=export,
            hint="Aponte para a pasta que o ptbr-slm export gravou.",
        )
    model = ModelFolder.of(source)
    model.check()
    if manifest.extra.get("source_sha256") != model.sha256:
        raise SlmError(
            "E_VERIFY",
            "este export foi feito a partir de outro modelo, ou o modelo mudou desde então.",
            where=f"{export} e {model.path}",
            hint=f"Exporte de novo:  ptbr-slm export {quoted(model.path)} -o {quoted(export)}",
        )
    _check_companions(ModelFolder(export), model)
    layer = drafted_layer(manifest.extra, model, draft)
    return compare(export, model, str(manifest.extra.get("precision")), held_out, on_step, layer)


def _check_companions(export: ModelFolder, model: ModelFolder) -> None:
    """The export's own tokenizer and shape must be the model's. Raises E_VERIFY."""
    same = {
        "tokenizer.json": export.tokenizer.sha256 == model.tokenizer.sha256,
        "config.json": export.config == model.config,
    }
    for name, agrees in same.items():
        if not agrees:
            raise SlmError(
                "E_VERIFY",
                f"o {name} do export não é o do modelo: os pesos seriam lidos de outro modo.",
                where=export.path / name,
                hint=f"Exporte de novo:  ptbr-slm export {quoted(model.path)} -o {quoted(export.path)}",
            )


def compare(
    export: Path,
    model: ModelFolder,
    precision: str,
    held_out: Path | None,
    on_step: Callable[[str], None],
    layer: DraftFolder | None = None,
) -> VerifyReport:
    """Ask PyTorch, then the export, and compare. A `genai` export is asked as the `gqa` graph in it.

    layer: the draft layer that the export was made with.
    """
    if read_manifest(export, hashes=False).extra.get("flavour") != "genai":
        return _compare(export, model, precision, held_out, on_step, layer)
    from ptbr_slm_export.genai.graph import check_mask, gqa_copy

    with gqa_copy(export) as copy:
        report = _compare(copy, model, precision, held_out, on_step, None)
        return replace(report, checks=(*report.checks, mask_check(precision, check_mask(export, copy))))


def _compare(
    export: Path,
    model: ModelFolder,
    precision: str,
    held_out: Path | None,
    on_step: Callable[[str], None],
    layer: DraftFolder | None,
) -> VerifyReport:
    started = time.monotonic()
    config = model.config
    check_vocabulary(config, model.tokenizer, model.path)
    probe = make_probe(model, held_out)
    stored = StoredWeights(export / "model.onnx", config)
    on_step("comparando os pesos")
    weight = worst_weight(stored, model.weights)
    on_step("conferindo o grafo parte por parte")
    worst_part = locate(export / "model.onnx", config, stored, np.array(probe.window[:TEXT]))
    on_step("perguntando ao PyTorch")
    reference = _ask_pytorch(model, stored, probe, precision, layer)
    on_step("perguntando ao ONNX")
    exported, own, provider = _ask_export(export, probe, precision)
    checks = run_checks(precision, reference, exported, own, weight, worst_part, own_head=stored.has_own_head)
    if reference.draft is not None and exported.draft is not None:
        checks = (*checks, draft_check(precision, reference.draft, exported.draft))
    return VerifyReport(
        precision=precision,
        checks=checks,
        bits_per_byte=exported.bits.value,
        reference_bits_per_byte=reference.bits.value,
        text=probe.held_out,
        weight=weight,
        worst_part=worst_part,
        provider=provider,
        stand_in=provider == "CPUExecutionProvider" and _target(export) not in ("cpu", "genai"),
        seconds=time.monotonic() - started,
    )


def _ask_pytorch(
    model: ModelFolder, stored: StoredWeights, probe: Probe, precision: str, layer: DraftFolder | None
) -> Answers:
    """Bits per byte of the model; logits, and what the draft layer expects, over the weights as the export
    holds them.
    """
    from ptbr_slm.runtime.engines.torch import TorchEngine

    engine = TorchEngine(model, "cpu")
    try:
        if precision == "fp32":
            if layer is not None:
                engine.with_draft(layer)
            answers = ask(engine, probe, greedy=True)
            return replace(answers, noise=measure_noise(model, probe.window, answers.logits[0]))
        bits = held_out_bits(engine, probe)
    finally:
        engine.close()
    rounded = TorchEngine(model, "cpu", read=stored.read)
    try:
        if layer is not None:
            rounded.with_draft(layer)
        return ask(rounded, probe, greedy=False, bits=bits)
    finally:
        rounded.close()


def _ask_export(export: Path, probe: Probe, precision: str) -> tuple[Answers, SelfAgreement, str]:
    """The answers, and the provider that gave them."""
    engine = _open_export(export)
    try:
        answers = ask(engine, probe, greedy=precision == "fp32")
        return answers, check_self_agreement(engine, probe), str(engine.describe()["provider"])
    finally:
        engine.close()


def _target(export: Path) -> str:
    return str(read_manifest(export, hashes=False).extra.get("target", "cpu"))


def _open_export(export: Path) -> Engine:
    """Where the export will run, if this computer can; else on the CPU, which computes the same slowly."""
    try:
        return open_engine(export)
    except SlmError as error:
        if error.code != "E_PROVIDER":
            raise
        return open_oracle(export)


def require_engines() -> None:
    """Raise E_DEPENDENCY where the comparison cannot run: it needs torch and onnxruntime."""
    for package in ("torch", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package)
