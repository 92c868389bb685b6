"""What `ptbr-slm train` says: while it runs, at its end, and for `--dry-run`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ptbr_slm.cli.output import Mode, Output, Progress, Report, table
from ptbr_slm.events import Event
from ptbr_slm.text import human_bytes, number, quoted
from ptbr_slm.train import events as told
from ptbr_slm.train.events import Planned

if TYPE_CHECKING:
    from ptbr_slm.train.events import TrainResult
    from ptbr_slm.train.planning.memory import MemoryEstimate
    from ptbr_slm.train.planning.plan import DryRun


class Printer:
    """Shows a run: JSON lines, or notes and a bar for a person."""

    def __init__(self, out: Output, bar: Progress) -> None:
        self.out, self.bar = out, bar

    def event(self, event: Event) -> None:
        """Print what a person should read; every record in `--json` mode."""
        if self.out.mode is Mode.JSON:
            self.out.event(event.record())
        elif text := sentence(event):
            self.out.note(text)

    def progress(self, done: float, status: str) -> None:
        """Move the bar."""
        self.bar.update(done, status)


def sentence(event: Event) -> str:
    """What a person reads of an event, in Portuguese; empty for what only a machine wants."""
    match event:
        case told.Started():
            lines = [
                f"Modelo de {number(event.parameters)} parâmetros em {event.device}, "
                f"{number(event.tokens_per_step)} tokens por passo, taxa {event.learning_rate:.1e}",
                f"  precisão {event.precision}: {event.precision_reason}",
                f"  ativações: {event.checkpointing_reason}",
                *(f"  plano: {reason}" for reason in event.plan_reasons),
                *(f"  atenção: {note}" for note in event.notes),
            ]
            return "\n".join(lines)
        case told.RanksJoined():
            return f"  {event.world} processos ({event.parallel}) repartem cada passo"
        case told.Resumed():
            return f"Continuando do passo {number(event.step)} ({event.path})"
        case told.Copied() | told.RolledBack() | told.MemoryRanOut() | told.CooldownStarted():
            return event.message
        case told.Dropped():
            return f"Atenção: passo {number(event.step)} descartado: a perda não era um número."
        case told.Warned():
            return f"Atenção: {event.message}"
        case told.Evaluated():
            return f"passo {number(event.step)}: {number(event.bits_per_byte, 4)} bits por byte"
        case told.Sampled():
            return f"  «{event.prompt}»{' '.join(event.text.splitlines())}"
        case _:
            return ""


_WHY_STOPPED = {
    "max_time": "o tempo acabou",
    "sigterm": "SIGTERM",
    "sighup": "o terminal fechou",
    "interrupt": "Ctrl-C",
}


def train_report(result: TrainResult) -> Report:
    """The last words of a run, finished or stopped."""
    bits = "" if result.bits_per_byte is None else f", {number(result.bits_per_byte, 4)} bits por byte"
    if result.status == "done":
        head = f"Treino completo: {number(result.step)} passos, {number(result.tokens)} tokens{bits}."
        following = (
            f"  modelo     {result.model}\n  relatório  {result.run / 'report' / 'report.html'}\n\n"
            f"Próximo passo:\n  ptbr-slm export {quoted(result.model)} -o {quoted(result.run / 'export')}"
        )
    else:
        why = _WHY_STOPPED[result.reason]
        head = f"Treino parado no passo {number(result.step)} ({why}) e salvo{bits}."
        what = "modelo resfriado" if result.model.name == "final" else "checkpoint"
        following = (
            f"  {what}  {result.model}\n\nPara continuar, repita o mesmo comando. Para já usar o modelo:\n"
            f"  ptbr-slm export {quoted(result.model)} -o {quoted(result.run / 'export')}"
        )
    return Report(
        result.event().record(), f"{head}\n{following}", brief=str(result.model), exit_code=result.exit_code
    )


def dry_run_report(found: DryRun) -> Report:
    """What `--dry-run` says."""
    from ptbr_slm.cli.plan_tables import options_data, options_text

    plan, memory = found.plan, found.plan.memory
    config = plan.config
    epochs = "só depois de preparar os dados" if found.epochs is None else number(found.epochs, 2)
    rows = [
        ("parâmetros", number(plan.model.num_parameters)),
        ("tokens por passo", number(config.step_tokens)),
        ("micro-lote", f"{config.batch_size} x {number(config.seq_len)} tokens"),
        ("micro-lotes por passo", number(config.grad_accum)),
        ("passos", number(config.max_steps)),
        ("tokens do treino", number(config.step_tokens * config.max_steps)),
        ("épocas", epochs),
        *((f"memória: {name}", human_bytes(size)) for name, size in _parts(plan.memory) if size),
    ]
    notes = [
        f"precisão {plan.precision.name}: {plan.precision.reason}",
        f"ativações: {plan.checkpointing_reason}",
        *(f"plano: {reason}" for reason in plan.reasons),
    ]
    options = options_text(plan.options, plan.machine)
    text = "\n\n".join(
        [table(rows), options, "\n".join([*notes, *plan.notes, "Nada foi gravado (--dry-run)."])]
    )
    event = Planned(
        parameters=plan.model.num_parameters,
        tokens_per_step=config.step_tokens,
        max_steps=config.max_steps,
        epochs=found.epochs,
        train_tokens=found.train_tokens,
        precision=plan.precision.name,
        batch_size=config.batch_size,
        grad_accum=config.grad_accum,
        checkpoint_every=plan.checkpoint_every,
        loss=plan.loss,
        ranks=plan.machine.ranks,
        options=options_data(plan.options, plan.machine),
        reasons=plan.reasons,
        learning_rate=config.optimizer.learning_rate,
        memory_bytes={**dataclasses.asdict(memory), "total": memory.total},
        notes=plan.notes,
    )
    return Report(event.record(), text, brief=number(plan.model.num_parameters))


def _parts(memory: MemoryEstimate) -> list[tuple[str, int]]:
    """(Portuguese name, bytes) of each part."""
    return [
        ("pesos", memory.weights),
        ("cópias de meia precisão", memory.autocast_cache),
        ("gradientes", memory.gradients),
        ("otimizador", memory.optimizer),
        ("ativações", memory.activations),
        ("logits", memory.logits),
        ("trabalho", memory.workspace),
        ("comunicação", memory.communication),
        ("contexto da GPU", memory.context),
        ("total", memory.total),
    ]
