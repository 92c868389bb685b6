"""The table of what `export` and `verify` measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ptbr_slm.cli.output import table
from ptbr_slm.text import human_bytes, number

if TYPE_CHECKING:
    from ptbr_slm_export import ExportReport, VerifyReport
    from ptbr_slm_export.measure import Measured
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
        f"  medidos em {number(report.text.counted)} tokens de: {report.text.name}"
    )
    if report.stand_in:
        bits += (
            "\n  respondido pelo processador, pois aqui não há a GPU deste export: as contas conferem;"
            "\n  o código da GPU e a velocidade, só nela: rode lá o ptbr-slm verify"
        )
    return f"{table(rows, header=['comparação com o PyTorch', 'medido', 'limite', ''])}\n\n{bits}"


def _figure(check: Check, value: float) -> str:
    if check.name == "bits_per_byte":
        return f"{number(100 * value, 3)} %"
    if check.name == "cosine":
        return number(value, 4)
    return number(value) if check.name == "greedy" else f"{value:.2g}".replace(".", ",")


def measured_table(rows: Sequence[Measured], report: ExportReport) -> str:
    """Size, bits per byte and speed of each precision; the one that was kept is marked."""
    parity = report.verification
    reference = parity.reference_bits_per_byte if parity else None
    lines = [
        [
            row.precision + (f" ({row.method})" if row.method else ""),
            human_bytes(row.bytes),
            "–" if row.bits_per_byte is None else number(row.bits_per_byte, 4),
            "–" if not (row.bits_per_byte and reference) else _percent(row.bits_per_byte / reference - 1),
            "–" if row.tokens_per_second is None else number(row.tokens_per_second, 1),
            "gravado" if row.precision == report.precision else "",
        ]
        for row in rows
    ]
    header = ["precisão", "tamanho", "bits por byte", "mudança", "tokens/s", ""]
    if all(row.tokens_per_second is None for row in rows):
        elsewhere = "tokens/s não medidos: este alvo roda em outra máquina ou ferramenta"
        return f"{table(lines, header=header)}\n  {elsewhere}"
    return f"{table(lines, header=header)}\n  tokens/s medidos agora nesta máquina, um texto por vez"


def _percent(part: float) -> str:
    sign = "+" if part >= 0 else "-"
    return f"{sign}{number(abs(100 * part), 3)} %"
