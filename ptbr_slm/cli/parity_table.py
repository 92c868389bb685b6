"""The table of what `export` and `verify` measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptbr_slm.cli.output import number, table

if TYPE_CHECKING:
    from ptbr_slm_export import VerifyReport
    from ptbr_slm_export.verification.judge import Check


def parity_table(report: VerifyReport) -> str:
    """One line a check, then the bits per byte and the text they were measured on."""
    rows = [
        [
            check.label,
            _figure(check, check.value),
            _figure(check, check.limit),
            "ok" if check.passed else "FALHOU",
        ]
        for check in report.checks
    ]
    bits = (
        f"bits por byte: {number(report.bits_per_byte, 4)} no ONNX {report.precision}, "
        f"{number(report.reference_bits_per_byte, 4)} no PyTorch\n"
        f"  medidos em {number(report.targets)} tokens de: {report.held_out}"
    )
    return f"{table(rows, header=['comparação com o PyTorch', 'medido', 'limite', ''])}\n\n{bits}"


def _figure(check: Check, value: float) -> str:
    if check.name == "bits_per_byte":
        return f"{number(100 * value, 3)} %"
    if check.name == "cosine":
        return number(value, 4)
    return number(value) if check.name == "greedy" else f"{value:.2g}".replace(".", ",")
