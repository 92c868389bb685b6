"""`hf://` names as inputs: which files they mean, the cache, a bad network, a kill, and the errors."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import COMMIT, HubServer, cut_after, portal, refuse, serving, slow, wrong_length
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal

from ptbr_slm.data.mixture import load_mixture, plan
from ptbr_slm.data.pipeline import open_or_prepare, prepare, read_documents
from ptbr_slm.data.read.files import InputFile
from ptbr_slm.data.records import read_records
from ptbr_slm.data.sources.hub_inputs import (
    DownloadOptions,
    cache_folder,
    local_inputs,
)
from ptbr_slm.data.sources.hub_names import HubName, glob_pattern, shown
from ptbr_slm.data.sources.origin import RetryPolicy
from ptbr_slm.errors import SlmError
from ptbr_slm.tokenizer import Tokenizer

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

REPO = "ana/textos-do-sul"
WHOLE = Path(f"hf://datasets/{REPO}")
QUICK = DownloadOptions(policy=RetryPolicy(attempts=5, sleep=lambda seconds: None))
WORDS = ("o", "rio", "corre", "entre", "as", "pedras", "da", "manhã", "com", "cheiro", "de", "café")


def texts(seed: int, count: int = 30) -> list[str]:
    draw = random.Random(seed)
    return [f"{seed}.{i} " + " ".join(draw.choices(WORDS, k=draw.randint(20, 90))) for i in range(count)]


@lru_cache
def parquet_file(seed: int) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table({"text": texts(seed)}), file)
    return file.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub with a set of three Parquet files and three others; the cache is empty."""
    with serving(HubServer()) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        for number, name in enumerate(("train-0", "train-1", "test-0")):
            running.add(REPO, f"data/{name}.parquet", parquet_file(number))
        lines = "\n".join(json.dumps({"text": text}) for text in texts(7))
        running.add(REPO, "extra/fundo/mais.jsonl.gz", gzip.compress(lines.encode(), mtime=0))
        running.add(REPO, "extra/curto.txt", b"Um texto que o git guarda.")
        running.add(REPO, "README.md", b"# Sobre o conjunto\n" * 9)
        running.cards[REPO] = {"license": "cc-by-4.0"}
        yield running


def named(*names: str) -> list[str]:
    """The files that names mean, as the hub names them, without the commit."""
    local = local_inputs([Path(name) for name in names], QUICK).paths
    prefix = f"hf://datasets/{REPO}@{COMMIT}/"
    return [InputFile(path, "text", True).name.removeprefix(prefix) for path in local]


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("", ["data/train-0.parquet", "data/train-1.parquet"]),
        ("/data/test-0.parquet", ["data/test-0.parquet"]),
        ("/data", ["data/test-0.parquet", "data/train-0.parquet", "data/train-1.parquet"]),
        ("@main/data/train-*.parquet", ["data/train-0.parquet", "data/train-1.parquet"]),
        (f"@{COMMIT}/data/train-[1-9].parquet", ["data/train-1.parquet"]),
        ("@refs/convert/parquet/data/test-?.parquet", ["data/test-0.parquet"]),
        ("@refs%2Fpr%2F7/extra", ["extra/curto.txt", "extra/fundo/mais.jsonl.gz"]),
        ("/**/*.gz", ["extra/fundo/mais.jsonl.gz"]),
        ("/extra/*", ["extra/curto.txt"]),
    ],
)
def test_a_name_means_the_files_that_it_says(server: HubServer, path: str, files: list[str]):
    assert named(f"hf://datasets/{REPO}{path}") == files


@pytest.mark.parametrize(
    ("configs", "files"),
    [
        ([{"config_name": "um", "data_files": "extra/*.txt", "default": True}], ["extra/curto.txt"]),
        (
            [
                {"config_name": "x", "data_files": "nada/*"},
                {"config_name": "default", "data_dir": "extra", "data_files": ["**.gz", "*.txt"]},
            ],
            ["extra/curto.txt", "extra/fundo/mais.jsonl.gz"],
        ),
        (
            [
                {
                    "config_name": "só",
                    "data_files": [
                        {"split": "train", "path": "data/train-1*"},
                        {"split": "test", "path": "data/test*"},
                    ],
                }
            ],
            ["data/train-1.parquet"],
        ),
        ("lixo", ["data/train-0.parquet", "data/train-1.parquet"]),
        ([7, {"config_name": "sem arquivos"}], ["data/train-0.parquet", "data/train-1.parquet"]),
    ],
)
def test_the_default_configuration_is_that_of_the_card(server: HubServer, configs: object, files: list[str]):
    server.cards[REPO] = {"configs": configs}
    assert named(str(shown(WHOLE))) == files


def test_a_set_of_several_configurations_asks_which(server: HubServer):
    server.cards[REPO]["configs"] = [
        {"config_name": "20231101.pt", "data_files": [{"split": "train", "path": "20231101.pt/*"}]},
        {"config_name": "20231101.gl", "data_files": [{"split": "train", "path": "20231101.gl/*"}]},
    ]
    error = refusal(local_inputs, [WHOLE], QUICK)
    assert error.code == "E_USAGE" and "20231101.gl" in error.message
    assert f"'hf://datasets/{REPO}/20231101.pt/*'" in error.hint


def test_what_was_brought_is_prepared_with_commit_and_licence_and_the_same_bytes_again(
    server: HubServer, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    first = prepare([WHOLE], tmp_path / "um", tokenizer)
    served = server.served_bytes()
    second = prepare([WHOLE], tmp_path / "dois", tokenizer)
    assert server.served_bytes() == served > 0  # from the cache
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "outro cache"))
    third = prepare([Path(f"hf://datasets/{REPO}@{COMMIT}")], tmp_path / "tres", tokenizer)
    assert first.index == second.index and first.index.sha256 == third.index.sha256
    (source,) = first.index.recipe["sources"]
    assert source["name"] == "" and source["licence"] == "cc-by-4.0"
    assert source["hub"] == [
        {"repo": REPO, "revision": "main", "path": "", "commit": COMMIT, "licence": "cc-by-4.0", "files": 2}
        | {"bytes": len(parquet_file(0)) + len(parquet_file(1))}
    ]
    assert first.index.recipe["licences"] == {"cc-by-4.0": 60}


def test_records_name_documents_as_the_hub_does(server: HubServer, tmp_path: Path, tokenizer: Tokenizer):
    mixture = tmp_path / "mistura.toml"
    mixture.write_text(
        f'[[source]]\ninputs = ["hf://datasets/{REPO}/data/test*", "perto.txt"]\nlicence = "minha"\n'
    )
    (tmp_path / "perto.txt").write_text("Um texto que já estava aqui ao lado da mistura, e que fica.")
    recipe = load_mixture(mixture)
    data = prepare([], tmp_path / "dados", tokenizer, recipe=recipe)
    sources = {record.source for record in read_records(data.folder, "train")}
    assert f"hf://datasets/{REPO}@{COMMIT}/data/test-0.parquet:3" in sources
    assert str(tmp_path / "perto.txt") in sources
    assert data.index.recipe["licences"] == {"minha": 31}
    assert plan([WHOLE]).sources[0].name == f"hf://datasets/{REPO}"


def test_texts_for_a_tokenizer_and_for_train_come_from_there_too(
    server: HubServer, tmp_path: Path, tokenizer_file: Path
):
    assert [document.text for document in read_documents([Path(f"{WHOLE}/data/train-1.parquet")])] == texts(1)
    data = open_or_prepare(WHOLE, tokenizer_file, tmp_path)
    assert open_or_prepare(WHOLE, tokenizer_file, tmp_path).folder == data.folder
    assert data.index.recipe["sources"][0]["hub"][0]["commit"] == COMMIT


def test_a_commit_that_was_brought_needs_no_network(server: HubServer, monkeypatch: pytest.MonkeyPatch):
    pinned = Path(f"hf://datasets/{REPO}@{COMMIT}/data/*")
    before = local_inputs([pinned], QUICK)
    asked = len(server.requests)
    assert local_inputs([pinned], QUICK) == before and len(server.requests) == asked
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refusal(local_inputs, [Path(f"hf://datasets/{REPO}/data/*")], QUICK)
    assert error.code == "E_FETCH" and f"'hf://datasets/{REPO}@{COMMIT}/data/*'" in error.hint
    before.paths[0].write_bytes(b"menor")  # somebody cut it short: it is fetched again
    assert refusal(local_inputs, [pinned], QUICK).code == "E_FETCH"


def test_the_cache_is_that_of_huggingface_hub(server: HubServer, monkeypatch: pytest.MonkeyPatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    path = "data/train-0.parquet"
    where = {"repo_type": "dataset", "endpoint": server.url, "token": False, "cache_dir": cache_folder()}
    theirs = hub.hf_hub_download(REPO, path, **where)
    served = server.served_bytes()
    (ours,) = local_inputs([WHOLE / path], QUICK).paths
    assert ours.samefile(theirs) and server.served_bytes() == served
    (other,) = local_inputs([WHOLE / "data" / "train-1.parquet"], QUICK).paths
    found = hub.try_to_load_from_cache(
        REPO, "data/train-1.parquet", repo_type="dataset", revision=COMMIT, cache_dir=cache_folder()
    )
    assert other.samefile(found)
    assert not hub.scan_cache_dir(cache_folder()).warnings


def test_the_cache_is_where_huggingface_hub_has_it():
    assert cache_folder({"HF_HUB_CACHE": "/a"}) == Path("/a")
    assert cache_folder({"HF_HOME": "/b"}) == Path("/b/hub")
    assert cache_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")
    assert cache_folder({}) == Path.home() / ".cache/huggingface/hub"


@pytest.mark.parametrize(
    ("part", "faults"),
    [
        ("/revision/", [refuse(429, Retry_After="1"), refuse(500)]),
        ("/tree/", [refuse(502), refuse(503)]),
        ("/store/", [cut_after(1000), cut_after(0), cut_after(500), wrong_length, refuse(500)]),
    ],
)
def test_a_server_that_stumbles_is_asked_again(server: HubServer, part: str, faults: list):
    server.fail(part, *faults)
    (path,) = local_inputs([Path(f"{WHOLE}/data/train-0.parquet")], QUICK).paths
    assert path.read_bytes() == parquet_file(0)


def damaged(answer) -> None:
    answer.body = bytes(byte ^ 0xFF for byte in answer.body)


def test_damaged_bytes_are_fetched_once_more_and_then_refused(server: HubServer):
    server.fail("/store/", damaged)
    (path,) = local_inputs([Path(f"{WHOLE}/data/train-0.parquet")], QUICK).paths
    assert path.read_bytes() == parquet_file(0)
    server.fail("/store/", damaged, damaged)
    error = refusal(local_inputs, [Path(f"{WHOLE}/extra/curto.txt")], QUICK)
    assert error.code == "E_FETCH" and error.where == f"hf://datasets/{REPO}/extra/curto.txt"
    assert not list(cache_folder().rglob("curto.txt"))


@pytest.mark.parametrize(
    ("part", "fault", "code", "words"),
    [
        ("/revision/", refuse(401, X_Error_Code="RepoNotFound"), "E_NOT_FOUND", "não existe no hub"),
        ("/revision/", refuse(404, X_Error_Code="RevisionNotFound"), "E_NOT_FOUND", "esta revisão"),
        ("/revision/", refuse(403, X_Error_Code="GatedRepo"), "E_FETCH", "pedido de acesso"),
        ("/resolve/", refuse(401, X_Error_Code="GatedRepo"), "E_FETCH", "pedido de acesso"),
        ("/tree/", refuse(404, X_Error_Code="EntryNotFound"), "E_NOT_FOUND", "arquivo ou pasta"),
        ("/revision/", portal, "E_FETCH", "não é JSON"),
        ("/revision/", refuse(429, Retry_After="9999"), "E_FETCH", "9999 s"),
    ],
)
def test_what_the_hub_refuses_is_told_by_name(server: HubServer, part, fault, code, words):
    server.fail(part, fault)
    name = f"hf://datasets/{REPO}@v9/data"
    error = refusal(local_inputs, [Path(name)], QUICK)
    assert error.code == code and words in error.message and error.hint
    if code == "E_NOT_FOUND":
        assert error.where == name
    if "acesso" in words:
        assert "HF_TOKEN" in error.hint


@pytest.mark.parametrize(
    ("path", "code"),
    [("data/nada.parquet", "E_NOT_FOUND"), ("data/*.csv", "E_NOT_FOUND"), ("README.md", "E_DATA_FORMAT")],
)
def test_a_path_that_is_not_there_or_no_text(server: HubServer, path: str, code: str):
    error = refusal(local_inputs, [WHOLE / path], QUICK)
    assert error.code == code and error.where == f"hf://datasets/{REPO}/{path}"


@pytest.mark.parametrize(
    "name", ["hf://gpt2", "hf://datasets/squad", "hf://spaces/a/b", "hf://datasets/a b/c", "hf://datasets//"]
)
def test_a_name_of_no_dataset_is_refused_without_network(name: str):
    error = refusal(local_inputs, [Path(name)], QUICK)
    assert error.code == "E_USAGE" and error.where.startswith("hf://")


def test_a_full_disk_is_told_before_anything_comes(server: HubServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1))
    error = refusal(local_inputs, [WHOLE], QUICK)
    assert error.code == "E_DISK_FULL" and "HF_HOME" in error.hint
    assert not server.asked("/store/")


def test_a_listing_cannot_write_outside_the_cache(server: HubServer, tmp_path: Path):
    server.add(REPO, "data/../../../../../fora.txt", b"Fora do cache.")
    assert refusal(local_inputs, [WHOLE / "data"], QUICK).code == "E_FETCH"
    assert not list(tmp_path.rglob("fora.txt"))


def test_two_at_once_do_not_write_one_file(server: HubServer, tmp_path: Path):
    command = [sys.executable, "-c", _BRING, f"hf://datasets/{REPO}/data/train-0.parquet"]
    server.fail("/store/", slow(0.5))
    with subprocess.Popen(command) as other:
        _wait_for(lambda: any(part.stat().st_size for part in cache_folder().rglob("*.part")))
        error = refusal(local_inputs, [WHOLE / "data" / "train-0.parquet"], QUICK)
        other.kill()
    assert error.code == "E_LOCKED"


_BRING = (
    "import sys; from pathlib import Path; from ptbr_slm.data.sources.hub_inputs import local_inputs;"
    "local_inputs([Path(sys.argv[1])])"
)


def test_a_killed_download_goes_on_where_it_was(server: HubServer):
    server.fail("/store/", slow(0.05))
    with subprocess.Popen([sys.executable, "-c", _BRING, f"hf://datasets/{REPO}"]) as process:
        _wait_for(lambda: any(part.stat().st_size >= 1024 for part in cache_folder().rglob("*.part")))
        process.send_signal(signal.SIGKILL)
        process.wait()
    (part,) = cache_folder().rglob("*.part")
    here = part.stat().st_size
    server.requests.clear()
    paths = local_inputs([WHOLE], QUICK).paths
    assert [path.read_bytes() for path in paths] == [parquet_file(0), parquet_file(1)]
    assert 0 < here < len(parquet_file(0))
    assert server.served_bytes() == len(parquet_file(0)) + len(parquet_file(1)) - here
    assert not list(cache_folder().rglob("*.part"))


def _wait_for(happened) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@given(st.text("ab/-@*.?[]", max_size=12), st.text("ab/-.", max_size=12))
def test_patterns_never_break_and_match_themselves(pattern: str, path: str):
    glob_pattern(pattern)(path)
    assert glob_pattern(path)(path)


@pytest.mark.parametrize(
    "pattern", ["*.py", "a/*.py", "a/?b.py", "a/**/c.py", "**/c.py", "**", "[ab]/*", "[!a]/*"]
)
@pytest.mark.parametrize("path", ["c.py", "a/c.py", "a/xb.py", "a/x/y/c.py", "b/c.py", "c/c.py", "a.py/d"])
def test_patterns_mean_what_they_mean_to_fsspec(pattern: str, path: str):
    utils = pytest.importorskip("fsspec.utils")
    assert glob_pattern(pattern)(path) == bool(re.fullmatch(utils.glob_translate(pattern), path))


@pytest.mark.parametrize("repo", ["a/.", "a/..", "./a", "a/b.", "a/-b", "a/b--c", "a/b..c", "a", "a/b c"])
def test_names_that_the_hub_has_not_are_refused(repo: str):
    with pytest.raises(SlmError, match="não é o nome de um conjunto"):
        HubName.parse(f"hf://datasets/{repo}")


@pytest.mark.parametrize("repo", ["HuggingFaceFW/fineweb-2", "a/b_c.d-e", "TucanoBR/GigaVerbo", "0/1"])
def test_names_that_the_hub_has_are_read(repo: str):
    assert HubName.parse(f"hf://datasets/{repo}@v1.0/dados/*.parquet") == HubName(
        repo, "v1.0", "dados/*.parquet"
    )


@given(
    st.from_regex(r"[a-z0-9]{1,8}/[a-z0-9]{1,4}([.-][a-z0-9]{1,4})?", fullmatch=True),
    st.from_regex(r"(main|v1\.0|[0-9a-f]{40})", fullmatch=True),
    st.from_regex(r"([a-z]{1,5}/){0,3}[a-z*]{1,5}", fullmatch=True),
)
def test_names_are_read_back_as_they_were_written(repo: str, revision: str, path: str):
    name = HubName(repo, revision, path)
    assert HubName.parse(str(name)) == name == HubName.parse(shown(Path(str(name))))
