"""`ptbr-slm doctor`: what this machine can do, and what to type to put right what is wrong."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.errors import Exit

SHOWN = {"ok": "ok", "warning": "aviso", "problem": "problema"}


def register(app: typer.Typer) -> None:
    """Add `doctor` to the application."""
    command(app, "doctor")(doctor)


def doctor(
    out: Output,
    strict: Annotated[
        bool, typer.Option("--strict", help="Código de saída 1 também para problemas que ainda deixam usar.")
    ] = False,
) -> Report:
    """Examina a máquina: GPU, precisão do treino, pacotes, disco, Kaggle; e diz o que corrigir."""
    from ptbr_slm.doctor.facts import gather
    from ptbr_slm.doctor.findings import diagnose, training_device

    facts = gather()
    findings = diagnose(facts)
    lines = []
    for finding in findings:
        lines.append(f"{SHOWN[finding.status].ljust(8)}  {finding.message}")
        if finding.fix:
            lines.append(f"{' ' * 10}→ {finding.fix}")
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


def _summary(counts: dict[str, int], blocked: bool) -> str:
    if blocked:
        return (
            "Ainda não dá para usar: corrija o que está marcado como problema e rode ptbr-slm doctor de novo."
        )
    if counts["problem"] or counts["warning"]:
        return f"Dá para usar. Problemas: {counts['problem']}; avisos: {counts['warning']}."
    return "Tudo certo por aqui."
