"""What each way of quantising costs a trained model: bits per byte and size, ours and llama.cpp's.

    python benchmarks/quantization.py MODEL --data DATA            # the table on the terminal
    python benchmarks/quantization.py MODEL --data DATA --write    # and into docs/benchmarks.md

MODEL is a model folder, DATA prepared data of works it never saw, of which the valid part is read. Calibrated
methods read the training data of the run that MODEL lies in, or --calibration. llama.cpp's rows need the
environment of benchmarks/requirements.txt and are left out without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from machine import facts
from ptbr_slm_export import export_model
from ptbr_slm_export.measure import decode_speed
from ptbr_slm_export.quantization.recipe import Precision, Recipe, recipe_for
from ptbr_slm_export.quantization.sensitivity import divergence, log_softmax
from ptbr_slm_export.verification.stored_weights import StoredWeights
from results import command, progress, table, write_section

from ptbr_slm.eval.bits import UNCOUNTED, HeldOut, surprises
from ptbr_slm.eval.held_out import held_out_text
from ptbr_slm.runtime.load import open_engine
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.weights import WeightReader

Floats = npt.NDArray[np.float32]
Nats = npt.NDArray[np.float64]
"""Of each window of the held-out text, (windows,)."""
COMPARED = 40
"""Windows whose predictions are kept and compared with fp32's: (T, V) numbers each."""
RECIPES: tuple[tuple[Precision, dict[str, object]], ...] = (
    ("fp32", {}),
    *(("int8", {"method": method}) for method in ("rtn", "search", "gptq")),
    ("int4", {}),
    *(("int4", {"head": head}) for head in ("int8", "int4")),
    *(("int4", {"head_rescored": best}) for best in (128, 256)),
    ("int4", {"mixed_extra": 0.125}),
    *(("int4", {"block": 64, "method": m}) for m in ("rtn", "search", "hqq", "kquant", "gptq")),
    *(("int4", {"block": block}) for block in (32, 128)),
    *(("int4", {"method": method}) for method in ("rtn", "search")),
    ("int4", {"head": "int4", "head_block": 32}),
    ("int4", {"head": "int4", "method": "search"}),
)
"""What is tried, by precision and what of its recipe differs from the default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One way of storing the model, measured."""

    name: str
    bytes: int
    weight_error: float | None
    """Mean relative error of the matrices in the layers."""
    nats: Nats
    divergence: float
    """Mean KL divergence from the fp32 model's predictions, nats a token: what ranks methods that are close,
    as rounding moves the loss itself up or down by chance (docs/decisions/0128-order-and-descent.md)."""
    speed: float
    """Tokens per second of decoding."""


class Judge:
    """Reads the held-out text with one way of storing the model after another; the first is the reference."""

    def __init__(self, text: HeldOut) -> None:
        self.text = text
        self._reference: list[Floats] = []

    def read(self, logits: Callable[[Sequence[int]], Floats]) -> tuple[Nats, float]:
        """Nats of each window, summed over the targets that count, and the divergence (see `Row`)."""
        nats, divergences, first = [], [], not self._reference
        for number, (inputs, targets) in enumerate(self.text.windows()):
            found = logits(inputs.tolist())  # (T, V)
            nats.append(surprises(found, np.maximum(targets, 0))[targets != UNCOUNTED].sum())
            if number >= COMPARED:
                continue
            predicted = log_softmax(found)
            if first:
                self._reference.append(predicted)
            divergences.append(divergence(self._reference[number], predicted) / len(predicted))
        return np.array(nats), float(np.mean(divergences))


def main() -> None:
    arguments = _arguments()
    model = ModelFolder(arguments.model)
    config = model.config
    text = held_out_text(model, data=arguments.data, tokens=arguments.tokens)
    about, judge = facts(("onnxruntime", "numpy"), 1), Judge(text)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        rows = []
        for number, (precision, changes) in enumerate(RECIPES):
            out = Path(scratch) / str(number)
            rows.append(_ours(arguments.model, out, precision, changes, arguments.calibration, judge))
        rows += _llama_cpp(arguments.model, Path(scratch), judge)
    size, targets = text.bytes, text.counted
    report = (
        f"`{command()}`\n\n{about}\n\nA model of {config.num_parameters / 1e6:.1f}M parameters "
        f"({config.num_layers} layers of {config.hidden_size}, vocabulary {config.vocab_size:,}), judged on "
        f"{targets:,} tokens ({size:,} bytes) of works that it never saw; the change is relative to fp32, "
        "with the standard error of the change from window to window.\n\n" + _table(rows, size)
    )
    sys.stdout.write(report + "\n")
    if arguments.write:
        write_section(arguments.section, report)


def _ours(
    model: Path,
    out: Path,
    precision: Precision,
    changes: dict[str, object],
    calibration: Path | None,
    judge: Judge,
) -> Row:
    recipe = recipe_for(precision, **changes)  # type: ignore[arg-type]
    needs = recipe is not None and (recipe.mixed_extra > 0 or recipe.method in ("kquant", "gptq"))
    report = export_model(
        model,
        out,
        precision=precision,
        recipe=recipe,
        calibration=calibration if needs else None,
        verify=False,
    )
    engine = open_engine(out, "cpu")
    nats, apart = judge.read(engine.logits)
    speed = decode_speed(engine, judge.text.inputs[0].tolist())
    engine.close()
    error = _weight_error(out, model) if precision != "fp32" else None
    name = _name(precision, report.recipe)
    progress(f"{name}: {nats.mean():.4f} nats a window")
    return Row(name=name, bytes=report.bytes, weight_error=error, nats=nats, divergence=apart, speed=speed)


def _name(precision: str, recipe: Recipe | None) -> str:
    if recipe is None:
        return precision
    mixed = f", {len(recipe.mixed)} matrices int8" if recipe.mixed else ""
    head = f", head int{recipe.head_bits} b{recipe.head_block}"
    if recipe.head_rescored:
        head += f", best {recipe.head_rescored} again"
    return f"{precision} {recipe.method} b{recipe.block}{mixed}{head}"


def _llama_cpp(model: Path, folder: Path, judge: Judge) -> list[Row]:
    """llama.cpp's own quantisations of our f16 GGUF; logits of all positions through its Python package."""
    if importlib.util.find_spec("llama_cpp") is None:
        progress("llama_cpp is not installed: its rows are left out")
        return []
    import gguf_llama
    import llama_cpp
    from contestants import LlamaCpp
    from ptbr_slm_export.gguf.file import export_gguf

    gguf_llama.silence()
    full = folder / "F16.gguf"
    export_gguf(model, full, "fp16")
    rows = []
    for kind in ("F16", *gguf_llama.QUANTISATIONS):
        path = folder / f"{kind}.gguf"
        if kind != "F16":
            gguf_llama.quantise(full, path, kind)
        llama = llama_cpp.Llama(
            str(path), n_ctx=512, n_batch=512, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False
        )

        def logits(tokens: Sequence[int], llama: llama_cpp.Llama = llama) -> Floats:
            llama.reset()
            llama.eval(list(tokens))
            return np.array(llama.scores[: len(tokens)], dtype=np.float32)

        nats, apart = judge.read(logits)
        llama.close()
        player = LlamaCpp(path, capacity=512, threads=1)
        turns = [player.turn(judge.text.inputs[0, :32].tolist(), 64) for _ in range(3)]
        speed = 64 / statistics.median(turn.decode_s for turn in turns)
        size = path.stat().st_size
        progress(f"llama.cpp {kind}: {nats.mean():.4f} nats a window")
        rows.append(
            Row(
                name=f"llama.cpp {kind}", bytes=size, weight_error=None, nats=nats, divergence=apart,
                speed=speed,
            )
        )  # fmt: skip
    return rows


def _weight_error(export: Path, model: Path) -> float:
    """Mean over the layers' matrices of |stored - original| / |original|."""
    stored, source = StoredWeights(export / "model.onnx", ModelFolder(model).config), WeightReader(model)
    errors = []
    for name in stored.names():
        shape = stored.shape(name)
        if name.startswith("model.layers.") and len(shape) == 2:
            original = source.read(name, shape)
            errors.append(np.linalg.norm(stored.read(name, shape) - original) / np.linalg.norm(original))
    return float(np.mean(errors))


def _table(rows: Sequence[Row], size: int) -> str:
    reference = rows[0].nats
    lines = []
    for row in rows:
        change = (row.nats - reference) / reference.mean()
        error = change.std(ddof=1) / math.sqrt(len(change)) if len(change) > 1 else math.nan
        lines.append(
            [
                row.name,
                f"{row.bytes / 2**20:.2f}",
                f"{row.nats.sum() / math.log(2) / size:.4f}",
                f"{100 * change.mean():+.3f} ± {100 * error:.3f} %" if row is not rows[0] else "",
                f"{row.divergence:.5f}" if row is not rows[0] else "",
                "" if row.weight_error is None else f"{row.weight_error:.4f}",
                f"{row.speed:.0f}",
            ]
        )
    return table(["", "MiB", "bits per byte", "change", "KL", "weight error", "tokens/s"], lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="prepared data; its valid part is read")
    parser.add_argument("--calibration", type=Path, help="prepared data or text for kquant, gptq and mixed")
    parser.add_argument("--tokens", type=int, default=16384, help="targets of the held-out text")
    parser.add_argument("--folder", type=Path, help="where temporary exports go")
    parser.add_argument("--section", default="quantization", help="of docs/benchmarks.md")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
