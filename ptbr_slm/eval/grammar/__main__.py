"""`python -m ptbr_slm.eval.grammar [NAMES] [--pairs N]`: pairs for people to read and to sign off."""

from __future__ import annotations

import argparse
import random
import sys
import textwrap

from ptbr_slm.eval.grammar.suite import PhenomenonPairs, load


def page(phenomenon: PhenomenonPairs, pairs: int) -> str:
    """A phenomenon with some of its contrasts, drawn with a fixed seed, in Portuguese."""
    contrasts: dict[int, list[str]] = {}
    for pair in phenomenon.pairs:
        contrasts.setdefault(pair.contrast, []).append(
            f"  [ ] {pair.id}\n        {pair.good}\n      * {pair.bad}\n"
        )
    per_contrast = max(len(texts) for texts in contrasts.values())
    numbers = sorted(contrasts)
    chosen = random.Random(phenomenon.name).sample(numbers, min(len(numbers), max(1, pairs // per_contrast)))
    heading = f"{phenomenon.title} ({phenomenon.name}, {phenomenon.register})"
    facts = [phenomenon.rule, f"Fonte: {phenomenon.source}"]
    if phenomenon.caveat:
        facts.append(f"Limites: {phenomenon.caveat}")
    about = "\n".join(textwrap.fill(text, 78) for text in facts)
    body = "".join(text for number in sorted(chosen) for text in contrasts[number])
    return f"{heading}\n{'=' * len(heading)}\n{about}\n\n{body}\n"


def main() -> None:
    """Print the phenomena named, or all."""
    suite = load()
    names = [one.name for one in suite.phenomena]
    parser = argparse.ArgumentParser(
        prog="python -m ptbr_slm.eval.grammar",
        description=f"Pares da suíte de gramática {suite.version}, para conferir; * marca o errado.",
    )
    parser.add_argument("fenomenos", nargs="*", metavar="FENÔMENO", help=", ".join(names))
    parser.add_argument("--pairs", type=int, default=20, metavar="N", help="de cada um (padrão: 20)")
    given = parser.parse_args()
    unknown = [name for name in given.fenomenos if name not in names]
    if unknown:
        parser.error(f"não existe o fenômeno {unknown[0]}; os fenômenos são: {', '.join(names)}")
    for name in given.fenomenos or names:
        sys.stdout.write(page(suite[name], given.pairs))


if __name__ == "__main__":
    main()
