"""`ptbr-slm train`: the verb, the ranks that it starts, and what a run says to a person."""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ptbr_slm.cli.command import as_slm_error, command
from ptbr_slm.cli.output import Mode, Output, Report, table
from ptbr_slm.cli.progress import Progress
from ptbr_slm.cli.streams import make_streams_safe
from ptbr_slm.cli.terminal import columns, wants_colour
from ptbr_slm.cli.training_options import settings_of, with_flags
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.events import Event
from ptbr_slm.text import human_bytes, number, quoted
from ptbr_slm.train import events
from ptbr_slm.train.events import Done, Planned
from ptbr_slm.tune.events import ConversationsRead, PairsRead, PreferenceMeasured

if TYPE_CHECKING:
    from ptbr_slm.train.config import TrainConfig
    from ptbr_slm.train.evaluate import TaskScorer
    from ptbr_slm.train.events import TrainResult
    from ptbr_slm.train.planning.memory import MemoryEstimate
    from ptbr_slm.train.planning.plan import DryRun
    from ptbr_slm.train.spec import TrainSpec


EXAMPLES = {
    "ptbr-slm train --data dados -o runs/meu --model-size mini --max-steps 5000": "Um modelo mini",
    "ptbr-slm train --data dados -o runs/meu --model-size 85m --max-time 11h30m": "Uma sessão do Kaggle",
    "ptbr-slm train --data dados -o runs/meu --model-size 400m --dry-run": "Só a conta, sem treinar",
}


def register(app: typer.Typer) -> None:
    """Add `train` to the application."""
    command(app, "train", examples=EXAMPLES)(with_flags(train))


def train(out: Output, **given: Any) -> Report:
    """Treina um modelo; repetido, continua de onde parou.

    Mostra antes a memória que pede, e salva o que fez ao parar por Ctrl-C, SIGTERM ou --max-time. As opções
    daqui e as demais cabem num arquivo (--config).
    """
    settings = settings_of(given)
    if given["dry_run"]:
        from ptbr_slm.train.planning.plan import dry_run

        return dry_run_report(dry_run(settings))
    return run_training(out, settings)


# In one process or in several.

_STOPPED = Report(
    Done(status="stopped", reason="sigterm", step=None, loss=None, bits_per_byte=None).record(),
    "Parado antes do primeiro passo. Repita o mesmo comando.",
    exit_code=Exit.STOPPED,
)


def run_training(out: Output, settings: TrainConfig) -> Report:
    """Train here, or start a rank for each GPU and report what the main one answers.

    Under torchrun this process is one of the ranks already; all but the main one are silent and end with 0,
    since torchrun takes any other code for a death.
    """
    from ptbr_slm.train.parallel.environment import ranks_to_start, started_by_agent

    count = ranks_to_start(settings)
    if count > 1:
        from ptbr_slm.train.parallel.launch import launch

        answer = launch(_rank, (settings, out.mode, out.debug), count)
        if isinstance(answer, BaseException):
            raise answer
        report: Report = answer
        return report
    if started_by_agent() and not _main():
        _rank(settings, out.mode, out.debug, launched=False)  # what it says, the main one says
        out.mode = Mode.QUIET
        return Report({})
    return _train(out, settings)


def _train(out: Output, settings: TrainConfig) -> Report:
    from ptbr_slm.train.run import train

    scorer = task_scorer(settings)
    with out.progress("treinando", total=1.0, eta=False) as bar:
        result = train(settings, Printer(out, bar), scorer, spec_of(settings))
        return train_report(result, answers=settings.COMMAND == "tune")


def spec_of(settings: TrainConfig) -> TrainSpec:
    """What these settings train."""
    from ptbr_slm.tune.config import TuneConfig

    if isinstance(settings, TuneConfig):
        if settings.tune.objective == "dpo":
            from ptbr_slm.tune.preference_spec import PreferenceSpec

            return PreferenceSpec()
        from ptbr_slm.tune.spec import TuneSpec

        return TuneSpec()
    from ptbr_slm.train.spec import TrainSpec

    return TrainSpec()


def task_scorer(settings: TrainConfig) -> TaskScorer | None:
    """What scores the tasks of these settings; None without tasks. Raises E_TASK, E_TASK_DATA."""
    chosen = settings.evaluation
    if not chosen.tasks:
        return None
    from ptbr_slm.eval.in_training import TasksInTraining

    return TasksInTraining(chosen.tasks, [Path(folder) for folder in chosen.task_data], chosen.tasks_seconds)


def _rank(
    settings: TrainConfig, mode: Mode, debug: bool, launched: bool = True
) -> Report | SlmError | KeyboardInterrupt:
    """One rank's whole life; its answer is for the process that started it. Raises what a restart may
    mend.
    """
    from ptbr_slm.train.parallel.launch import handle_signals
    from ptbr_slm.train.parallel.messages import RankLost
    from ptbr_slm.train.session import StopBeforeTraining

    make_streams_safe()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        if launched:
            handle_signals()
        return _train(Output(mode if _main() else Mode.QUIET, debug=debug), settings)
    except KeyboardInterrupt as error:
        return error
    except StopBeforeTraining:
        return _STOPPED
    except RankLost:
        raise
    except Exception as error:
        if debug and _main():
            traceback.print_exception(error)
        return as_slm_error(error)


def _main() -> bool:
    return os.environ.get("RANK", "0") == "0"


# What a person reads.


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
        case events.Started():
            lines = [
                f"Modelo de {number(event.parameters)} parâmetros em {event.device}, "
                f"{number(event.tokens_per_step)} tokens por passo, taxa {event.learning_rate:.1e}",
                f"  precisão {event.precision}: {event.precision_reason}",
                f"  ativações: {event.checkpointing_reason}",
                *(f"  plano: {reason}" for reason in event.plan_reasons),
                *(f"  atenção: {note}" for note in event.notes),
            ]
            return "\n".join(lines)
        case ConversationsRead():
            held_out = f", {number(event.held_out)} para a validação" if event.held_out else ""
            text = (
                f"{number(event.conversations)} conversa{'' if event.conversations == 1 else 's'} "
                f"para treinar{held_out}: "
                f"{number(event.tokens)} tokens, {number(event.target_tokens)} deles aprendidos"
            )
            return f"{text}{_left_out(event.skipped)}\n{first_example(event)}"
        case PairsRead():
            held_out = f", {number(event.held_out)} para a validação" if event.held_out else ""
            text = (
                f"{number(event.pairs)} pares de respostas para treinar{held_out}: "
                f"{number(event.tokens)} tokens, {number(event.target_tokens)} deles de respostas"
            )
            return text + _left_out(event.skipped)
        case PreferenceMeasured():
            return preference_sentence(event)
        case events.RanksJoined():
            return f"  {event.world} processos ({event.parallel}) repartem cada passo"
        case events.Resumed():
            return f"Continuando do passo {number(event.step)} ({event.path})"
        case events.Copied() | events.RolledBack() | events.MemoryRanOut() | events.CooldownStarted():
            return event.message
        case events.DataChanged():
            return f"Depois do passo {number(event.step)}, outros dados (sha256 {event.sha256[:12]})"
        case events.WeightsAveraged():
            text = f"Média dos pesos de {event.count} pontos, dos passos {number(event.first_step)} a "
            text += number(event.step)
            if event.bits_per_byte is None or event.raw_bits_per_byte is None:
                return text
            raw = number(event.raw_bits_per_byte, 4)
            return f"{text}: {number(event.bits_per_byte, 4)} bits por byte (sem a média, {raw})"
        case events.Dropped():
            return f"Atenção: passo {number(event.step)} descartado: a perda não era um número."
        case events.Warned():
            return f"Atenção: {event.message}"
        case events.Evaluated():
            text = f"passo {number(event.step)}: {number(event.bits_per_byte, 4)} bits por byte"
            if event.text_bits_per_byte is None:
                return text
            return f"{text} nas respostas, {number(event.text_bits_per_byte, 4)} no texto do pré-treino"
        case events.TasksScored():
            scores = [f"{task} {number(100 * value, 1)} %" for task, value in event.scores.items()]
            return f"passo {number(event.step)}: {', '.join(scores)}"
        case events.Sampled():
            return f"  «{event.prompt}»{' '.join(event.text.splitlines())}"
        case _:
            return ""


def first_example(event: ConversationsRead) -> str:
    """The first conversation as the model reads it: what it learns, what it only sees."""
    from ptbr_slm.tokenizer import Tokenizer
    from ptbr_slm.tune.display import show_example
    from ptbr_slm.tune.prepared import PreparedConversations

    example = PreparedConversations.open(Path(event.folder), verify=False).first
    tokenizer = Tokenizer.load(Path(event.model))
    return show_example(example, tokenizer, colour=wants_colour(sys.stderr), width=columns())


def _left_out(skipped: Mapping[str, int]) -> str:
    """The rows that were skipped, a line for each reason; empty where there are none."""
    from ptbr_slm.tune.conversations import describe_skipped

    reasons = describe_skipped(skipped).split("; ") if skipped else []
    return "".join(f"\n  de fora: {reason}" for reason in reasons)


def preference_sentence(event: PreferenceMeasured) -> str:
    """The held-out pairs in a line, the free answers in another."""
    text = (
        f"passo {number(event.step)}: {number(100 * event.won, 0)} % dos pares ganhos, margem "
        f"{number(event.margin, 2)}; por token, escolhida {number(event.chosen_per_token, 2)}, "
        f"recusada {number(event.rejected_per_token, 2)}"
    )
    if event.answers is None or event.ended is None or event.repeated is None:
        return text
    return (
        f"{text}\n  {event.answers} respostas livres: {number(event.answer_tokens or 0.0, 1)} tokens, "
        f"{number(100 * event.ended, 0)} % terminam, {number(100 * event.repeated, 0)} % de repetição"
    )


_WHY_STOPPED = {
    "max_time": "o tempo acabou",
    "sigterm": "SIGTERM",
    "sighup": "o terminal fechou",
    "interrupt": "Ctrl-C",
}


def train_report(result: TrainResult, *, answers: bool = False) -> Report:
    """The last words of a run, finished or stopped. answers: the model converses, which is tried next."""
    export = f"  ptbr-slm export {quoted(result.model)} -o {quoted(result.run / 'export')}"
    use = f"  ptbr-slm chat {quoted(result.model)}\n{export}" if answers else export
    bits = "" if result.bits_per_byte is None else f", {number(result.bits_per_byte, 4)} bits por byte"
    if result.status == "done":
        head = f"Treino completo: {number(result.step)} passos, {number(result.tokens)} tokens{bits}."
        following = (
            f"  modelo     {result.model}\n  relatório  {result.run / 'report' / 'report.html'}\n\n"
            f"Próximo passo:\n{use}"
        )
    else:
        why = _WHY_STOPPED[result.reason]
        head = f"Treino parado no passo {number(result.step)} ({why}) e salvo{bits}."
        what = "modelo pronto" if result.model.name == "final" else "checkpoint"
        following = (
            f"  {what}  {result.model}\n\nPara continuar, repita o mesmo comando. Para já usar o modelo:\n"
            f"{use}"
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
        *([] if found.sequences is None else [("sequências por época", number(found.sequences))]),
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
