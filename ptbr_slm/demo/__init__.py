"""The model that comes with the package: wherever a model's folder is wanted, `machado` opens it.

examples/modelo_de_demonstracao.py makes it; its card, machado/README.md, says what it is and is not.
"""

from __future__ import annotations

from pathlib import Path

MACHADO = "machado"
"""Its name."""
FOLDER = Path(__file__).parent / MACHADO

INTRODUCTION = (
    "machado, o modelo de demonstração do pacote: continua textos como um narrador do século XIX, "
    "e não sabe responder nem informar."
)
"""What a person is told who opens it without having named it."""

HIDDEN = f" Ou rode de outra pasta: a que se chama {MACHADO} aqui vale antes do modelo do pacote."
"""What to add where the user's folder of that name has no model."""


def model_path(path: Path | str) -> Path:
    """The folder that `path` names: the package's for `machado`, else `path` itself.

    Whatever the current folder has under that name wins.
    """
    if str(path) == MACHADO and not Path(path).exists():
        return FOLDER
    return Path(path)
