"""docs/img/camadas.svg: who stands above whom, from the imports and the table of the layer tests.

A package stands above all that it imports: its row is the longest path of imports below it. The parts inside
a package are in the floors of `FLOORS`, which tests/test_layers.py holds the imports against.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

from canvas import LINE, WIDTH, Canvas
from import_graph import SOURCES, module_graph, package_graphs
from layer_rules import FLOORS, FORBIDDEN

ROLES = {
    "cli": "os comandos",
    "bench": "mede esta máquina",
    "doctor": "examina a máquina",
    "tune": "ensina a responder",
    "ptbr_slm_export": "ONNX, GGUF e a conferência",
    "serve": "a API da OpenAI",
    "train": "treina",
    "app": "a página",
    "eval": "mede um modelo",
    "demo": "o modelo que já vem",
    "runtime": "gera texto",
    "chat": "a forma das conversas",
    "data": "dos textos aos tokens",
    "kaggle": "o caderno",
    "storage": "arquivos que resistem",
    "tokenizer": "texto e tokens",
}
"""What a package does, for its box."""
INSIDE, GAP = WIDTH - 48, 10
LETTERS = 17
"""That fit in a line of a column of floors."""


def draw() -> str:
    """The file's text. Raises KeyError for a package without a role."""
    canvas = Canvas(
        "As camadas do código",
        "Cada pacote fica acima de tudo o que importa: os comandos em cima, o que nada importa embaixo. "
        "Dentro de chat, train, tune, runtime e export as partes também ficam em andares.",
    )
    canvas.text(24, 36, "Os pacotes: cada um só importa o que está abaixo dele", "head", "start")
    y = _legend(canvas, 52) + GAP
    for row in rows():
        y = _row(canvas, y, row) + GAP
    y += 26
    canvas.text(24, y, "Dentro deles: os andares de cada um, o mais baixo embaixo", "head", "start")
    width = (INSIDE - GAP * (len(FLOORS) - 1)) / len(FLOORS)
    for number, (package, floors) in enumerate(FLOORS.items()):
        _column(canvas, 24 + number * (width + GAP), y + 32, width, package, floors)
    return canvas.render()


def rows() -> list[list[str]]:
    """The parts of the root by the longest path of imports below them, the highest first."""
    graph = package_graphs(module_graph())[""]

    @cache
    def height(part: str) -> int:
        return 1 + max((height(below) for below in graph.get(part, ())), default=-1)

    found: dict[int, list[str]] = defaultdict(list)
    for part in set(graph).union(*graph.values()) - {"__main__", "__init__"}:
        found[height(part)].append(part)
    return [sorted(found[number]) for number in sorted(found, reverse=True)]


def never_imports_torch(package: str) -> bool:
    """Whether the table forbids it."""
    folder = "export/ptbr_slm_export" if package == "ptbr_slm_export" else f"ptbr_slm/{package}"
    return "torch" in FORBIDDEN.get(folder, ())


def _legend(canvas: Canvas, y: float) -> float:
    canvas.box(24, y, 330, "nunca importa o PyTorch")
    y = canvas.box(366, y, 330, "pode importar o PyTorch", (), "file")
    canvas.text(
        WIDTH / 2,
        y + LINE,
        "o runtime tem um só arquivo que o importa, para abrir a pasta de um treino",
        "soft",
    )
    return y + LINE


def _row(canvas: Canvas, y: float, row: Sequence[str]) -> float:
    """One height: a box for each package, and a line with the names of single files."""
    packages = [part for part in row if is_folder(part)]
    files = [f"{part}.py" for part in row if part not in packages]
    bottom = y
    width = (INSIDE - GAP * (len(packages) - 1)) / max(len(packages), 1)
    for number, package in enumerate(packages):
        kind = "part" if never_imports_torch(package) else "file"
        bottom = canvas.box(24 + number * (width + GAP), y, width, package, (ROLES[package],), kind)
    for line in wrapped(files, 86):
        bottom += LINE
        canvas.text(WIDTH / 2, bottom, line, "soft")
    return bottom


def is_folder(part: str) -> bool:
    """Whether a part of the root is a package, and not a single file."""
    return part in SOURCES or (SOURCES["ptbr_slm"] / part).is_dir()


def _column(
    canvas: Canvas, x: float, y: float, width: float, package: str, floors: Sequence[Iterable[str]]
) -> None:
    """A package's floors, the highest on top."""
    canvas.text(x + width / 2, y, package.removeprefix("ptbr_slm.").removeprefix("ptbr_slm_"), "name")
    y += 10
    for floor in reversed(floors):
        y = canvas.lines(x, y, width, wrapped(sorted(floor), LETTERS)) + 6


def wrapped(names: Iterable[str], letters: int) -> list[str]:
    """The names, with commas, in lines of about so many letters."""
    lines: list[str] = []
    for name in names:
        if lines and len(lines[-1]) + len(name) + 2 <= letters:
            lines[-1] += f", {name}"
        else:
            lines.append(name)
    return lines
