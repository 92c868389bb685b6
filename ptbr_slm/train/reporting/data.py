"""What a run's records amount to: the document of report.json, from metrics.jsonl and sessions.jsonl.

Every field may be missing: older runs, other devices, a run of one step.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ptbr_slm.train.config_file import to_values
from ptbr_slm.train.planning.plan import Plan
from ptbr_slm.train.reporting.curves import Panel, Point
from ptbr_slm.train.reporting.energy import total_kwh
from ptbr_slm.train.reporting.history import read_history, read_notes, versions
from ptbr_slm.train.reporting.metrics import read_metrics
from ptbr_slm.train.saving.checkpoint import TrainState

Records = list[dict[str, Any]]
_NUMBERS = (int, float)


class Course:
    """The records of a run by their event."""

    def __init__(self, run: Path) -> None:
        self.by_event: dict[str, Records] = {}
        self._points: dict[tuple[str, str], list[Point]] = {}
        for record in read_metrics(run / "metrics.jsonl"):
            self.by_event.setdefault(record["event"], []).append(record)
        self.sessions = read_history(run)
        self.notes = read_notes(run)

    def of(self, event: str) -> Records:
        """The records of this event, in order."""
        return self.by_event.get(event, [])

    def points(self, name: str, event: str = "step", factor: float = 1.0) -> list[Point]:
        """(step, value) of a field, wherever it is a finite number."""
        found = self._points.get((name, event))
        if found is None:
            found = self._points[name, event] = [
                (float(record["step"]), value)
                for record in self.of(event)
                if isinstance(value := record.get(name), _NUMBERS) and math.isfinite(value)
            ]
        return found if factor == 1.0 else [(step, factor * value) for step, value in found]

    def values(self, name: str, event: str = "step") -> list[float]:
        """The finite values of a field."""
        return [value for _, value in self.points(name, event)]


def summary(run: Path, plan: Plan, state: TrainState, course: Course) -> dict[str, Any]:
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
        "seconds": round(state.elapsed_s, 3),
        "loss": _first_and_last(course.points("loss")),
        "bits_per_byte": _first_and_last(course.points("bits_per_byte", "eval")),
        **_speed(course),
        "cooldown": _without(course.of("cooldown")[-1], "event") if course.of("cooldown") else None,
        "skipped_steps": state.skipped_steps,
        "lowest_scale": min(course.values("scale"), default=None),
        "rollbacks": [_without(record, "event") for record in course.of("rollback")],
        "out_of_memory": [note for note in course.notes if note.get("event") == "out_of_memory"],
        "energy_kwh": _energy(course),
        "samples": latest_samples(course.of("sample")),
        "evaluations": [[step, value] for step, value in course.points("bits_per_byte", "eval")],
        "sessions": course.sessions,
        "command": course.sessions[-1].get("command") if course.sessions else None,
        "versions": course.sessions[-1].get("versions") if course.sessions else versions(),
        "commit": course.sessions[-1].get("commit") if course.sessions else None,
        "config": to_values(plan.config),
    }


def panels(course: Course) -> list[Panel]:
    """The curves worth drawing, in the order in which a person reads them."""
    marks = [
        (float(s["step"]), f"nova sessão, {s.get('start', '')}") for s in course.sessions[1:] if "step" in s
    ]
    marks += [(float(r["step"]), str(r.get("message", "volta"))) for r in course.of("rollback")]
    marks += [
        (float(note["step"]), str(note.get("message", "memória")))
        for note in course.notes
        if note.get("event") == "out_of_memory" and isinstance(note.get("step"), int)
    ]
    scale = [(step, math.log2(value)) for step, value in course.points("scale") if value > 0]
    mfu = "mfu" if course.points("mfu") else "mfu_gemm"
    of = "do pico da placa" if mfu == "mfu" else "de um produto medido"
    candidates = [
        Panel(title="perda (nats por token)", points=course.points("loss"), smooth=True, decimals=3,
              marks=marks),
        Panel(title="bits por byte na validação", points=course.points("bits_per_byte", "eval"), dots=True,
              decimals=4, marks=marks),
        Panel(title="taxa de aprendizado", points=course.points("learning_rate")),
        Panel(title="norma do gradiente", points=course.points("grad_norm"), smooth=True, decimals=2),
        Panel(title="escala do fp16 (expoente de 2)", points=scale),
        Panel(title="tokens por segundo", points=course.points("tokens_per_second")),
        Panel(title="memória máxima (GiB)", points=course.points("memory_bytes", factor=2**-30), decimals=2),
        Panel(title=f"MFU {of} (%)", points=course.points(mfu, factor=100.0), decimals=1),
        Panel(title="energia das GPUs na sessão (kWh)", points=course.points("energy_kwh"), decimals=3),
    ]  # fmt: skip
    return [panel for panel in candidates if panel.points]


def latest_samples(samples: Records) -> Records:
    """Those of the newest step that has any."""
    return [
        {key: record.get(key) for key in ("step", "prompt", "text")}
        for record in samples
        if record["step"] == samples[-1]["step"]
    ]


def _speed(course: Course) -> dict[str, Any]:
    """Medians over the steps; the highest memory."""
    found: dict[str, Any] = {}
    for name in ("tokens_per_second", "mfu", "mfu_gemm"):
        values = course.values(name)
        found[name] = round(statistics.median(values), 4) if values else None
    found["memory_bytes"] = max((int(value) for value in course.values("memory_bytes")), default=None)
    return found


def _energy(course: Course) -> float | None:
    readings = course.values("energy_kwh")
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
