"""Every module, name and file of this repository that docs, docstrings and comments mention exists."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from ptbr_slm.train.config_file import settings
from ptbr_slm.tune.config import TuneConfig

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (ROOT / "ptbr_slm", ROOT / "export" / "ptbr_slm_export")
FOLDERS = "ptbr_slm|export|tests|docs|benchmarks|scripts|examples"
FILE = re.compile(
    rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]*\.(?:py|md|sh|ps1|json|txt|ipynb|toml))\b(?:::(\w+))?"
)
FOLDER = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)/`")
SCRIPT = re.compile(r"`(\w+\.(?:py|sh|ps1))`|(?<![\w/.-])((?:[a-z_]+/)+\w+\.py)\b")
"""A file named without its folder, or with the last part of it."""
DOTTED = re.compile(r"`(\w+(?:\.\w+)+)(?:\(\))?`|\b(ptbr_slm(?:_export)?(?:\.\w+)+)")
DATA = set("bin html json jsonl md model onnx ps1 py safetensors sh svg toml txt".split())  # noqa: SIM905
"""Last parts of dotted names that are file names."""
NOT_OURS = {
    "docs/operators.md",  # of onnx-tensorrt
    "docs/OperatorKernels.md",  # of onnxruntime
    "docs/kernels_metadata.md",  # of the kaggle client
    "gguf.quants",  # of llama.cpp's gguf-py
    "c4_utils.py",  # of tensorflow/datasets
    "gopher_repetition_filter.py",  # of datatrove
    "fineweb_quality_filter.py",
    "httptools_impl.py",  # of uvicorn
    "machado.zip",
    "utils.py",  # CONTRIBUTING.md: there is none
    "held_out.sampled",  # a key of a manifest
    "torch/distributed/elastic/rendezvous/dynamic_rendezvous.py",
    "torch/multiprocessing/spawn.py",
    "torch/amp/grad_scaler.py",
    "config/train_shakespeare_char.py",  # of nanoGPT
    "examples/online_serving/prometheus_grafana/grafana.json",  # of vLLM
    "pipeline/filters/c4_filters.py",  # of datatrove
    "pipeline/filters/gopher_quality_filter.py",  # of datatrove
}
"""Files and names of other projects that look like ours. Names of `torch` and
onnxruntime's keys `session.*` are not looked at."""
GONE = re.compile(r"`[^`]+`\s\((?:removed|now `[^`]+`)\)")
"""How a decision, which keeps the names of its day, marks one that has gone."""


@lru_cache
def files() -> list[str]:
    """Paths of the repository's files, relative to its root, without what tools leave behind."""
    folders = [ROOT / name for name in FOLDERS.split("|")]
    found = [
        *ROOT.glob("*.md"),
        *ROOT.glob("*.py"),
        *(path for folder in folders for path in folder.rglob("*.*")),
    ]
    return [path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts]


def pages() -> list[str]:
    return [name for name in files() if name.endswith(".md")]


def sources() -> list[str]:
    return [name for name in files() if name.endswith(".py")]


def prose(name: str) -> str:
    """A page; of a Python file its docstrings, comments and texts below names."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if not name.endswith(".py"):
        return text
    parts = [
        t.string for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT
    ]
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            parts.append(node.value.value)
    return "\n".join(parts)


@lru_cache
def names_in(module: Path) -> dict[str, set[str]]:
    """Top-level names of a module, each with the names inside it where it is a class."""
    found: dict[str, set[str]] = {}
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        for name in _bound(node):
            found[name] = set()
        if isinstance(node, ast.ClassDef):
            found[node.name] = {name for inner in node.body for name in _bound(inner)} | {
                target.attr
                for inner in ast.walk(node)
                if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store)
                for target in [inner]
            }
    return found


def _bound(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            yield from (
                inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)
            )
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in aliases)
        case ast.If() | ast.Try():
            for inner in ast.iter_child_nodes(node):
                if isinstance(inner, ast.stmt):
                    yield from _bound(inner)


def exists(folder: Path, parts: list[str]) -> bool:
    """Whether these dotted parts name a folder, a module, or a name of a module, below `folder`."""
    for index, part in enumerate(parts):
        if (folder / part).is_dir():
            folder = folder / part
            continue
        module, rest = folder / f"{part}.py", parts[index + 1 :]
        if not module.is_file():
            module, rest = folder / "__init__.py", parts[index:]
        if not module.is_file():
            return False
        names = names_in(module)
        return not rest or (
            rest[0] in names and (len(rest) == 1 or not names[rest[0]] or rest[1] in names[rest[0]])
        )
    return True


@lru_cache
def folders_with(first: str) -> tuple[Path, ...]:
    """The folders of the packages that have a folder or a module of this name."""
    found = []
    for package in PACKAGES:
        if package.name == first:
            found.append(package.parent)
        for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
            if (folder / first / "__init__.py").is_file() or (folder / f"{first}.py").is_file():
                found.append(folder)
    return tuple(found)


@lru_cache
def attributes() -> frozenset[str]:
    """Names inside the classes of the packages and the benchmarks."""
    found: set[str] = set()
    for package in (*PACKAGES, ROOT / "benchmarks"):
        for module in package.rglob("*.py"):
            found.update(*names_in(module).values())
    return frozenset(found)


def missing(name: str) -> list[str]:
    """What a file mentions that does not exist."""
    text = prose(name)
    if name.startswith("docs/decisions/"):
        text = GONE.sub("", text)
    return missing_from(text)


def missing_from(text: str) -> list[str]:
    found = []
    for path, inside in FILE.findall(text):
        if not (ROOT / path).exists() or (inside and inside not in names_in(ROOT / path)):
            found.append(path + (f"::{inside}" if inside else ""))
    found += [path for path in FOLDER.findall(text) if not (ROOT / path).exists()]
    for script in (one or other for one, other in SCRIPT.findall(text)):
        folder = script.partition("/")[0]
        ours = "/" not in script or any((base / folder).is_dir() for base in folders_with(folder))
        if ours and not any(f"/{other}".endswith(f"/{script}") for other in files()):
            found.append(script)
    for dotted in (one or other for one, other in DOTTED.findall(text)):
        parts = dotted.split(".")
        bases = folders_with(parts[0])
        if (
            not bases
            or parts[0] in ("torch", "session")
            or parts[-1] in DATA
            or dotted in settings(TuneConfig)
        ):
            continue
        if len(parts) == 2 and not (PACKAGES[0] / parts[0]).is_dir() and parts[1] in attributes():
            continue  # a variable that has the name of a module: `document.text`
        if not any(exists(base, parts) for base in bases):
            found.append(dotted)
    return sorted(set(found) - NOT_OURS)


@pytest.mark.parametrize(
    "gone",
    [
        "tests/train/test_order.py",
        "tests/train/test_run.py::test_that_was_renamed",
        "`tests/train/saving/`",
        "`train.order`",
        "`train.batches.Order`",
        "ptbr_slm.train.saving",
        "`ptbr_slm.model.Llama.tell`",
        "`retry.py`",
        "survival/retry.py",
    ],
)
def test_what_has_gone_is_found(gone):
    assert missing_from(f"See {gone}.") == [gone.strip("`").removesuffix("/")]


@pytest.mark.parametrize(
    "known", ["`train.loop`", "`ptbr_slm.model.Llama.hidden`", "`guards.Guards`", "`config.output`"]
)
def test_what_exists_is_not_reported(known):
    assert missing_from(f"See {known}.") == []


def test_what_pages_mention_exists():
    stale = {name: found for name in pages() if (found := missing(name))}
    assert not stale


def test_what_docstrings_and_comments_mention_exists():
    stale = {name: found for name in sources() if (found := missing(name))}
    assert not stale
