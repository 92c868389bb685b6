"""`ptbr-slm train` in one process or in several: one voice, whatever the number."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING

from ptbr_slm.cli.command import as_slm_error
from ptbr_slm.cli.output import Mode, Output, Report
from ptbr_slm.cli.streams import make_streams_safe
from ptbr_slm.cli.train_text import Printer, train_report
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.train.events import Done

if TYPE_CHECKING:
    from ptbr_slm.train.config import TrainConfig

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

    with out.progress("treinando", total=1.0, eta=False) as bar:
        return train_report(train(settings, Printer(out, bar)))


def _rank(
    settings: TrainConfig, mode: Mode, debug: bool, launched: bool = True
) -> Report | SlmError | KeyboardInterrupt:
    """One rank's whole life; its answer is for the process that started it. Raises what a restart may
    mend.
    """
    from ptbr_slm.train.parallel.launch import hear_signals
    from ptbr_slm.train.parallel.messages import RankLost, StopBeforeTraining

    make_streams_safe()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        if launched:
            hear_signals()
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
