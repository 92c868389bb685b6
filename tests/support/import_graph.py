"""The imports between the modules of this repository, and the cycles among them.

Every import counts: at the top of a module, inside a function and under `TYPE_CHECKING`. Each package is
looked at by itself: its modules and sub-packages are nodes, and an import from below one of them to below
another is an edge. A cycle between two modules is then a cycle between two nodes of the package that holds
both, so that a repository whose packages have none has none at all.

    python tests/support/import_graph.py        prints the cycles of each package
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {"ptbr_slm": ROOT / "ptbr_slm", "ptbr_slm_export": ROOT / "export" / "ptbr_slm_export"}
"""Import package -> its folder. `ptbr_slm_export` stands beside the sub-packages of `ptbr_slm`: its command
uses it, and it uses the packages below."""

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module of the sources, a package under its own name, and its file."""
    found = {}
    for package, folder in SOURCES.items():
        for file in sorted(folder.rglob("*.py")):
            parts = (package, *file.relative_to(folder).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of each import in a file; the name is empty for `import module`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def module_graph() -> Graph:
    """Module -> the modules that it imports, wherever in the file."""
    known = modules()
    graph: Graph = {}
    for module, file in known.items():
        targets = {f"{name}.{part}" if f"{name}.{part}" in known else name for name, part in imports(file)}
        graph[module] = {target for target in targets if target in known and target != module}
    return graph


def package_graphs(graph: Mapping[str, Iterable[str]]) -> dict[str, Graph]:
    """Package -> the graph of what lies directly in it. The root holds ptbr_slm's children and the export
    package.
    """
    found: dict[str, Graph] = defaultdict(lambda: defaultdict(set))
    for source, targets in graph.items():
        for target in targets:
            a, b = _path(source), _path(target)
            depth = next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), None)
            if depth is None:  # a package and a module inside it
                depth = min(len(a), len(b))
                a, b = (*a, "__init__"), (*b, "__init__")
            found[".".join(a[:depth])][a[depth]].add(b[depth])
    return {package: dict(children) for package, children in found.items()}


def _path(module: str) -> tuple[str, ...]:
    """Below one root, with ptbr_slm's own name left out."""
    parts = tuple(module.split("."))
    return parts[1:] if parts[0] == "ptbr_slm" else parts


def cycles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan, 1972), each sorted."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            component = [stack.pop()]
            while component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def main() -> int:
    """Print the cycles; the number of modules in module cycles first."""
    graph = module_graph()
    tangled = cycles(graph)
    print(f"{len(graph)} modules; {len(tangled)} cycles of modules, {sum(map(len, tangled))} modules in them")
    total = 0
    for package, children in sorted(package_graphs(graph).items()):
        for cycle in cycles(children):
            total += 1
            print(f"{package or 'ptbr_slm'}: {' '.join(cycle)}")
            for source in cycle:
                for target in sorted(set(children.get(source, ())) & set(cycle)):
                    print(f"    {source} -> {target}")
    print(f"{total} cycles between the parts of a package")
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
