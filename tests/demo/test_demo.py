"""The model that comes with the package: its name, its folder, its card, and that it writes without torch."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ptbr_slm.cli.eval_compare import model_of
from ptbr_slm.demo import FOLDER, MACHADO, model_path
from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.runtime.model import Model
from ptbr_slm.storage.model_folder import ModelFolder

LIMIT = 6_000_000
"""Bytes of the whole folder: every installation carries them."""


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    """Where no folder hides the package's model."""
    monkeypatch.chdir(tmp_path)


def test_the_name_opens_the_package_s_folder_from_anywhere():
    folder = ModelFolder.open(Path(MACHADO))
    assert folder.path == FOLDER and folder.path.is_dir()
    assert model_of(MACHADO) == str(FOLDER)
    assert model_path("outro") == Path("outro")
    assert model_path(Path("pasta", MACHADO)) == Path("pasta", MACHADO)


def test_a_folder_of_the_user_s_with_that_name_wins(tmp_path):
    (tmp_path / MACHADO).mkdir()
    assert model_path(MACHADO) == Path(MACHADO)
    with pytest.raises(SlmError) as caught:
        Model(MACHADO)
    assert caught.value.code == "E_MODEL_INVALID"
    assert "vale antes do modelo do pacote" in caught.value.hint
    (tmp_path / MACHADO / "final").mkdir()
    (tmp_path / MACHADO / "final" / "config.json").write_text("{}")
    assert model_of(MACHADO) == str(Path(MACHADO, "final"))


def test_a_name_that_does_not_exist_is_told_the_one_that_does(run):
    done = run("generate", "-m", "macado", "Era")
    assert done.returncode == Exit.ERROR
    assert MACHADO in done.stderr.splitlines()[-1]


def test_the_whole_folder_is_small_and_agrees_with_its_manifest_and_its_card():
    files = {file.name: file.read_bytes() for file in FOLDER.iterdir()}
    assert sum(map(len, files.values())) <= LIMIT
    card = files["README.md"].decode()
    listed = dict(
        reversed(line.split("  ")) for line in re.findall(r"^[0-9a-f]{64}  .+$", card, re.MULTILINE)
    )
    assert set(listed) == set(files) - {"README.md", "manifest.json"}
    assert listed == {name: hashlib.sha256(files[name]).hexdigest() for name in listed}
    assert set(json.loads(files["manifest.json"])["files"]) == set(listed)


def test_the_card_says_what_the_model_is_and_is_not():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    config = ModelFolder.open(FOLDER).config
    for said in (
        "domínio público",
        "inventados",
        "Não conversa",
        "bits por byte",
        "tokens previstos",
        "semente",
    ):
        assert said in card
    assert f"{config.num_layers} camadas" in card and "ainda não lidas" not in card
    assert not re.search(r"\{\w+\}", card)  # a field that was not filled in


def test_it_writes_words_and_needs_no_torch(tmp_path):
    code = (
        "import sys, ptbr_slm\n"
        "text = ptbr_slm.generate('Naquela noite,', model='machado', max_new_tokens=48, seed=1)\n"
        "print(text)\n"
        "assert not {'torch', 'ptbr_slm_export'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = re.findall(r"[a-zà-ú]+", done.stdout.lower())
    assert len(words) >= 15 and {"a", "de", "que", "e", "o"} & set(words)
    assert "\N{REPLACEMENT CHARACTER}" not in done.stdout


@pytest.mark.parametrize("verb", [["generate", "-m", MACHADO, "Era", "-n", "4"], ["info", MACHADO]])
def test_the_verbs_take_the_name(run, verb):
    assert run(*verb, check=True).stdout
