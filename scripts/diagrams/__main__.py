"""Draw the diagrams of the documentation:  python scripts/diagrams [--check]."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT)]

import data_path  # noqa: E402
import generation_step  # noqa: E402
import layers  # noqa: E402
import training_step  # noqa: E402

IMAGES = ROOT / "docs" / "img"
DIAGRAMS = {
    "caminho-dados.svg": data_path.draw,
    "camadas.svg": layers.draw,
    "passo-treino.svg": training_step.draw,
    "passo-geracao.svg": generation_step.draw,
}


def main() -> int:
    """Write the files, or with --check say which of them are not up to date."""
    drawn = {IMAGES / name: draw() for name, draw in DIAGRAMS.items()}
    if "--check" not in sys.argv[1:]:
        for file, text in drawn.items():
            file.write_text(text, encoding="utf-8")
        return 0
    stale = [
        file.name for file, text in drawn.items() if not file.is_file() or file.read_text("utf-8") != text
    ]
    if stale:
        print(f"desatualizados: {', '.join(stale)}; rode  python scripts/diagrams", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
