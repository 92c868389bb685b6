"""What `pip install 'ptbr-slm[data]'` brings is enough for text: nothing of it imports torch."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import HubServer, serving

from ptbr_slm.errors import EXTRA_OF, missing_extra

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

_PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
_EXTRAS = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
_REFUSING = """
import sys, importlib.abc
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "psutil", "pynvml", "onnx", "onnxruntime", "transformers"):
            raise RuntimeError(f"{name} is not of [data]")
sys.meta_path.insert(0, Refuse())
from ptbr_slm.cli import main
for arguments in COMMANDS:
    sys.argv = ["ptbr-slm", *arguments]
    code = main._run()
    if code:
        raise SystemExit(f"{arguments}: {code}")
"""


def test_every_command_of_text_works_without_torch(tmp_path: Path, prose: Callable[..., str]):
    file = io.BytesIO()
    rows = [prose(number) for number in range(60)]
    table = {"id": [str(number) for number in range(60)], "url": [""] * 60, "title": [""] * 60, "text": rows}
    parquet.write_table(pa.table(table), file)
    commands = [
        ["data", "fetch", "--list"],
        ["data", "fetch", "wikipedia-pt", "-o", "textos"],
        ["tokenizer", "train", "textos", "-o", "t.json", "--vocab-size", "400"],
        ["tokenizer", "train", "hf://datasets/ana/livros", "-o", "outro.json", "--vocab-size", "350"],
        ["data", "prepare", "textos", "-o", "dados", "--tokenizer", "t.json", "--preset", "curated"],
        ["data", "prepare", "hf://datasets/ana/livros", "-o", "d", "--tokenizer", "t.json"],
        ["data", "prepare", "textos", "-o", "m", "--tokenizer", "t.json", "--mask-personal-data"],
        ["data", "stats", "dados"],
        ["data", "audit", "dados"],
        ["tokenizer", "compare", "textos", "--with", "outro.json", "--tokenizer", "t.json", "--svg", "g.svg"],
    ]
    with serving(HubServer()) as server:
        server.add("wikimedia/wikipedia", "20231101.pt/0.parquet", file.getvalue())
        server.add("ana/livros", "data/train-0.parquet", file.getvalue())
        done = subprocess.run(
            [sys.executable, "-c", _REFUSING.replace("COMMANDS", json.dumps(commands))],
            cwd=tmp_path,
            env={**os.environ, "HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "dados" / "auditoria.html").is_file() and (tmp_path / "g.svg").is_file()


def test_train_includes_data_and_messages_name_an_extra_that_brings_the_package():
    names = {
        extra: {line.partition(">")[0].replace("-", "_").lower() for line in lines}
        for extra, lines in _EXTRAS.items()
    }
    assert "ptbr-slm[data]" in _EXTRAS["train"] and "torch" not in names["data"]
    distributions = {"yaml": "pyyaml"}
    for package, extra in EXTRA_OF.items():
        assert distributions.get(package, package) in names[extra], package
    assert missing_extra("pyarrow").hint.endswith('pip install "ptbr-slm[data]"')
