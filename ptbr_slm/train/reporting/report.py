"""report/: what a run did, for a person and for a program: report.md, .html, .json, loss.svg, samples.md.

It is made of metrics.jsonl and sessions.jsonl alone. Every field may be missing: older runs,
other devices, a run of one step.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptbr_slm.storage.atomic import atomic_folder, write_text
from ptbr_slm.text import number
from ptbr_slm.train.config_file import to_toml, to_values
from ptbr_slm.train.events import (
    CooldownEnded,
    Evaluated,
    MemoryRanOut,
    RolledBack,
    Sampled,
    Step,
    StepEvent,
    TasksScored,
    WeightsAveraged,
)
from ptbr_slm.train.planning.plan import Plan
from ptbr_slm.train.reporting.curves import Panel, Point, draw, sheet
from ptbr_slm.train.reporting.meters import total_kwh
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.reporting.pages import html_page, markdown_page, samples_page
from ptbr_slm.train.reporting.sessions import read_notes, read_sessions, versions
from ptbr_slm.train.run_folder import METRICS, REPORT
from ptbr_slm.train.state import TrainState

Records = list[dict[str, Any]]
_NUMBERS = (int, float)


class RunHistory:
    """The records of a run by their event."""

    def __init__(self, run: Path) -> None:
        self.by_event: dict[str, Records] = {}
        self._points: dict[tuple[str, str], list[Point]] = {}
        for record in read_metrics(run / METRICS):
            self.by_event.setdefault(record["event"], []).append(record)
        self.sessions = read_sessions(run)
        self.notes = read_notes(run)

    def of(self, kind: type[StepEvent]) -> Records:
        """The records of this kind, in order; a version before may have written them with fewer keys."""
        return self.by_event.get(kind.EVENT, [])

    def points(self, name: str, kind: type[StepEvent] = Step, factor: float = 1.0) -> list[Point]:
        """(step, value) of a field, wherever it is a finite number."""
        found = self._points.get((name, kind.EVENT))
        if found is None:
            found = self._points[name, kind.EVENT] = [
                (float(record["step"]), value)
                for record in self.of(kind)
                if isinstance(value := record.get(name), _NUMBERS) and math.isfinite(value)
            ]
        return found if factor == 1.0 else [(step, factor * value) for step, value in found]

    def values(self, name: str) -> list[float]:
        """The finite values of a field of the steps."""
        return [value for _, value in self.points(name)]


def write_report(run: Path, plan: Plan, state: TrainState) -> Path:
    """Write run/report from the run's records, replacing an earlier one. Returns the folder."""
    history = RunHistory(run)
    found = summary(run, plan, state, history)
    curves, toml = draw(panels(history)), to_toml(plan.config)
    with atomic_folder(run / REPORT) as folder:
        write_text(folder / "loss.svg", sheet(curves))
        write_text(folder / "samples.md", samples_page(history.of(Sampled)))
        write_text(folder / "report.md", markdown_page(found, toml))
        write_text(folder / "report.html", html_page(found, curves, toml))
        text = json.dumps(_plain(found), ensure_ascii=False, indent=1, allow_nan=False)
        write_text(folder / "report.json", text + "\n")
    return run / REPORT


def summary(run: Path, plan: Plan, state: TrainState, history: RunHistory) -> dict[str, Any]:
    """report.json: English keys, plain values; None where nothing is known."""
    model = plan.model
    return {
        "schema": 1,
        "run": run.name,
        "model": {
            "parameters": model.num_parameters,
            "num_layers": model.num_layers,
            "hidden_size": model.hidden_size,
            "num_heads": model.num_heads,
            "num_kv_heads": model.num_kv_heads,
            "vocab_size": model.vocab_size,
            "max_seq_len": model.max_seq_len,
        },
        "device": str(plan.device),
        "precision": plan.precision.name,
        "precision_reason": plan.precision.reason,
        "step": state.step,
        "max_steps": plan.config.max_steps,
        "tokens": state.tokens,
        "tokens_per_step": plan.config.step_tokens,
        "data": state.data,
        "seconds": round(state.elapsed_s, 3),
        "loss": _first_and_last(history.points("loss")),
        "bits_per_byte": _first_and_last(history.points("bits_per_byte", Evaluated)),
        "text_bits_per_byte": _first_and_last(history.points("text_bits_per_byte", Evaluated)),
        **_speed(history),
        "cooldown": _without(history.of(CooldownEnded)[-1], "event") if history.of(CooldownEnded) else None,
        "average": _without(averages[-1], "event") if (averages := history.of(WeightsAveraged)) else None,
        "skipped_steps": state.skipped_steps,
        "lowest_scale": min(history.values("scale"), default=None),
        "rollbacks": [_without(record, "event") for record in history.of(RolledBack)],
        "out_of_memory": [note for note in history.notes if note.get("event") == MemoryRanOut.EVENT],
        "energy_kwh": _energy(history),
        "samples": latest_samples(history.of(Sampled)),
        "evaluations": [[step, value] for step, value in history.points("bits_per_byte", Evaluated)],
        "tasks": [_without(record, "event") for record in history.of(TasksScored)],
        "sessions": history.sessions,
        "command": history.sessions[-1].get("command") if history.sessions else None,
        "versions": history.sessions[-1].get("versions") if history.sessions else versions(),
        "commit": history.sessions[-1].get("commit") if history.sessions else None,
        "config": to_values(plan.config),
    }


def panels(history: RunHistory) -> list[Panel]:
    """The curves worth drawing, in the order in which a person reads them."""
    marks = [
        (float(s["step"]), f"nova sessão, {s.get('start', '')}") for s in history.sessions[1:] if "step" in s
    ]
    marks += [(float(r["step"]), str(r.get("message", "volta"))) for r in history.of(RolledBack)]
    marks += [
        (float(note["step"]), str(note.get("message", "memória")))
        for note in history.notes
        if note.get("event") == MemoryRanOut.EVENT and isinstance(note.get("step"), int)
    ]
    scale = [(step, math.log2(value)) for step, value in history.points("scale") if value > 0]
    mfu = "mfu" if history.points("mfu") else "mfu_gemm"
    of = "do pico da placa" if mfu == "mfu" else "de um produto medido"
    evaluated = history.points("bits_per_byte", Evaluated)
    candidates = [
        Panel(title="perda (nats por token)", points=history.points("loss"), smooth=True, decimals=3,
              marks=marks),
        Panel(title="bits por byte na validação", points=evaluated, dots=True,
              decimals=4, marks=marks),
        Panel(title="bits por byte no texto do pré-treino", dots=True,
              points=history.points("text_bits_per_byte", Evaluated), decimals=4, marks=marks),
        *_task_panels(history.of(TasksScored), marks),
        Panel(title="taxa de aprendizado", points=history.points("learning_rate")),
        Panel(title="norma do gradiente", points=history.points("grad_norm"), smooth=True, decimals=2),
        Panel(title="escala do fp16 (expoente de 2)", points=scale),
        Panel(title="tokens por segundo", points=history.points("tokens_per_second")),
        Panel(title="memória máxima (GiB)", points=history.points("memory_bytes", factor=2**-30), decimals=2),
        Panel(title=f"MFU {of} (%)", points=history.points(mfu, factor=100.0), decimals=1),
        Panel(title="energia das GPUs na sessão (kWh)", points=history.points("energy_kwh"), decimals=3),
    ]  # fmt: skip
    return [panel for panel in candidates if panel.points]


def _task_panels(records: Records, marks: Sequence[tuple[float, str]]) -> list[Panel]:
    """A panel for each task, in the order in which they are asked for."""
    found = []
    names = {name: None for record in records for name in record.get("scores", {})}
    for name in names:
        points = [
            (float(record["step"]), 100 * record["scores"][name])
            for record in records
            if name in record.get("scores", {})
        ]
        items = records[-1].get("items", {}).get(name)
        chance = records[-1].get("chance", {}).get(name)
        title = f"{name} (%)" + (f", {number(items)} itens" if items else "")
        level = None if chance is None else 100 * chance
        title += "" if level is None else f", acaso {number(level, 0 if level == round(level) else 1)}"
        found.append(Panel(title=title, points=points, dots=True, decimals=1, level=level, marks=marks))
    return found


def latest_samples(samples: Records) -> Records:
    """Those of the newest step that has any."""
    return [
        {key: record.get(key) for key in ("step", "prompt", "text")}
        for record in samples
        if record["step"] == samples[-1]["step"]
    ]


def _speed(history: RunHistory) -> dict[str, Any]:
    """Medians over the steps; the highest memory."""
    found: dict[str, Any] = {}
    for name in ("tokens_per_second", "mfu", "mfu_gemm"):
        values = history.values(name)
        found[name] = round(statistics.median(values), 4) if values else None
    found["memory_bytes"] = max((int(value) for value in history.values("memory_bytes")), default=None)
    return found


def _energy(history: RunHistory) -> float | None:
    readings = history.values("energy_kwh")
    return round(total_kwh(readings), 6) if readings else None


def _first_and_last(points: Sequence[Point]) -> dict[str, float] | None:
    """The first, the last (a mean of the last 20) and the lowest value with their steps."""
    if not points:
        return None
    recent = [value for _, value in points[-20:]] if len(points) > 40 else [points[-1][1]]
    best = min(points, key=lambda point: point[1])
    return {
        "first": points[0][1],
        "first_step": int(points[0][0]),
        "last": statistics.fmean(recent),
        "last_step": int(points[-1][0]),
        "best": best[1],
        "best_step": int(best[0]),
    }


def _without(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in names}


def _plain(value: Any) -> Any:
    """The same without NaN and infinity, which are not JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
