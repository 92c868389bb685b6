"""report/: what a run did, for a person and for a program: report.md, .html, .json, loss.svg, samples.md."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ptbr_slm.storage.atomic import atomic_folder, write_text
from ptbr_slm.train.config_file import to_toml
from ptbr_slm.train.planning.plan import Plan
from ptbr_slm.train.reporting.curves import draw, sheet
from ptbr_slm.train.reporting.curves import smoothed as smoothed  # find-lr draws with it, too
from ptbr_slm.train.reporting.data import Course, panels, summary
from ptbr_slm.train.reporting.pages import html_page, markdown_page, samples_page
from ptbr_slm.train.saving.checkpoint import TrainState


def write_report(run: Path, plan: Plan, state: TrainState) -> Path:
    """Write run/report from the run's records, replacing an earlier one. Returns the folder."""
    course = Course(run)
    found = summary(run, plan, state, course)
    curves, toml = draw(panels(course)), to_toml(plan.config)
    with atomic_folder(run / "report") as folder:
        write_text(folder / "loss.svg", sheet(curves))
        write_text(folder / "samples.md", samples_page(course.of("sample")))
        write_text(folder / "report.md", markdown_page(found, toml))
        write_text(folder / "report.html", html_page(found, curves, toml))
        text = json.dumps(_plain(found), ensure_ascii=False, indent=1, allow_nan=False)
        write_text(folder / "report.json", text + "\n")
    return run / "report"


def _plain(value: Any) -> Any:
    """The same without NaN and infinity, which are not JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
