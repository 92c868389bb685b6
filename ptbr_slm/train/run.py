"""One call that trains: open the data, decide, resume or begin, run the loop, finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ptbr_slm.data.sources.hub_names import is_hub_name, shown
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.storage.atomic import atomic_folder, remove_leftovers, write_text
from ptbr_slm.storage.lock import run_lock
from ptbr_slm.storage.model_folder import ModelFolder, seal_model_folder, write_model_files
from ptbr_slm.storage.output import make_folder, remove_made
from ptbr_slm.train.average import LAST_PART, WeightAverage
from ptbr_slm.train.checkpoint.files import has_frozen, list_checkpoints, model_arrays, next_bytes
from ptbr_slm.train.checkpoint.kaggle_input import Identity
from ptbr_slm.train.checkpoint.resume import (
    Found,
    check_base,
    check_cooldown_data,
    check_same_command,
    check_unchanged,
    find_checkpoint,
)
from ptbr_slm.train.checkpoint.retention import check_room
from ptbr_slm.train.config import TrainConfig, as_begun
from ptbr_slm.train.config_file import load_values, to_toml, to_values
from ptbr_slm.train.evaluate import TaskScorer
from ptbr_slm.train.events import (
    Evaluated,
    Listener,
    RanksJoined,
    Resumed,
    Silent,
    Started,
    Step,
    TrainResult,
    Warned,
    WeightsAveraged,
)
from ptbr_slm.train.gpu_settings import prepare_gpu
from ptbr_slm.train.loop import Branch, Ended, run_loop
from ptbr_slm.train.optim.adamw import check_adamw8bit
from ptbr_slm.train.parallel.environment import local_rank, restarts, visible_cards
from ptbr_slm.train.parallel.shards import fill, gather
from ptbr_slm.train.parallel.world import Ranks, check_shares, join_ranks
from ptbr_slm.train.planning.plan import Plan, check_device
from ptbr_slm.train.process import keep_freed_memory
from ptbr_slm.train.reporting.loggers import check_loggers, with_loggers
from ptbr_slm.train.reporting.metrics import MetricsLog
from ptbr_slm.train.reporting.report import write_report
from ptbr_slm.train.reporting.sessions import NotingListener, SessionLog
from ptbr_slm.train.run_folder import CHECKPOINTS, CONFIG, FINAL, LOCK, METRICS, check_run_folder
from ptbr_slm.train.session import EXIT_OF, Clock, Deadline, SignalGuard, StopReason, session_age
from ptbr_slm.train.spec import TrainingData, TrainSpec
from ptbr_slm.train.step import is_out_of_memory
from ptbr_slm.train.survival.out_of_memory import no_smaller, remembered
from ptbr_slm.train.trainer import Trainer


def train(
    config: TrainConfig,
    listener: Listener | None = None,
    task_scorer: TaskScorer | None = None,
    spec: TrainSpec | None = None,
) -> TrainResult:
    """Train, or continue the run that `config.output` holds.

    spec: what is trained; by default a model on prepared text. task_scorer: what scores the tasks of
    `evaluation.tasks` (`ptbr_slm.eval.in_training.TasksInTraining`).

    Returns for a finished and for a stopped run alike (see TrainResult.exit_code). Raises SlmError for
    whatever else can go wrong; checkpoints written before stay as they are.
    """
    age = session_age(config.session_start)
    keep_freed_memory()
    prepare_gpu(config)
    _check_before_writing(config)
    config = _as_restarted(config)
    with join_ranks(config.device) as ranks:
        # A function of its own: a trainer that outlives its process group may hang a rank at its end.
        listener = listener if listener is not None and ranks.main else Silent()
        return _train(config, listener, ranks, age, task_scorer, spec or TrainSpec())


def _train(
    config: TrainConfig,
    listener: Listener,
    ranks: Ranks,
    age: Clock,
    task_scorer: TaskScorer | None,
    spec: TrainSpec,
) -> TrainResult:
    """What each rank does once they have met."""
    with ExitStack() as held:
        ranks.from_main(lambda: _claim_folder(config, held))
        data = ranks.main_first(lambda: spec.open_data(config, listener))
        source = None if config.init_from is None else ModelFolder(config.init_from)
        plan, found = ranks.from_main(lambda: _planned(config, data, listener, ranks.world, source, spec))
        plan = _own_plan(plan, ranks)
        held.enter_context(_memory_errors(plan))
        trainer = _prepare(plan, found, data, listener, ranks, source, task_scorer, spec)
        sessions = held.enter_context(_reported(trainer))
        log = config.output / METRICS
        with MetricsLog(log, trainer.state.step, writes=ranks.main) as metrics, SignalGuard() as signals:
            ended = run_loop(trainer, metrics, signals, _deadline(trainer.config, age))
            if sessions is not None:  # before the report, which shows how each session ended
                sessions.end(trainer.state.step, ended.reason or "complete")
            return _finish(trainer, metrics, ended)


@contextmanager
def _reported(trainer: Trainer) -> Iterator[SessionLog | None]:
    """While the block runs, the trainer's listener has sessions.jsonl and the loggers beside it.

    None, and nothing is written, on ranks that are not the main one and for a run that is over already.
    """
    if not trainer.ranks.main or trainer.progress >= 1.0:
        yield None
        return
    before, config = trainer.listener, trainer.config
    with ExitStack() as held:
        sessions = held.enter_context(
            SessionLog(
                config.output,
                trainer.state.step,
                device=str(trainer.plan.device),
                ranks=trainer.ranks.world,
                precision=trainer.plan.precision.name,
                batch_size=trainer.batch_size,
            )
        )
        noting = NotingListener(before, sessions)
        loggers = with_loggers(config.logger, noting, config.output, to_values(config), trainer.state.step)
        trainer.listener = held.enter_context(loggers)
        try:
            yield sessions
        finally:
            trainer.listener = before


@contextmanager
def _memory_errors(plan: Plan) -> Iterator[None]:
    """Answer an out of memory that no smaller micro-batch can mend: while the model is made, say."""
    try:
        yield
    except RuntimeError as error:
        raise (
            no_smaller(plan, str(error), plan.config.batch_size) if is_out_of_memory(error) else error
        ) from error


def _deadline(config: TrainConfig, age: Clock) -> Deadline:
    last = {"schedule": 0.0, "session": config.schedule.cooldown_fraction, "average": LAST_PART}
    evaluations = 2 if config.cooldown == "average" else 1  # of the mean, too
    return Deadline(config.max_time_s, age, last_part=last[config.cooldown], evaluations=evaluations)


def _as_restarted(config: TrainConfig) -> TrainConfig:
    """After a rank died: go on from what this command has written, whatever `--resume` says."""
    written = restarts() and list_checkpoints(config.output / CHECKPOINTS)
    return replace(config, resume="auto", allow_config_change=True) if written else config


def _claim_folder(config: TrainConfig, held: ExitStack) -> None:
    """Lock the run's folder for as long as `held` lasts, and clean up after a killed writer."""
    check_run_folder(config.output)
    check_same_command(_recorded_settings(config.output / CONFIG), config)
    made = make_folder(config.output)
    held.callback(remove_made, made)
    held.enter_context(run_lock(config.output / LOCK))
    held.push(_removing_lock(config.output / LOCK, made))
    remove_leftovers(config.output)
    remove_leftovers(config.output / CHECKPOINTS)


def _recorded_settings(file: Path) -> dict[str, Any] | None:
    """What a run has written of its settings; None where nothing can be read."""
    try:
        return load_values(file) if file.is_file() else None
    except SlmError:
        return None


def _removing_lock(lock: Path, folders: list[Path]) -> Callable[..., None]:
    """For an ExitStack: after a refusal that wrote nothing, the lock in folders made for it goes again."""

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not folders or list(lock.parent.iterdir()) != [lock]:
            return
        lock.unlink()

    return leave


def _planned(
    config: TrainConfig,
    data: TrainingData,
    listener: Listener,
    ranks: int,
    source: ModelFolder | None,
    spec: TrainSpec,
) -> tuple[Plan, Found]:
    """The run, decided, and the checkpoint to go on from; what was left open is then as that run began."""

    def going_on(begun: Mapping[str, Any]) -> Plan:
        return spec.plan(as_begun(config, begun), data, ranks, source)

    plan = spec.plan(config, data, ranks, source)
    data.check_enough(plan.config)
    tokenizer = data.tokenizer.sha256
    identity = Identity(plan.model.to_hf(), data.sha256, tokenizer)
    found = find_checkpoint(plan.config, identity, lambda begun: going_on(begun).config, listener)
    if found is not None:
        plan = going_on(found[1].config)
        check_unchanged(found[1], plan.config, plan.model, data.sha256, tokenizer)
        check_cooldown_data(found[1], plan.config, None if data.cooldown is None else data.cooldown.sha256)
    return plan, found


def _own_plan(plan: Plan, ranks: Ranks) -> Plan:
    """The main rank's plan, on this rank's own card."""
    check_shares(plan.config, ranks)
    return (
        replace(plan, device=torch.device("cuda", ranks.local_rank)) if plan.device.type == "cuda" else plan
    )


def _check_before_writing(config: TrainConfig) -> None:
    """What would otherwise leave an empty run folder behind, or fail only at the end."""
    check_loggers(config.logger)
    if not config.data.exists():
        hint = "Confira o caminho em --data."
        if is_hub_name(config.data):
            hint = f"Prepare antes:  ptbr-slm data prepare '{shown(config.data)}' -o dados --tokenizer T"
        raise SlmError("E_NOT_FOUND", "os dados não existem.", where=shown(config.data), hint=hint)
    if config.cooldown_data is not None and not config.cooldown_data.exists():
        raise SlmError(
            "E_NOT_FOUND",
            "os dados do resfriamento não existem.",
            where=config.cooldown_data,
            hint="Confira o caminho em --cooldown-data.",
        )
    check_device(config)
    if config.optimizer.name == "adamw8bit":
        cuda = config.device != "cpu" and visible_cards() > 0
        # On this rank's own card: a trial on another would keep a CUDA context there for the whole run.
        check_adamw8bit(torch.device("cuda", local_rank()) if cuda else torch.device("cpu"))


def _prepare(
    plan: Plan,
    found: Found,
    data: TrainingData,
    listener: Listener,
    ranks: Ranks,
    source: ModelFolder | None,
    task_scorer: TaskScorer | None,
    spec: TrainSpec,
) -> Trainer:
    """A trainer at the step where it should go on; config.resolved.toml is written.

    found: the checkpoint to go on from, if any. source: the model that a new run begins from, if any.
    """
    _announce(plan, data, listener)
    if ranks.world > 1:
        _announce_ranks(plan, listener, ranks)
    trainer = Trainer(plan, data, listener, ranks, task_scorer, spec)
    if trainer.held_out is None:
        message = "os dados não têm parte de validação: o treino segue sem medir bits por byte."
        listener.event(Warned(code="no_validation", message=message))
    trainer.batch_size = ranks.from_main(lambda: remembered(plan))
    base = source if spec.keeps_base else None
    trainer.state.base_sha256 = ranks.from_main(lambda: "" if base is None else base.sha256)
    if found is not None:
        checkpoint, state = found
        frozen = has_frozen(trainer.model)
        if base is not None and (frozen or not plan.config.allow_config_change):
            check_base(state, trainer.state.base_sha256, base.path)
        if base is not None and frozen:
            fill(trainer.model, lambda model: model.load_hf_weights(base.weights.read))
        trainer.resume(checkpoint, state)
        if trainer.progress < 1.0:
            ranks.from_main(lambda: _check_room(trainer))
        trainer.companions = ModelFolder(checkpoint).companions
        listener.event(Resumed(step=state.step, path=str(checkpoint)))
    elif source is not None:
        read = source.weights.read
        trainer.companions = spec.companions(source)
        fill(trainer.model, lambda model: model.load_hf_weights(read))
    else:
        fill(trainer.model, lambda model: model.initialize(plan.config.seed))
    ranks.from_main(lambda: write_text(plan.config.output / CONFIG, to_toml(plan.config)))
    return trainer


def _check_room(trainer: Trainer) -> None:
    folder, keep = trainer.config.output / CHECKPOINTS, trainer.config.checkpoint.keep
    check_room(folder, list_checkpoints(folder), next_bytes(trainer.model), keep)


def _announce(plan: Plan, data: TrainingData, listener: Listener) -> None:
    listener.event(
        Started(
            parameters=plan.model.num_parameters,
            device=str(plan.device),
            precision=plan.precision.name,
            precision_reason=plan.precision.reason,
            checkpoint_every=plan.checkpoint_every,
            checkpointing_reason=plan.checkpointing_reason,
            batch_size=plan.config.batch_size,
            grad_accum=plan.config.grad_accum,
            loss=plan.loss,
            plan_reasons=plan.reasons,
            memory_bytes=plan.memory.total,
            tokens_per_step=plan.config.step_tokens,
            train_tokens=data.train_tokens,
            learning_rate=plan.config.optimizer.learning_rate,
            notes=plan.notes,
        )
    )


def _announce_ranks(plan: Plan, listener: Listener, ranks: Ranks) -> None:
    how = "fsdp" if plan.config.parallel == "fsdp" else "ddp"
    listener.event(RanksJoined(world=ranks.world, parallel=how, restarts=restarts()))
    if restarts():
        message = f"um processo morreu; todos recomeçam do último checkpoint (reinício {restarts()})."
        listener.event(Warned(code="restart", message=message))


def _finish(trainer: Trainer, metrics: MetricsLog, ended: Ended) -> TrainResult:
    """Save; for a finished run, and where the time was over, also the last evaluation and the report."""
    if ended.branch is not None:
        return _finish_branch(trainer, ended.branch, metrics, ended.reason)
    reason = ended.reason
    if reason is None:
        trainer.observe(metrics)
    model = trainer.save()
    if reason == "max_time":
        trainer.observe(metrics)  # behind the save, which counts for more
    evaluated = metrics.last(Evaluated)
    bits = None if evaluated is None else evaluated.bits_per_byte
    if reason is None:
        model = _write_final(trainer, bits)
    if ended.average is not None:
        model, bits = _finish_average(trainer, ended.average, model, metrics, bits)
    if reason in (None, "max_time"):
        _write_report(trainer)
    return _result(trainer, metrics, reason, model, bits, trainer.state.step, trainer.state.tokens)


def _finish_average(
    trainer: Trainer, average: WeightAverage, stable: Path, metrics: MetricsLog, raw: float | None
) -> tuple[Path, float | None]:
    """The mean of the session's last weights becomes final/; that model, and its bits per byte.

    stable: the checkpoint that the run goes on from, whose weights measured `raw`.
    """
    average.give()
    bits, step = trainer.held_out_bits(), trainer.state.step
    event = WeightsAveraged(
        step=step,
        first_step=average.first_step,
        count=average.count,
        bits_per_byte=bits,
        raw_bits_per_byte=raw,
    )
    metrics.tell(trainer.listener, event)
    origin = {"branch": "average", "stable_step": step, "stable_checkpoint": stable.name}
    made_of = {"averaged_from_step": average.first_step, "averaged_weights": average.count}
    return _write_final(trainer, bits, **origin, **made_of), bits


def _finish_branch(
    trainer: Trainer, branch: Branch, metrics: MetricsLog, reason: StopReason | None
) -> TrainResult:
    """The cooled model becomes final/, if the cooldown came to its end; the run stays in its stable phase."""
    model, bits = branch.stable, branch.bits_per_byte
    if branch.finished:
        origin = {"branch": "cooldown", "stable_step": branch.step, "stable_checkpoint": branch.stable.name}
        model = _write_final(trainer, bits, **origin)
        _write_report(trainer)
    return _result(trainer, metrics, reason, model, bits, branch.step, branch.tokens)


def _write_report(trainer: Trainer) -> None:
    trainer.ranks.from_main(lambda: write_report(trainer.config.output, trainer.plan, trainer.state))


def _result(
    trainer: Trainer,
    metrics: MetricsLog,
    reason: StopReason | None,
    model: Path,
    bits: float | None,
    step: int,
    tokens: int,
) -> TrainResult:
    last = metrics.last(Step)
    return TrainResult(
        status="done" if reason is None else "stopped",
        reason=reason or "complete",
        exit_code=Exit.OK if reason is None else EXIT_OF[reason],
        run=trainer.config.output,
        model=model,
        step=step,
        tokens=tokens,
        loss=None if last is None else last.loss,
        bits_per_byte=bits,
        seconds=trainer.elapsed_s,
        tokens_per_second=trainer.pace.tokens_per_second,
        skipped_steps=trainer.state.skipped_steps,
    )


def _write_final(trainer: Trainer, bits: float | None, **origin: object) -> Path:
    """Write the model as it is now to RUN/final; all ranks call it, since a sharded one is gathered.

    origin: what else the manifest should say of where these weights come from.
    """
    final, model = trainer.config.output / FINAL, gather(trainer.model, trainer.ranks)

    def write() -> None:
        with atomic_folder(final) as folder:
            write_model_files(
                folder, model.config, model_arrays(model), trainer.tokenizer, trainer.companions
            )
            made_by = trainer.spec.finish(folder, model, trainer.plan, trainer.data, trainer.state)
            seal_model_folder(
                folder,
                steps=trainer.state.step,
                tokens=trainer.state.tokens,
                bits_per_byte=bits,
                held_out=trainer.held_out and trainer.held_out.facts(),
                source_run=str(trainer.config.output.resolve()),
                **origin,
                **made_by,
            )

    trainer.ranks.from_main(write)
    return final
