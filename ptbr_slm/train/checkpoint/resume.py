"""Which checkpoint a run continues from, and whether it may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.train.checkpoint.files import list_checkpoints, read_state
from ptbr_slm.train.checkpoint.kaggle_input import Identity, bring_newer
from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.config.begun import EARLIER
from ptbr_slm.train.config_file import settings, to_values
from ptbr_slm.train.events import Listener, Warned
from ptbr_slm.train.schedule import in_cooldown
from ptbr_slm.train.state import TrainState

Found = tuple[Path, TrainState] | None
"""A checkpoint with its state; None: there is none."""


def find_checkpoint(
    config: TrainConfig,
    identity: Identity,
    going_on: Callable[[Mapping[str, Any]], TrainConfig],
    listener: Listener,
) -> Found:
    """The checkpoint to continue from, checked; None for a new run.

    going_on: a run's settings -> the resolved ones that this command would go on with it with.

    With `auto`: the newest in the output folder, or a newer one of the same run below /kaggle/input, copied.
    A corrupt one is reported, renamed `.corrupt`, and the one before it used. Raises E_CHECKPOINT_CORRUPT
    where all are, E_EXISTS where going on would lose another run.
    """
    folder = config.output / "checkpoints"
    if config.resume == "never":
        if list_checkpoints(folder):
            raise SlmError(
                "E_EXISTS",
                "esta pasta já tem checkpoints de um treino.",
                where=folder,
                hint="Continue-o com --resume auto, ou escolha outra pasta em --output.",
            )
        return None
    if config.resume != "auto":
        return _asked_for(Path(config.resume), folder, listener)
    own = _newest_valid(folder, listener)

    def differences(values: Mapping[str, Any]) -> str:
        return _changed(values, going_on(values), 0)

    newer = bring_newer(config, identity, -1 if own is None else own[1].step, differences, listener)
    return newer or own


def _newest_valid(folder: Path, listener: Listener) -> Found:
    for checkpoint in list_checkpoints(folder):
        try:
            return checkpoint, read_state(checkpoint)
        except SlmError as error:
            if error.code != "E_CHECKPOINT_CORRUPT":
                raise
            aside = set_aside(checkpoint, "corrupt")
            message = f"{error.message} Renomeado para {aside.name}; tentando o anterior."
            listener.event(Warned(code=error.code, where=str(checkpoint), message=message))
    if any(folder.glob("step-*.corrupt*")):
        raise SlmError(
            "E_CHECKPOINT_CORRUPT",
            "todos os checkpoints deste treino estão corrompidos.",
            where=folder,
            hint="Recomece com --resume never, ou escolha outra pasta em --output.",
        )
    return None


def _asked_for(path: Path, folder: Path, listener: Listener) -> tuple[Path, TrainState]:
    """The checkpoint at `path`, or the newest valid one of the run at `path`."""
    run = path / "checkpoints"
    if run.is_dir():
        found = _newest_valid(run, listener)
        if found is None:
            raise SlmError("E_NOT_FOUND", "este treino não tem checkpoints.", where=run, hint=_RESUME_HINT)
    elif path.is_dir():
        found = path, read_state(path)
    else:
        raise SlmError("E_NOT_FOUND", "o checkpoint não existe.", where=path, hint=_RESUME_HINT)
    own = list_checkpoints(folder)
    if own and found[0].resolve().parent != folder.resolve():
        raise SlmError(
            "E_EXISTS",
            "a pasta de saída já tem os checkpoints de outro treino.",
            where=folder,
            hint="Escolha outra pasta em --output, ou continue este com --resume auto.",
        )
    for later in own:  # a later automatic resume must not go on from the abandoned steps
        if int(later.name.removeprefix("step-")) > found[1].step:
            aside = set_aside(later, "replaced")
            message = f"{later.name} é posterior ao checkpoint pedido: renomeado para {aside.name}."
            listener.event(Warned(code="", where=str(later), message=message))
    return found


_RESUME_HINT = "Use --resume RUN/checkpoints/step-NNNNNNNN, ou --resume auto."


def check_unchanged(
    state: TrainState, config: TrainConfig, model: ModelConfig, data_sha256: str, tokenizer_sha256: str
) -> None:
    """Refuse to continue another run.

    Raises E_EXISTS for that of another command; E_TOKENIZER_MISMATCH, E_CONFIG_CHANGED or E_DATA_CORRUPT,
    each listing old -> new.
    """
    check_same_command(state.config, config)
    if state.tokenizer_sha256 != tokenizer_sha256:
        raise SlmError(
            "E_TOKENIZER_MISMATCH",
            "o tokenizador mudou desde o checkpoint "
            f"({state.tokenizer_sha256[:12]} -> {tokenizer_sha256[:12]}).",
            where=config.output,
            hint="Volte ao tokenizador com que o treino começou, ou comece outro em outra pasta de --output.",
        )
    shape = _differences(state.model, model.to_hf())
    if shape:
        raise SlmError(
            "E_CONFIG_CHANGED",
            f"o modelo não é o do checkpoint: {shape}.",
            where=config.output,
            hint="Repita com o modelo do checkpoint, ou comece outro treino em outra pasta de --output.",
        )
    changed = _changed(state.config, config, state.step)
    if changed and not config.allow_config_change:
        raise SlmError(
            "E_CONFIG_CHANGED",
            f"a configuração difere da do checkpoint: {changed}.",
            where=config.output,
            hint="Repita com os valores de antes, ou aceite os novos com --allow-config-change.",
        )
    # After the settings, on which prepared conversations depend.
    if state.data_sha256 != data_sha256:
        raise SlmError(
            "E_DATA_CORRUPT",
            f"os dados mudaram desde o checkpoint ({state.data_sha256[:12]} -> {data_sha256[:12]}).",
            where=config.data,
            hint="Volte aos dados com que o treino começou, ou comece outro em outra pasta de --output.",
        )


def check_cooldown_data(state: TrainState, config: TrainConfig, sha256: str | None) -> None:
    """Refuse other data for a cooldown that has begun; before that they may change, come or go.

    sha256: of those of config.cooldown_data, None without. Raises E_DATA_CORRUPT.
    """
    own, read = state.data[0]["sha256"], state.data[-1]["sha256"]
    if read in (own, sha256):
        return
    now = "nenhum" if sha256 is None else sha256[:12]
    raise SlmError(
        "E_DATA_CORRUPT",
        f"os dados do resfriamento mudaram desde o passo {state.data[-1]['step']}, em que ele começou "
        f"({read[:12]} -> {now}).",
        where=f"--cooldown-data {config.cooldown_data or ''}".rstrip(),
        hint="Volte aos dados com que o resfriamento começou, ou continue de um checkpoint de antes dele com "
        "--resume PASTA.",
    )


def check_same_command(recorded: Mapping[str, Any] | None, config: TrainConfig) -> None:
    """Refuse to go on with what another command began. recorded: the run's settings by dotted key, if known.

    Raises E_EXISTS.
    """
    if recorded is None:
        return
    began = "tune" if any(key.startswith("tune.") for key in recorded) else "train"
    if began != config.COMMAND:
        raise SlmError(
            "E_EXISTS",
            f"esta pasta é de ptbr-slm {began}, e o comando é ptbr-slm {config.COMMAND}.",
            where=config.output,
            hint="Escolha outra pasta em --output.",
        )


def check_base(state: TrainState, base_sha256: str, source: Path) -> None:
    """Refuse to go on from another model than the run began from: adapters belong to its weights.

    Raises E_CONFIG_CHANGED.
    """
    if state.base_sha256 != base_sha256:
        raise SlmError(
            "E_CONFIG_CHANGED",
            "o modelo que se ajusta não é aquele de que o checkpoint partiu "
            f"({state.base_sha256[:12] or 'nenhum'} -> {base_sha256[:12]}).",
            where=source,
            hint="Volte ao modelo com que o ajuste começou, ou comece outro em outra pasta de --output.",
        )


def _changed(begun: Mapping[str, Any], config: TrainConfig, step: int) -> str:
    """The settings that change what the run computes, old -> new. begun: those that it began with.

    step: how many were done. Where none of them would have been another, the number of steps may change.
    """
    kind = type(config)
    old, new = _fixed_settings(begun, kind), _fixed_settings(to_values(config), kind)
    before, after = old["max_steps"], new["max_steps"]
    if before != after and _same_until(config, step, before) and _same_until(config, step, after):
        old["max_steps"] = after
    return _differences(old, new)


def _same_until(config: TrainConfig, step: int, max_steps: int) -> bool:
    """Whether the steps done are those of any longer run too: a wsd schedule is in its stable phase."""
    schedule, last = config.schedule, step - 1
    if schedule.kind != "wsd" or schedule.minutes or step >= max_steps:
        return False
    return not in_cooldown(schedule, last, max_steps)


def _fixed_settings(values: Mapping[str, Any], kind: type[TrainConfig]) -> dict[str, Any]:
    """The settings that change what a run computes; of the micro-batches, only what a step adds up to.

    A setting that an older version did not know has its default: that version did what the default does, or
    what `EARLIER` says.
    """
    values = {**to_values(kind(data=Path(), output=Path())), **EARLIER, **values}
    tokens = values["batch_size"] * values["grad_accum"] * values["seq_len"]
    free = {key for key, entry in settings(kind).items() if entry.per_session}
    fixed = {key: value for key, value in values.items() if key not in free}
    return fixed | {"tokens_per_step": tokens}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {old.get(key)} -> {new.get(key)}" for key in keys)


def set_aside(checkpoint: Path, suffix: str) -> Path:
    """Rename a checkpoint to NAME.suffix, or NAME.suffix2 and so on. Raises E_PERMISSION or E_IO."""
    aside, number = checkpoint.with_name(f"{checkpoint.name}.{suffix}"), 1
    while aside.exists():
        number += 1
        aside = checkpoint.with_name(f"{checkpoint.name}.{suffix}{number}")
    with os_errors(checkpoint):
        checkpoint.rename(aside)
    return aside
