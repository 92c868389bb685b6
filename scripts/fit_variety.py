"""Fit the weights of ptbr_slm/data/stages/variety.json on labelled texts, and say how they do elsewhere.

    python scripts/fit_variety.py PASTA [--write] [--test DOMÍNIO]

PASTA holds `domain.br.txt` and `domain.pt.txt`: a paragraph a line, an empty line between documents. Every
domain of a label weighs the same. Each domain is also left out once and predicted by the others; `--test`
names those that are only predicted. `--write` stores the weights; nothing of the texts is stored.

The stored weights come from both varieties of LibreOffice's help 7.4.7 (MPL-2.0), GNOME's user documentation
43 (CC BY-SA 3.0), Firefox ESR's language packs (MPL-2.0) and Microsoft's Intune documentation (CC BY 4.0);
European: Power BI's documentation (CC BY 4.0); Brazilian: the documentation of Python (CC0) and React
(CC BY 4.0), the Hugging Face course (Apache-2.0), and laws, bills and court decisions (official acts).
"""

from __future__ import annotations

import argparse
import json
import math
import random
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np

from ptbr_slm.data.stages.variety import SIGNS, count_signs

TARGET = Path(__file__).parents[1] / "ptbr_slm/data/stages/variety.json"
SIZES = (200, 500, 1000, 3000)
"""Lengths of the excerpts, in characters: calibration has to hold for short texts and long ones."""
MAX_EXCERPTS = 300
"""Of a domain, label and size."""
PENALTY = 0.004
"""Of squared distances from the weights before any data."""
Example = tuple[np.ndarray, float]


def main() -> None:
    """Read, fit, report, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--test", action="append", default=[], help="domain that is never fitted on")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    examples = {
        (domain, label): excerpts(path, random.Random(0))
        for path in sorted(arguments.folder.glob("*.txt"))
        for domain, label in [path.name.split(".")[:2]]
    }
    fitted = {key: found for key, found in examples.items() if key[0] not in arguments.test}
    weights = fit(fitted)
    for sign, weight in zip(SIGNS, weights, strict=True):
        print(f"{sign:16} {weight:+.2f}")
    print(
        "\ndomain label: accuracy where it answers, coverage, accuracy of the sign of the evidence; left out"
    )
    outside = []
    for domain in sorted({domain for domain, _ in examples}):
        others = fit({key: found for key, found in fitted.items() if key[0] != domain})
        for label in ("br", "pt"):
            if (domain, label) in examples:
                report(f"{domain} {label}", examples[domain, label], label, others)
                outside.append((examples[domain, label], label, others))
    print("\nprobability said, share right (domains left out, weighed alike)")
    print_calibration(outside)
    if arguments.write:
        body = {
            "fitted": date.today().isoformat(),
            "domains": sorted({domain for domain, _ in fitted}),
            "weights": {sign: round(float(weight), 3) for sign, weight in zip(SIGNS, weights, strict=True)},
        }
        TARGET.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def excerpts(path: Path, rng: random.Random) -> np.ndarray:
    """The features (N, signs) of excerpts of a file, up to `MAX_EXCERPTS` of each size."""
    documents = path.read_text(encoding="utf-8").split("\n\n")
    rng.shuffle(documents)
    features: list[list[float]] = []
    for size in SIZES:
        found = 0
        for document in documents:
            starts = range(0, max(len(document) - size // 2, 1), size)
            for start in rng.sample(starts, min(len(starts), 5)):
                counts = count_signs(document[start : start + size])
                features.append([math.log2(1 + counts[sign]) for sign in SIGNS])
                found += 1
            if found >= MAX_EXCERPTS:
                break
    return np.array(features)


def fit(examples: dict[tuple[str, str], np.ndarray]) -> np.ndarray:
    """Weights (signs,) of a logistic regression without a bias; none may go against its sign's side."""
    labels = [label for _, label in examples]
    features = np.concatenate(list(examples.values()))
    target = np.concatenate([np.full(len(x), float(key[1] == "br")) for key, x in examples.items()])
    weight = np.concatenate(
        [np.full(len(x), 1 / len(x) / labels.count(key[1])) for key, x in examples.items()]
    )
    weight /= weight.sum()
    prior = np.array(list(SIGNS.values()))
    weights, side = prior.copy(), np.sign(prior)
    for _ in range(3000):
        predicted = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (weight * (predicted - target)) + PENALTY * (weights - prior)
        weights -= 2.0 * gradient
        weights = side * np.maximum(side * weights, 0)
    return weights


def report(name: str, features: np.ndarray, label: str, weights: np.ndarray) -> None:
    """Print how one domain's excerpts of one label are judged."""
    right = probability_of(label, features, weights)
    answered = np.maximum(right, 1 - right) >= 0.9
    accuracy = (right[answered] > 0.5).mean() if answered.any() else float("nan")
    sign = ((right > 0.5) + 0.5 * (right == 0.5)).mean()
    print(f"{name:16} {len(right):5} {accuracy:.3f} {answered.mean():.3f} {sign:.3f}")


def print_calibration(outside: list[tuple[np.ndarray, str, np.ndarray]]) -> None:
    """Print, for bins of the probability of the likelier variety, how often it is right."""
    edges = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0001]
    for low, high in pairwise(edges):
        right = total = 0.0
        for features, label, weights in outside:
            probability = probability_of(label, features, weights)
            said = np.maximum(probability, 1 - probability)
            inside = (said >= low) & (said < high) & (probability != 0.5)
            total += inside.sum() / len(features)
            right += (inside & (probability > 0.5)).sum() / len(features)
        share = right / max(total, 1e-9)
        print(f"{low:.2f}-{min(high, 1):.2f} {share:.3f} ({total / len(outside):.3f} of the excerpts)")


def probability_of(label: str, features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probability (N,) of `label`."""
    brazilian = 1 / (1 + np.exp(-features @ weights))
    return np.asarray(brazilian if label == "br" else 1 - brazilian)


if __name__ == "__main__":
    main()
