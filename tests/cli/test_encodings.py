"""What is printed where the output is not UTF-8, and folders whose names are not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ptbr_slm.text import path_to_text, text_to_path

SMALL = ["--model-size", "nano", "--seq-len", "32", "--batch-size", "2", "--grad-accum", "1", "--max-steps=2"]


def run(folder: Path, *arguments: str | bytes | Path, encoding: str = "utf-8") -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": encoding}
    return subprocess.run(
        [sys.executable, "-m", "ptbr_slm", *arguments],
        capture_output=True, cwd=folder, env=environment, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, texts) -> Path:
    folder = tmp_path_factory.mktemp("nomes") / "São João"
    (folder / "textos").mkdir(parents=True)
    for number in range(12):
        body = "\n".join(f"{number} {text}" for text in texts * 4)
        (folder / "textos" / f"{number}.txt").write_text(body, encoding="utf-8")
    done = run(folder, "tokenizer", "train", "textos", "-o", "tok", "--vocab-size", "400")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_json_is_utf8_or_escapes_whatever_encoding_the_output_has(workplace, encoding):
    output = workplace / "preparação → ção"
    done = run(
        workplace,
        "data",
        "prepare",
        "textos",
        "-o",
        output,
        "--tokenizer",
        "tok",
        "--json",
        encoding=encoding,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))["folder"] == str(output)
    assert (b"\\u00e7" in done.stdout) is (encoding != "utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_event_of_json_lines_keeps_its_accents_where_the_output_has_none(workplace, encoding):
    code = (
        "import sys; from ptbr_slm.cli.output import Mode, Output\n"
        "Output(Mode.JSON).event({'message': 'não → coração', 'loss': float('nan')})"
    )
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:replace"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert json.loads(done.stdout) == {"message": "não → coração", "loss": None}


def test_a_path_that_is_not_utf8_comes_back_from_its_text():
    for raw in (b"/dados/S\xe3o Jo\xe3o", b"/a%20b", "/dados/São João".encode(), b"/\xff\xfe"):
        path = Path(os.fsdecode(raw))
        text = path_to_text(path)
        text.encode("utf-8")
        assert text_to_path(text) == path
    assert path_to_text(Path("dados/São João")) == "dados/São João"


@pytest.fixture
def latin(workplace) -> Path:
    """A folder named as a system in Latin-1 named it: `São`, but for the UTF-8."""
    folder = Path(os.fsdecode(os.fsencode(workplace.parent) + b"/S\xe3o"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("este sistema de arquivos só aceita nomes em UTF-8")
    return folder


@pytest.mark.slow
def test_a_folder_name_that_is_not_utf8_serves_train_export_verify_and_generate(workplace, latin):
    pytest.importorskip("onnx_ir", reason='instale com: pip install "ptbr-slm[export]"')

    def answer(*arguments: str | Path) -> dict:
        done = run(workplace, *arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    data, course, model = latin / "dados", latin / "run", latin / "run" / "final"
    assert answer("data", "prepare", "textos", "-o", data, "--tokenizer", "tok")["folder"] == str(data)
    assert answer("train", "--data", data, "-o", course, *SMALL)["model"] == str(model)
    for record in (course / "sessions.jsonl", course / "metrics.jsonl", course / "report" / "report.md"):
        record.read_text(encoding="utf-8")
    # The settings are TOML that any reader takes, and start the same training again.
    again = answer("train", "--config", course / "config.resolved.toml")
    assert again["model"] == str(model)
    for target in ("cpu", "genai"):
        export = latin / target
        answer("export", model, "-o", export, "--target", target)
    checked = answer("verify", latin / "cpu", "--against", model)
    assert checked["held_out"] == str(data)  # found through config.resolved.toml
    written = answer("generate", "Manhã", "--model", latin / "cpu", "--max-new-tokens", "2")
    assert os.fsencode(written["path"]) == os.fsencode(latin / "cpu")
    # A script gets the bytes of the name: MODEL=$(ptbr-slm export ... --quiet).
    brief = run(workplace, "export", model, "-o", latin / "outro", "--quiet")
    assert brief.stdout == os.fsencode(latin / "outro") + b"\n"
