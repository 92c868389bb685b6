"""The direction of imports and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FORBIDDEN = {
    # importer -> packages it must not import anywhere, functions included
    "ptbr_slm/runtime": [
        "ptbr_slm.train",
        "ptbr_slm.data",
        "ptbr_slm_export",
        "ptbr_slm.cli",
        "ptbr_slm.app",
        "torch",
    ],
    "ptbr_slm/app": ["ptbr_slm.train", "ptbr_slm.data", "ptbr_slm_export", "torch"],
    "ptbr_slm/data": ["ptbr_slm.train", "ptbr_slm.runtime", "ptbr_slm_export", "ptbr_slm.cli", "torch"],
    "ptbr_slm/eval": ["ptbr_slm.train", "ptbr_slm_export", "ptbr_slm.cli", "torch"],
    "ptbr_slm/train": [
        "ptbr_slm.runtime",
        "ptbr_slm_export",
        "ptbr_slm.cli",
        "ptbr_slm.app",
        "ptbr_slm.bench",
        "onnxruntime",
    ],
    "ptbr_slm/tokenizer": [
        "ptbr_slm.storage",
        "ptbr_slm.data",
        "ptbr_slm.train",
        "ptbr_slm.runtime",
        "ptbr_slm.cli",
        "torch",
    ],
    "ptbr_slm/doctor": ["ptbr_slm.data", "ptbr_slm_export", "ptbr_slm.cli", "ptbr_slm.app", "torch"],
    "ptbr_slm/bench": ["ptbr_slm_export", "ptbr_slm.cli", "ptbr_slm.app", "onnxruntime"],
    "ptbr_slm/storage": ["ptbr_slm.train", "ptbr_slm.runtime", "ptbr_slm.data", "ptbr_slm_export", "torch"],
    "export/ptbr_slm_export": ["ptbr_slm.train", "ptbr_slm.model", "ptbr_slm.cli", "ptbr_slm.app", "torch"],
}
ALLOWED_FILES = {
    "ptbr_slm/runtime/engines/torch.py": ["torch"],
}


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
    }


def test_files_are_short_and_none_is_a_catch_all():
    sizes = {p: len(p.read_text().splitlines()) for p in ROOT.glob("**/*.py") if ".venv" not in p.parts}
    assert {str(p.relative_to(ROOT)): n for p, n in sizes.items() if n > 450} == {}
    assert not [p for p in sizes if p.name in ("utils.py", "helpers.py", "common.py", "misc.py")]
