"""The scaling law behind `ptbr-slm plan`: our small runs (scaling_runs.py), and four of others' large ones.

    python benchmarks/scaling_law.py --folder DIR           # table, laws for planning/scaling.py, errors
    python benchmarks/scaling_law.py --folder DIR --write   # and into docs/benchmarks.md

L = floor + size / N^a + data / D^b in bits per byte (Hoffmann et al., 2022, arXiv:2203.15556): for each pair
of exponents least squares with no negative part. Our runs alone cannot tell exponents and floor, and carried
on to sizes a hundred times larger they say almost anything; so four that others published are in the fit too,
with a wide deviation: other text, another tokenizer. Rivals are all laws within `RIVAL` of the best.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import facts
from results import command, table, write_section
from scaling_runs import read_points

from ptbr_slm.config import SIZES
from ptbr_slm.train.planning.scaling import Law

EXPONENTS = np.arange(0.04, 1.001, 0.03)
PARTS = 5
"""Of a law: floor, two factors, two exponents."""
LEAST_FLOOR = 0.3
"""Bits per byte; Hoffmann's 1.69 nats a token are about 0.58."""
OURS, THEIRS = 0.01, 0.08
"""Deviation of a run of ours (another seed moves it by half of that), and of one of others' here."""
RIVAL = 4.0
"""A rival's sum of squared deviations is above the best one's by no more: two standard deviations, which are
those above, or as much larger as the best law misses the runs by."""
TARGETS = (("85m", 4.4e9), ("160m", 2.4e9), ("400m", 1.0e9), ("85m", 3e8), ("nano", 1e7), ("mini", 5e7))
"""(size, tokens) where the rivals' ends are looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """A trained model, its loss, and how far that may be from what our text would have given."""

    name: str
    parameters: int
    tokens: float
    bits: float
    deviation: float


def tucano(name: str, parameters: float, tokens: float, nats: float) -> Observed:
    """A validation loss of Tucano's (arXiv:2411.07854) in bits per byte: its corpus, GigaVerbo, has 780 GB in
    about 200 billion tokens.
    """
    bits = nats / math.log(2) / 3.9
    return Observed(name=name, parameters=int(parameters), tokens=tokens, bits=bits, deviation=THEIRS)


PUBLISHED = (
    tucano("Tucano-160m", 162.4e6, 10.5e9, 2.658),
    tucano("Tucano-160m", 162.4e6, 157e9, 2.343),
    tucano("Tucano-630m", 630.3e6, 10.5e9, 2.409),
    tucano("Tucano-630m", 630.3e6, 199e9, 2.030),
)


@dataclass(frozen=True, slots=True)
class Fit:
    """A law, and the sum of squared deviations from what was observed."""

    law: Law
    misfit: float


def main() -> None:
    arguments = _arguments()
    ours = read_runs(arguments.folder)
    kept = rivals([*ours, *PUBLISHED])
    text = report(ours, kept)
    sys.stdout.write(f"{text}\n\nLAWS = (\n")
    for law in ends(kept):
        parts = (law.floor, law.size, law.size_exponent, law.data, law.data_exponent)
        sys.stdout.write(f"    Law({', '.join(f'{part:.6g}' for part in parts)}),\n")
    sys.stdout.write(")\n")
    if arguments.write:
        write_section("scaling", text)


def read_runs(folder: Path) -> list[Observed]:
    """The runs of scaling_runs.py."""
    return [
        Observed(name=p.size, parameters=p.parameters, tokens=p.tokens, bits=p.bits_per_byte, deviation=OURS)
        for p in read_points(folder)
    ]


def fit(runs: Sequence[Observed], size_exponent: float, data_exponent: float) -> Fit:
    """The best law with these exponents: no part negative, the floor not below `LEAST_FLOOR`."""
    sizes = np.array([run.parameters for run in runs], dtype=float)
    tokens = np.array([run.tokens for run in runs], dtype=float)
    weight = np.array([1 / run.deviation for run in runs])
    above = (np.array([run.bits for run in runs]) - LEAST_FLOOR) * weight
    columns = np.stack([np.ones_like(sizes), sizes**-size_exponent, tokens**-data_exponent], axis=1)
    scale = columns.max(axis=0)  # they differ by orders of magnitude
    columns = columns / scale * weight[:, None]
    best, parts = math.inf, np.zeros(3)
    for count in (1, 2, 3):
        for chosen in map(list, itertools.combinations(range(3), count)):
            found = np.linalg.lstsq(columns[:, chosen], above, rcond=None)[0]
            misfit = float(((columns[:, chosen] @ found - above) ** 2).sum())
            if misfit < best and (found >= 0).all():
                best, parts = misfit, np.zeros(3)
                parts[chosen] = found
    floor, size, data = (float(part) for part in parts / scale)
    return Fit(Law(LEAST_FLOOR + floor, size, size_exponent, data, data_exponent), best)


def rivals(runs: Sequence[Observed]) -> list[Fit]:
    """The best law, and after it those that explain the runs about as well."""
    pairs = itertools.product(EXPONENTS, EXPONENTS)
    found = sorted((fit(runs, float(a), float(b)) for a, b in pairs), key=lambda one: one.misfit)
    larger = max(1.0, found[0].misfit / max(1, len(runs) - PARTS))
    return [one for one in found if one.misfit <= found[0].misfit + RIVAL * larger]


def ends(kept: Sequence[Fit]) -> list[Law]:
    """The best law, and of its rivals those that are lowest or highest at one of `TARGETS`."""
    chosen = [kept[0].law]
    for size, tokens in TARGETS:
        parameters = SIZES[size].num_parameters
        order = sorted((one.law for one in kept), key=lambda law: law.bits_per_byte(parameters, tokens))
        chosen += [law for law in (order[0], order[-1]) if law not in chosen]
    return chosen


def left_out(ours: Sequence[Observed], others: Sequence[Observed] = PUBLISHED) -> list[float]:
    """Of each run of ours, what the best law says that is fitted on all the rest, minus what was measured."""
    errors = []
    for index, run in enumerate(ours):
        law = rivals([*ours[:index], *ours[index + 1 :], *others])[0].law
        errors.append(law.bits_per_byte(run.parameters, run.tokens) - run.bits)
    return errors


def report(ours: Sequence[Observed], kept: Sequence[Fit]) -> str:
    """The section of docs/benchmarks.md."""
    law, errors = kept[0].law, left_out(ours)
    rows = []
    for run, error in zip([*ours, *PUBLISHED], [*errors, *[None] * len(PUBLISHED)], strict=True):
        said = law.bits_per_byte(run.parameters, run.tokens)
        shape = [run.name, f"{run.parameters:,}", f"{run.tokens / 1e6:,.2f}M"]
        rows.append([*shape, f"{run.bits:.3f}", f"{said:.3f}", "" if error is None else f"{error:+.3f}"])
    runs = table(["", "parameters", "tokens", "bits per byte", "the law", "left out, error"], rows)
    header, alone = ["", "tokens", "the law", "rivals", "our runs alone"], rivals(ours)
    return "\n\n".join([
        f"`{command()}`", facts(("torch", "numpy"), 1), runs,
        f"The law: {law.floor:.3f} + {law.size:.4g} / N^{law.size_exponent:.2f} + {law.data:.4g} / "
        f"D^{law.data_exponent:.2f}. Left out one by one, our runs are predicted within "
        f"{math.sqrt(float(np.mean(np.square(errors)))):.3f} (root mean square; worst "
        f"{max(map(abs, errors)):.3f}). {len(kept)} pairs of exponents are rivals. What they say of the "
        "sizes that a plan is for, and what our runs alone would say, bits per byte, computed:",
        table(header, [_target(kept, alone, *target) for target in TARGETS]),
    ])  # fmt: skip


def _target(kept: Sequence[Fit], alone: Sequence[Fit], size: str, tokens: float) -> list[str]:
    parameters = SIZES[size].num_parameters
    first, both = kept[0].law.bits_per_byte(parameters, tokens), []
    for fits in (kept, alone):
        says = [one.law.bits_per_byte(parameters, tokens) for one in fits]
        both.append(f"{min(says):.2f} to {max(says):.2f}")
    return [size, f"{tokens / 1e6:,.0f}M", f"{first:.2f}", *both]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of scaling_runs.py")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
