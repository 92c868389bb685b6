"""What guessing from the text's own past saves: decode with and without `lookahead`, in turns.

    python benchmarks/lookup.py                       # the exports that benchmarks/inference.py made
    python benchmarks/lookup.py EXPORT... --write     # others, and into docs/benchmarks.md

Three texts: a greedy one, which with random weights soon goes in circles, so that nearly every guess is
right; one imposed by a regular expression (what a form forces need not be guessed); and one drawn freely
that repeats nothing, the worst case.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from machine import facts
from results import command, spread, table, write_section

from ptbr_slm.runtime.engines.onnx.providers.cpu import thread_count
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.results import GenerationResult

PACKAGES = ("onnxruntime", "llguidance", "numpy")

TEXT = (
    "A reunião do conselho do bairro começou às sete da noite, no salão da escola. O presidente leu a ata da "
    "reunião anterior, que foi aprovada sem mudanças. Em seguida, a tesoureira apresentou as contas do mês: "
    "entraram doze mil reais, saíram nove mil e quinhentos, e o saldo vai para o conserto do telhado. "
)
"""Written for this benchmark."""


def main() -> None:
    arguments = _arguments()
    missing = [path for path in arguments.exports if not (path / "model.onnx").exists()]
    if missing:
        sys.exit(f"não há export em {missing[0]}: rode antes  python benchmarks/inference.py")
    rows = []
    for path in arguments.exports:
        with Model(path) as model:
            rows += _rows(model, path, arguments)
    header = ["", "tokens/s without", f"with lookahead {arguments.lookahead}", "ratio", "drafted", "accepted"]
    about = f"{arguments.tokens} tokens at most, {arguments.rounds} rounds, medians (smallest-largest)."
    text = "\n\n".join([f"`{command()}`", facts(PACKAGES, thread_count()), about, table(header, rows)])
    sys.stdout.write(text + "\n")
    if arguments.write:
        write_section("lookup", text)


def _rows(model: Model, path: Path, arguments: argparse.Namespace) -> list[list[str]]:
    rows = []
    for name, options in (
        ("goes in circles", {"temperature": 0.0}),
        ("imposed by a form", {"regex": re.escape(TEXT.strip()), "temperature": 0.0}),
        ("repeats nothing", {"temperature": 1.0, "top_p": 1.0, "seed": 1}),
    ):
        plain, guessing = [], []
        for _ in range(arguments.rounds):
            for results, lookahead in ((plain, 0), (guessing, arguments.lookahead)):
                results.append(_write(model, arguments.tokens, lookahead, options))
        sys.stderr.write(f"{path}: {name}\n")
        speeds = [[result.tokens_per_second for result in results] for results in (plain, guessing)]
        middle = [sorted(values)[len(values) // 2] for values in speeds]
        found = guessing[0]
        rows.append(
            [
                f"{path.parent.name} {path.name}, {name}",
                spread(speeds[0]),
                spread(speeds[1]),
                f"{middle[1] / middle[0]:.2f}",
                str(found.drafted),
                str(found.accepted),
            ]
        )
    return rows


def _write(model: Model, tokens: int, lookahead: int, options: dict[str, object]) -> GenerationResult:
    return model.generate_detailed(TEXT, max_new_tokens=tokens, lookahead=lookahead, **options)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made = [Path("models/benchmark/85m") / precision for precision in ("int4", "int8")]
    parser.add_argument("exports", nargs="*", type=Path, default=made, metavar="EXPORT")
    parser.add_argument("--lookahead", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    return parser.parse_args()


if __name__ == "__main__":
    main()
