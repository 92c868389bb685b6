"""What a draft layer brings: acceptance and speed on Portuguese of several kinds, and what a guess costs.

    python benchmarks/drafts.py texts EXPORT... --kind machado=PREPARED --kind docs=PREPARED
    python benchmarks/drafts.py costs --size 85m
    python benchmarks/drafts.py imposed EXPORT

`texts` continues the beginnings of held-out works with and without the layer, in turns; EXPORT has one
(`ptbr-slm draft`). `costs` measures passes over one and more tokens, and a guess, on random weights, and
computes the gain at given acceptances. `imposed` generates with random weights while a chosen part of the
guesses is replaced by what comes next: the whole runtime's gain. All write their table into
docs/benchmarks.md with --write.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from machine import facts
from results import command, progress, table, write_section

from ptbr_slm.data.prepared import PreparedData
from ptbr_slm.runtime.drafting.layer import DraftScores
from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.engines.onnx.providers.cpu import thread_count
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import TokenPrompt

PACKAGES = ("onnxruntime", "numpy")
SAMPLINGS: dict[str, dict[str, float]] = {
    "greedy": {"temperature": 0.0},
    "temperature 0.8, top-p 0.95": {"temperature": 0.8, "top_p": 0.95, "seed": 1},
}
USES = ("never", "always", "auto")
ACCEPTANCES = (0.3, 0.4, 0.5, 0.6, 0.7)
PASSES = (1, 2, 3, 4, 5, 9)
"""Tokens of the passes that are timed."""
_SETTLED = 2
"""Rounds before those that count, after which what comes next is known."""
_COSTS_AFTER = 256
"""Tokens before those passes."""


@dataclass(slots=True)
class Runs:
    """All continuations of one kind of text, in one way of sampling, with one use of the layer."""

    tokens: list[tuple[int, ...]] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0
    seconds: float = 0.0
    """Of decoding."""
    decoded: int = 0
    """Tokens after the first of each text."""

    @property
    def speed(self) -> float:
        """Tokens per second."""
        return self.decoded / self.seconds


def texts(arguments: argparse.Namespace) -> str:
    """The table of `texts`."""
    header = ["", "accepted", "tokens/s without", "always", "auto", "auto / without", "same texts"]
    rows = []
    for path in arguments.exports:
        with Model(path) as model:
            if model.engine.draft_acceptance is None:
                sys.exit(f"{path} não tem camada de rascunho")
            name = f"{path.name}"
            for kind, prompts in kinds(arguments):
                for sampling, options in SAMPLINGS.items():
                    runs = _continued(model, prompts, options, arguments.tokens)
                    rows.append([f"{name}, {kind}, {sampling}", *_cells(runs)])
                    progress(" | ".join(rows[-1]))
    about = (
        f"{arguments.prompts} beginnings of {arguments.prompt_tokens} tokens a kind, {arguments.tokens} "
        "tokens each, in turns. Accepted: part of the guesses that the sampler then chose, a guess in every "
        "step. Same texts: of those with a guess in every step, token for token those without."
    )
    return f"{about}\n\n{table(header, rows)}"


def kinds(arguments: argparse.Namespace) -> list[tuple[str, list[TokenPrompt]]]:
    """The beginnings of each kind: windows spread over its text."""
    found = []
    for given in arguments.kind:
        kind, _, folder = given.partition("=")
        split = PreparedData.open(Path(folder), verify=False).split("train")
        starts = np.linspace(0, split.tokens - arguments.prompt_tokens, arguments.prompts).astype(int)
        windows = [split.read(int(start), int(start) + arguments.prompt_tokens) for start in starts]
        found.append((kind, [TokenPrompt(tuple(window.tolist())) for window in windows]))
    return found


def _continued(
    model: Model, prompts: Sequence[TokenPrompt], options: dict[str, float], tokens: int
) -> dict[str, Runs]:
    """Every prompt with every use of the layer, in turns; one round to warm up."""
    runs = {use: Runs() for use in USES}
    for use in USES:
        model.generate_detailed(prompts[0], max_new_tokens=16, draft=use, ignore_eos=True)
    for prompt in prompts:
        for use in USES:
            result = model.generate_detailed(
                prompt, max_new_tokens=tokens, draft=use, ignore_eos=True, **options
            )
            run = runs[use]
            run.tokens.append(result.tokens)
            run.drafted += result.drafted
            run.accepted += result.accepted
            run.seconds += result.decode_s
            run.decoded += len(result.tokens) - 1
    return runs


def _cells(runs: dict[str, Runs]) -> list[str]:
    plain, always, auto = (runs[use] for use in USES)
    same = sum(one == other for one, other in zip(plain.tokens, always.tokens, strict=True))
    return [
        f"{always.accepted / max(1, always.drafted):.2f}",
        f"{plain.speed:.0f}",
        f"{always.speed:.0f}",
        f"{auto.speed:.0f}",
        f"{auto.speed / plain.speed:.2f}",
        f"{same} of {len(plain.tokens)}",
    ]


def costs(arguments: argparse.Namespace) -> str:
    """The table of `costs`."""
    rows = []
    for precision in arguments.precisions:
        folder = _random_export(arguments.folder, arguments.size, precision)
        if arguments.only_build:
            continue
        engine = OnnxEngine(folder, "cpu")
        measured = _measured(engine, arguments.rounds)
        engine.close()
        step, guess = measured[1], measured[0]
        two = (measured[2] + guess) / step
        rows.append([
            f"{arguments.size} {precision}", f"{1000 * step:.2f} ms",
            *(f"{measured[size] / step:.2f}" for size in PASSES[1:]), f"{guess / step:.3f}",
            *(f"{(1 + p) / two:.2f}" for p in ACCEPTANCES),
        ])  # fmt: skip
        progress(" | ".join(rows[-1]))
    header = [
        "random weights", "a step", *(f"{size} tokens" for size in PASSES[1:]), "a guess",
        *(f"gain at {p}" for p in ACCEPTANCES),
    ]  # fmt: skip
    about = (
        f"After {_COSTS_AFTER} tokens, medians of {arguments.rounds} rounds in turns, in steps of one "
        "token: measured. The gain at an acceptance p is computed, (1 + p) / (two tokens + a guess)."
    )
    return f"{about}\n\n{table(header, rows)}"


def _measured(engine: OnnxEngine, rounds: int) -> dict[int, float]:
    """Median seconds of a pass over each of `PASSES` tokens, and of a guess (0)."""
    draw = np.random.default_rng(0)
    prompt = draw.integers(5, engine.config.vocab_size, _COSTS_AFTER).tolist()
    engine.reset(1, 512)
    engine.prefill(0, prompt)
    times: dict[int, list[float]] = {size: [] for size in (0, *PASSES)}
    for _ in range(rounds + 3):
        for size in PASSES:
            tokens = draw.integers(5, engine.config.vocab_size, size).tolist()
            if size == 1:
                run: Callable[[], object] = partial(engine.decode, [0], tokens, lent=True)
            else:
                run = partial(engine.extend, 0, tokens, lent=True)
            times[size].append(_timed(run))
            if size == 2:
                times[0].append(_timed(partial(engine.draft, 0, 7)))
            engine.truncate(0, len(prompt))
    return {size: statistics.median(found[3:]) for size, found in times.items()}


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


class Imposed:
    """A draft layer's guesses, a chosen part of which is made right; its session runs all the same."""

    def __init__(self, engine: OnnxEngine, prompt: int) -> None:
        """prompt: tokens of the text that come before the `known` ones."""
        self.known: list[int] = []
        self._engine, self._real, self._prompt = engine, engine.draft, prompt
        self.begin(0.0)

    def begin(self, acceptance: float) -> None:
        """A text of which that part of the guesses comes true."""
        self._acceptance, self._chance = acceptance, np.random.default_rng(1)

    def __call__(self, slot: int, token: int) -> DraftScores | None:
        """As `Engine.draft`."""
        found = self._real(slot, token)
        at = self._engine.length(slot) + 1 - self._prompt  # of the token after `token`
        right = at < len(self.known) and self._chance.random() < self._acceptance
        guess = self.known[at] if right else 0
        return found and DraftScores(np.array([guess]), np.array([1.0], dtype=np.float32))


def imposed(arguments: argparse.Namespace) -> str:
    """The table of `imposed`: tokens per second of whole greedy texts."""
    rows = []
    for path in arguments.exports:
        with Model(path) as model:
            engine = model.engine
            assert isinstance(engine, OnnxEngine)
            ids = np.random.default_rng(0).integers(5, engine.config.vocab_size, 64).tolist()
            guesses = Imposed(engine, len(ids))
            engine.draft = guesses  # type: ignore[method-assign]
            for acceptance in (0.0, *arguments.acceptances):
                rows.append(
                    [f"{path.name}, {acceptance}", *_imposed(model, ids, guesses, acceptance, arguments)]
                )
                progress(" | ".join(rows[-1]))
    header = ["asked for", "accepted", "tokens/s without", "always", "auto", "auto / without"]
    about = f"Greedy texts of {arguments.tokens} tokens, medians of {arguments.rounds} rounds in turns."
    return f"{about}\n\n{table(header, rows)}"


def _imposed(
    model: Model, ids: list[int], guesses: Imposed, acceptance: float, arguments: argparse.Namespace
) -> list[str]:
    """The cells of one acceptance."""
    speeds: dict[str, list[float]] = {use: [] for use in USES}
    shares = []
    known: dict[str, list[int]] = {use: [] for use in USES}
    for turn in range(_SETTLED + arguments.rounds):
        for use in USES:
            # Each use's own last text: in int4 two rows at once round another way, and texts part somewhere.
            guesses.known = known[use]
            guesses.begin(acceptance)
            result = model.generate_detailed(
                TokenPrompt(tuple(ids)),
                draft=use,  # type: ignore[arg-type]
                max_new_tokens=arguments.tokens,
                temperature=0.0,
                ignore_eos=True,
            )
            known[use] = list(result.tokens)
            if turn >= _SETTLED:
                speeds[use].append(result.tokens_per_second)
                shares += [result.accepted / result.drafted] if use == "always" else []
    plain, always, auto = (statistics.median(speeds[use]) for use in USES)
    share = statistics.median(shares)
    return [f"{share:.2f}", f"{plain:.0f}", f"{always:.0f}", f"{auto:.0f}", f"{auto / plain:.2f}"]


def _random_export(folder: Path, size: str, precision: str) -> Path:
    """An export of random weights with a random draft layer, made once."""
    from ptbr_slm_export import export_model

    from ptbr_slm.bench.synthetic import write_random_model
    from ptbr_slm.config import model_config
    from ptbr_slm.storage.draft_folder import FOLDER, DraftConfig, write_draft
    from ptbr_slm.storage.model_folder import ModelFolder

    model, out = folder / size, folder / f"{size}-{precision}"
    if out.exists():
        return out
    if not model.exists():
        write_random_model(model, model_config(size))
    source = ModelFolder(model)
    if not (model / FOLDER).exists():
        config = source.config
        shape = DraftConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.hidden_size,
            head_tokens=4096,
            vocab_size=config.vocab_size,
            norm_eps=config.norm_eps,
        )
        draw = np.random.default_rng(0)
        weights = {
            name: draw.standard_normal(form, dtype=np.float32) * 0.02 for name, form in shape.shapes.items()
        }
        write_draft(
            model / FOLDER, shape, weights, np.arange(4096, dtype=np.int64), {"model_sha256": source.sha256}
        )
    method = "rtn" if precision in ("int8", "int4") else None
    export_model(source, out, precision=precision, method=method, verify=False)
    return out


def main() -> None:
    arguments = _arguments()
    body = {"texts": texts, "costs": costs, "imposed": imposed}[arguments.what](arguments)
    report = "\n\n".join([f"`{command()}`", facts(PACKAGES, thread_count()), body])
    sys.stdout.write(report + "\n")
    if arguments.write:
        threads = f"-{thread_count()}" if arguments.what != "texts" else ""
        write_section(f"drafts-{arguments.what}{threads}", report)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parts = parser.add_subparsers(dest="what", required=True)
    of_texts = parts.add_parser("texts")
    of_texts.add_argument("exports", nargs="+", type=Path, metavar="EXPORT")
    of_texts.add_argument("--kind", action="append", required=True, metavar="NAME=PREPARED")
    of_texts.add_argument("--prompts", type=int, default=12)
    of_texts.add_argument("--tokens", type=int, default=128)
    of_costs = parts.add_parser("costs")
    of_costs.add_argument("--size", default="85m")
    of_costs.add_argument("--precisions", nargs="+", default=["int4", "int8"])
    of_costs.add_argument("--rounds", type=int, default=40)
    of_costs.add_argument("--folder", type=Path, default=Path("models/benchmark/drafts"))
    of_costs.add_argument("--only-build", action="store_true", help="make the exports, and measure nothing")
    of_imposed = parts.add_parser("imposed")
    of_imposed.add_argument("exports", nargs="+", type=Path, metavar="EXPORT")
    of_imposed.add_argument("--acceptances", nargs="+", type=float, default=[0.3, 0.45, 0.6, 0.75])
    of_imposed.add_argument("--rounds", type=int, default=3)
    of_imposed.add_argument("--tokens", type=int, default=192)
    return parser.parse_args()


if __name__ == "__main__":
    main()
