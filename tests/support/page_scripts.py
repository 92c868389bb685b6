"""The scripts of the page without a browser: run by Node, which Playwright brings along."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import ptbr_slm.app

STATIC = Path(ptbr_slm.app.__file__).parent / "static"
BROWSER = """
globalThis.location = new URL("http://127.0.0.1:7860/modelo/page/");
globalThis.document = {documentElement: {lang: "pt-BR"}, querySelector: () => null};
globalThis.addEventListener = () => {};
const clipboard = {writeText(text) { globalThis.copied = text; }};
Object.defineProperty(globalThis, "navigator", {value: {clipboard}});
"""
"""What the scripts take from a browser when they are loaded."""


def run_script(name: str, expression: str) -> Any:
    """The value of `expression`, as JSON, after the script `name` of the page; promises are awaited."""
    code = (
        BROWSER + (STATIC / name).read_text(encoding="utf-8")
        + f"\n(async () => {expression})().then((value) => console.log(JSON.stringify(value)));"
    )  # fmt: skip
    done = subprocess.run(
        [_node(), "-"], input=code, capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _node() -> str:
    found = os.environ.get("PLAYWRIGHT_NODEJS_PATH") or shutil.which("node")
    if found:
        return found
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("instale com: pip install playwright")
    from playwright._impl._driver import compute_driver_executable

    return str(compute_driver_executable()[0])
