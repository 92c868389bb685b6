"""The whole path in one command, on text of our own and a few seconds of training."""

import json

import pytest

from ptbr_slm.train.config_file import load_values

LINES = [
    "O {} passou pela {} antes do amanhecer, e ninguém na {} percebeu.",
    "Quando a {} voltou, o {} já tinha fechado a porta da {}.",
    "Dizem que o {} guarda uma {} dentro da {}, mas nunca a mostrou.",
    "Na {}, o {} e a {} conversam sobre a chuva que não vem.",
]
NOUNS = [
    "vizinho",
    "feira",
    "estação",
    "menino",
    "praça",
    "igreja",
    "barco",
    "cidade",
    "escola",
    "padeiro",
    "ponte",
]


@pytest.fixture(scope="module")
def own_texts(tmp_path_factory):
    """180 small documents of generated Portuguese."""
    folder = tmp_path_factory.mktemp("textos com acentuação")
    for document in range(180):
        lines = []
        for line in range(12):
            pick = [NOUNS[(document * 7 + line * 3 + k * 5) % len(NOUNS)] for k in range(3)]
            lines.append(LINES[(document + line) % len(LINES)].format(*pick))
        (folder / f"{document:03}.txt").write_text(" ".join(lines), encoding="utf-8")
    return folder


def test_one_command_goes_from_texts_to_a_verified_model_that_writes(cli, own_texts, tmp_path):
    first = cli(
        "quickstart", "--out", "demo", "--minutes", "0.08", "--texts", own_texts, "--json", timeout=250
    )
    assert first.returncode == 0, first.stderr
    events = [json.loads(line) for line in first.stdout.splitlines()]
    done = events[-1]
    assert done["status"] == "done" and done["steps"] > 0 and len(done["texts"]) == 3
    assert all(text.startswith(("O Brasil", "A cidade", "Neste")) for text in done["texts"])
    manifest = json.loads((tmp_path / "demo/export/manifest.json").read_text())
    assert manifest["kind"] == "export" and manifest["precision"] == "int8"
    run = load_values(tmp_path / "demo" / "treino" / "config.resolved.toml")
    assert run["evaluation.minutes"] == pytest.approx(0.008) and "evaluation.every" not in run
    again = cli("quickstart", "--out", "demo", "--minutes", "0.08", "--texts", own_texts, timeout=250)
    assert again.returncode == 0, again.stderr
    assert f"{done['steps']} passos" in again.stdout.replace(".", "")  # finished work is not done twice
