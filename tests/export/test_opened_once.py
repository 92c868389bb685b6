"""An export opens and hashes each file of its model once, however many of its steps need it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = """
import json, sys
from collections import Counter
from pathlib import Path

source, out = Path(sys.argv[1]), Path(sys.argv[2])
opened = Counter()

def note(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and Path(arguments[0]).parent == source:
        opened[Path(arguments[0]).name] += 1

sys.addaudithook(note)  # tensors are mapped by safetensors, which Python does not see
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm_export import export_model, verify_export

parsed, from_json = [], Tokenizer.from_json
Tokenizer.from_json = classmethod(lambda cls, content, file: parsed.append(file) or from_json(content, file))
if sys.argv[3] == "verify":
    verify_export(out, source)
else:
    export_model(source, out, precision=sys.argv[3], method=sys.argv[4] or None)
print(json.dumps({"opened": opened, "parsed": sum(file.parent == source for file in parsed)}))
"""


def counted(source: Path, out: Path, what: str, method: str = "") -> dict:
    command = [sys.executable, "-c", COUNT, str(source), str(out), what, method]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("precision", "method"), [("int8", ""), ("int4", "gptq"), ("fp32", "")])
def test_an_export_opens_each_file_of_its_model_once(tied, tmp_path, precision, method):
    found = counted(tied, tmp_path / "e", precision, method)
    assert found["opened"]["model.safetensors"] == 1, "hashed once"
    assert found["opened"]["tokenizer.json"] == 1 and found["parsed"] == 1
    assert set(found["opened"].values()) == {1}


def test_verify_opens_each_file_of_the_model_once(tied, tmp_path):
    counted(tied, tmp_path / "e", "int8")
    found = counted(tied, tmp_path / "e", "verify")
    assert found["opened"]["model.safetensors"] == 1 and found["parsed"] == 1
    assert set(found["opened"].values()) == {1}
