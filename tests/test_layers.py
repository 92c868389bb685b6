"""The direction of imports and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import cycles, imports, module_graph, package_graphs
from layer_rules import ALLOWED_FILES, FLOORS, FORBIDDEN

ROOT = Path(__file__).resolve().parents[1]


def imported(source: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_lies_below_it(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    faults = []
    for file in files:
        allowed = ALLOWED_FILES.get(file.relative_to(ROOT).as_posix(), [])
        for name in imported(file):
            for banned in FORBIDDEN[package]:
                if (name == banned or name.startswith(banned + ".")) and banned not in allowed:
                    faults.append(f"{file.relative_to(ROOT)}: {name}")
    assert not faults


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import ptbr_slm",
        "import ptbr_slm.cli.main",
        "import ptbr_slm_export",
    ],
)
def test_importing_costs_neither_torch_nor_onnxruntime_nor_gradio(code):
    assert not loaded_after(code) & {
        "torch",
        "onnxruntime",
        "gradio",
        "transformers",
        "pyarrow",
        "matplotlib",
        "jinja2",
    }


@pytest.mark.parametrize("package", FLOORS)
def test_inside_a_package_imports_go_down(package):
    floor_of = {part: number for number, floor in enumerate(FLOORS[package]) for part in floor}
    imports = package_graphs(module_graph())[package.removeprefix("ptbr_slm.")]
    parts = set(imports).union(*imports.values())
    assert parts == set(floor_of), "a part without a floor, or a floor without its part"
    upward = [(a, b) for a, targets in imports.items() for b in targets if floor_of[b] > floor_of[a]]
    assert not upward


def test_no_part_of_any_package_imports_another_in_a_cycle():
    found = {package: cycles(children) for package, children in package_graphs(module_graph()).items()}
    assert {package: loops for package, loops in found.items() if loops} == {}


def test_nothing_below_the_loop_knows_the_trainer():
    users = {module for module, imported in module_graph().items() if "ptbr_slm.train.trainer" in imported}
    assert {module for module in users if module.startswith("ptbr_slm.train.")} == {
        "ptbr_slm.train.loop",
        "ptbr_slm.train.run",
    }


def test_a_cycle_is_found_wherever_the_import_stands(tmp_path):
    """The tool itself: one import under TYPE_CHECKING and one inside a function are two halves of a cycle."""
    (tmp_path / "a.py").write_text("if TYPE_CHECKING:\n    from package.b import x\n")
    (tmp_path / "b.py").write_text("def f():\n    import package.a\n")
    graph = {f"package.{file.stem}": {name for name, _ in imports(file)} for file in tmp_path.glob("*.py")}
    assert cycles(package_graphs(graph)["package"]) == [["a", "b"]]


def test_files_are_short_and_none_is_a_catch_all():
    sizes = {p: len(p.read_text().splitlines()) for p in ROOT.glob("**/*.py") if ".venv" not in p.parts}
    assert {str(p.relative_to(ROOT)): n for p, n in sizes.items() if n > 450} == {}
    assert not [p for p in sizes if p.name in ("utils.py", "helpers.py", "common.py", "misc.py")]
