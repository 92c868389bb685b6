"""Measured speed for a plan: from `bench train`, from `bench gpu`, or from a session of the run itself.

What is taken over is a ratio, measured over computed: a file of one card also tells of two. No torch here.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.train.config_file import load_values
from ptbr_slm.train.run_folder import CONFIG, METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Where it was measured, and what."""

    source: Path
    ratios: Mapping[str, float] = field(default_factory=dict)
    """Size -> measured over computed tokens/s."""
    run: tuple[str, float] | None = None
    """Size and tokens/s of a training."""

    def ratio(self, size: str, computed: float) -> float:
        """Measured over computed tokens/s of a size; of the others' mean where it was not measured itself.

        computed: tokens/s of the plan, which a run is compared with. Raises E_USAGE for another size's run.
        """
        if self.run is not None:
            name, speed = self.run
            if name != size:
                raise _unfit(self.source, f"é de um treino do {name}, e o plano é do {size}.")
            return speed / computed
        if size in self.ratios:
            return self.ratios[size]
        return math.exp(statistics.fmean(math.log(ratio) for ratio in self.ratios.values()))


def read_measured(path: Path) -> Measured:
    """bench-train.json, gpu.json, or the folder of a run. Raises E_NOT_FOUND, E_USAGE for anything else."""
    if path.is_dir():
        return _of_run(path)
    with os_errors(path):
        text = path.read_text(encoding="utf-8")
    try:
        body = json.loads(text)
        found = _of_bench(body["results"]) if "results" in body else _of_check(body["sections"])
    except (ValueError, KeyError, TypeError) as error:
        raise _unfit(path, "não é um resultado de bench train nem de bench gpu.") from error
    if not found:
        raise _unfit(path, "não tem nenhuma velocidade de treino medida.")
    return Measured(source=path, ratios=found)


def _of_bench(results: list[dict[str, Any]]) -> dict[str, float]:
    """The planner's own setting of each size; on all cards where that was measured, which comes first."""
    found: dict[str, float] = {}
    for result in results:
        ratio = _ratio(result)
        if ratio is not None and not result["case"]["compile"]:
            found.setdefault(result["case"]["size"], ratio)
    return found


def _of_check(sections: list[dict[str, Any]]) -> dict[str, float]:
    """Sections `speed`, a card, and `ranks`, two, which counts more."""
    found: dict[str, float] = {}
    for name in ("speed", "ranks"):
        for section in sections:
            for line in section["lines"] if section["name"] == name else ():
                ratio = _ratio(line["figures"])
                if ratio is not None:
                    found[line["name"].partition(",")[0]] = ratio
    return found


def _ratio(figures: Mapping[str, Any]) -> float | None:
    measured, computed = (figures.get(f"{kind}tokens_per_second") for kind in ("", "predicted_"))
    return measured / computed if measured and computed else None


def _of_run(folder: Path) -> Measured:
    """The median of the later half of its steps."""
    file = folder / METRICS
    with os_errors(file):
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    speeds = [
        r["tokens_per_second"] for r in records if r.get("event") == "step" and r.get("tokens_per_second")
    ]
    size = load_values(folder / CONFIG).get("model_size")
    if not speeds or size is None:
        raise _unfit(folder, "não tem passos com a velocidade medida, de um tamanho com nome.")
    return Measured(source=folder, run=(size, statistics.median(speeds[len(speeds) // 2 :])))


def _unfit(path: Path, why: str) -> SlmError:
    return SlmError(
        "E_USAGE",
        f"este arquivo {why}",
        where=path,
        hint="Dê a --measured um bench-train.json, um gpu.json ou a pasta de um treino deste tamanho.",
    )
