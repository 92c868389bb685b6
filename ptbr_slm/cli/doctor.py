"""`ptbr-slm doctor`: what this machine can do, and what to type to put right what is wrong."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.cli.terminal import Style, columns, styled, wants_colour
from ptbr_slm.errors import Exit

if TYPE_CHECKING:
    from ptbr_slm.doctor.findings import Finding

SHOWN = {"ok": "ok", "warning": "aviso", "problem": "problema"}
_STYLES = {"ok": Style.GREEN, "warning": Style.YELLOW, "problem": Style.RED}
_MARGIN = " " * 10
"""Of what is said, beside the status."""


def register(app: typer.Typer) -> None:
    """Add `doctor` to the application."""
    command(app, "doctor", examples={"ptbr-slm doctor": "O que esta máquina pode fazer"})(doctor)


def doctor(
    out: Output,
    strict: Annotated[
        bool, typer.Option("--strict", help="Código de saída 1 também para problemas que ainda deixam usar.")
    ] = False,
) -> Report:
    """Examina a máquina e diz o que corrigir.

    GPU, precisão do treino, pacotes, disco e Kaggle.
    """
    from ptbr_slm.doctor.facts import gather
    from ptbr_slm.doctor.findings import diagnose, training_device

    facts = gather()
    findings = diagnose(facts)
    lines = [line for finding in findings for line in _lines(finding)]
    counts = {status: sum(f.status == status for f in findings) for status in SHOWN}
    blocked = any(finding.blocking for finding in findings)
    summary = _summary(counts, blocked)
    data: dict[str, Any] = {
        "findings": [asdict(finding) for finding in findings],
        "counts": counts,
        "usable": not blocked,
        "training_device": training_device(facts),
        "gpus": [asdict(gpu) for gpu in facts.gpus],
        "packages": dict(facts.packages),
        "providers": list(facts.providers),
        "provider_faults": dict(facts.provider_faults),
    }
    return Report(
        data,
        "\n".join([*lines, "", summary]),
        brief=summary,
        exit_code=Exit.ERROR if blocked or (strict and counts["problem"]) else Exit.OK,
    )


def _lines(finding: Finding) -> Iterator[str]:
    """The status, what was found, and what to type; sentences in the terminal's width, commands whole."""
    first, *others = textwrap.wrap(
        finding.message, columns() - len(_MARGIN), break_long_words=False, break_on_hyphens=False
    )
    status = styled(SHOWN[finding.status], _STYLES[finding.status], wants_colour(sys.stdout))
    yield f"{status}{_MARGIN[len(SHOWN[finding.status]) :]}{first}"
    yield from (f"{_MARGIN}{line}" for line in others)
    if finding.fix:
        yield f"{_MARGIN}→ {finding.fix}"


def _summary(counts: dict[str, int], blocked: bool) -> str:
    if blocked:
        return (
            "Ainda não dá para usar: corrija o que está marcado como problema e rode ptbr-slm doctor de novo."
        )
    if counts["problem"] or counts["warning"]:
        return f"Dá para usar. Problemas: {counts['problem']}; avisos: {counts['warning']}."
    return "Tudo certo por aqui."
