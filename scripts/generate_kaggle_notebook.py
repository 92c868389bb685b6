"""Make examples/kaggle/treinar_no_kaggle.ipynb from its jupytext source, the file that people edit.

Usage: python scripts/generate_kaggle_notebook.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
import nbformat

SOURCE = Path(__file__).resolve().parent.parent / "examples" / "kaggle" / "treinar_no_kaggle.py"
NOTEBOOK = SOURCE.with_suffix(".ipynb")


def render() -> str:
    """The notebook: no outputs, and ids by position, so that the same source gives the same bytes."""
    notebook = jupytext.read(SOURCE)
    notebook.metadata.pop("jupytext", None)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"celula-{index:02d}"
    return nbformat.writes(notebook, indent=1) + "\n"


def main() -> int:
    """Write the notebook, or with --check say whether it is up to date."""
    if "--check" not in sys.argv[1:]:
        NOTEBOOK.write_text(render(), encoding="utf-8")
        return 0
    fresh = NOTEBOOK.is_file() and NOTEBOOK.read_text(encoding="utf-8") == render()
    if not fresh:
        print(
            "O caderno está desatualizado: rode  python scripts/generate_kaggle_notebook.py", file=sys.stderr
        )
    return 0 if fresh else 1


if __name__ == "__main__":
    sys.exit(main())
