"""`ptbr-slm data prepare | stats` as a user types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

SUMMARY_KEYS = [
    "folder", "documents", "bytes", "words", "tokens", "tokens_per_word", "bytes_per_token", "splits",
    "valid_fraction", "valid_share", "vocab_size", "tokenizer_sha256", "sha256", "dropped", "repaired",
    "varieties", "excessive_rules",
]  # fmt: skip


def test_prepare_then_stats_tell_what_there_is_and_what_was_left_out(
    corpus: Path, tokenizer_file: Path, tmp_path: Path, cli: Callable
):
    (corpus / "latim.txt").write_bytes("ação".encode("latin-1"))
    (corpus / "foto.jpg").write_bytes(b"\xff")
    out = tmp_path / "Área de Trabalho" / "dados"
    done = cli("data", "prepare", corpus, "-o", out, "--tokenizer", tokenizer_file, check=True)
    assert "40" in done.stdout and "tokens por palavra" in done.stdout
    assert "1 × não está em UTF-8  (por exemplo" in done.stdout and "latim.txt" in done.stdout
    assert "1 × arquivo de outro tipo" in done.stdout
    assert f"ptbr-slm train --data '{out}'" in done.stdout

    body = json.loads(cli("data", "stats", out, "--json", check=True).stdout)
    assert list(body) == SUMMARY_KEYS
    assert {tuple(part) for part in body["splits"].values()} == {("documents", "bytes", "words", "tokens")}
    assert body["documents"] == 40 and body["dropped"] == {"not_utf8": 1, "unknown_format": 1}
    assert body["documents"] == sum(part["documents"] for part in body["splits"].values())
    assert body["tokens_per_word"] == round((body["tokens"] - 80) / body["words"], 4)
    assert "Dados íntegros" in cli("data", "stats", out, check=True).stdout
    again = cli("data", "prepare", corpus, "-o", out, "--tokenizer", tokenizer_file, "--json", check=True)
    prepared = json.loads(again.stdout)
    assert prepared.pop("examples").keys() == {"not_utf8", "unknown_format"} and prepared == body


def test_a_corrupt_shard_ends_stats_with_exit_3_and_no_traceback(
    corpus: Path, tokenizer_file: Path, tmp_path: Path, run: Callable
):
    out = tmp_path / "dados"
    quiet = run("data", "prepare", corpus, "-o", out, "--tokenizer", tokenizer_file, "--quiet", check=True)
    assert (quiet.stdout, quiet.stderr) == (f"{out}\n", "")
    shard = out / "train-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-10])
    done = run("data", "stats", out)
    assert done.returncode == 3 and done.stderr.startswith("Erro [E_DATA_CORRUPT]: train-00000.bin tem ")
    assert "Traceback" not in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["prepare", "nada", "-o", "d", "--tokenizer", "{t}"], "E_NOT_FOUND", 1),
        (["prepare", "vazio", "-o", "d", "--tokenizer", "{t}"], "E_DATA_EMPTY", 1),
        (["prepare", "vazio", "-o", "d", "--tokenizer", "nada.json"], "E_TOKENIZER_MISSING", 1),
        (["prepare", "vazio", "-o", "d", "--tokenizer", "{t}", "--valid-fraction", "2"], "E_CONFIG", 2),
        (["stats", "vazio"], "E_NOT_FOUND", 1),
    ],
)
def test_each_mistake_has_its_code(
    tokenizer_file: Path, tmp_path: Path, run: Callable, arguments: list[str], code: str, exit_code: int
):
    (tmp_path / "vazio").mkdir()
    (tmp_path / "vazio" / "a.txt").write_text("")
    done = run("data", *[argument.format(t=tokenizer_file) for argument in arguments])
    assert (done.returncode, done.stderr.split("]")[0]) == (exit_code, f"Erro [{code}")
    assert len(done.stderr.strip().splitlines()) == 3 and not (tmp_path / "d").exists()
