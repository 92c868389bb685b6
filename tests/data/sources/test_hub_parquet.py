"""Parquet files of a hub become shards: the budget, the disk limit, resuming, and what may go wrong."""

from __future__ import annotations

import io
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer, cut_after, flipped, portal, refuse, serving, slow
from refusals import refusal
from small_disk import mounted

from ptbr_slm.data.sources import hub_parquet, remote_parquet
from ptbr_slm.data.sources.catalogue import SOURCES
from ptbr_slm.data.sources.fetch import fetch
from ptbr_slm.data.sources.hub_rows import HubColumns
from ptbr_slm.data.sources.origin import BYTES_PER_TOKEN, FetchOptions, RetryPolicy, Status
from ptbr_slm.storage.manifest import read_manifest

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

REPO, FOLDER = "HuggingFaceFW/fineweb-2", "data/por_Latn/train"
QUICK = RetryPolicy(attempts=3, sleep=lambda seconds: None)
WORDS = (
    "o",
    "rio",
    "corre",
    "entre",
    "as",
    "pedras",
    "da",
    "manhã",
    "com",
    "cheiro",
    "de",
    "café",
    "e",
    "pão",
)


def texts(seed: int, count: int = 60) -> list[str]:
    """Texts of our own that hardly compress to nothing."""
    draw = random.Random(seed)
    return [f"{seed}.{i} " + " ".join(draw.choices(WORDS, k=draw.randint(20, 90))) for i in range(count)]


def parquet_file(seed: int) -> bytes:
    """A file as the hub's: six row groups of ten rows."""
    rows = texts(seed)
    table = pa.table(
        {
            "text": pa.array(rows, pa.large_string()),
            "id": [f"<urn:uuid:{seed}-{i}>" for i in range(len(rows))],
            "url": [f"https://exemplo.example/{seed}/{i}" for i in range(len(rows))],
            "language_score": [0.9 + i / 1000 for i in range(len(rows))],
            "minhash_cluster_size": pa.array(range(len(rows)), pa.int64()),
            "top_langs": ["{}"] * len(rows),
        }
    )
    file = io.BytesIO()
    parquet.write_table(table, file, row_group_size=10, compression="snappy", write_page_checksum=True)
    return file.getvalue()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with three files, whose row groups are chunks by threes."""
    monkeypatch.setattr(remote_parquet, "CHUNK_BYTES", 6_000)
    monkeypatch.setattr(remote_parquet, "TAIL_BYTES", 1_500)
    with serving(HubServer()) as running:
        for seed in range(3):
            running.add(REPO, f"{FOLDER}/000_{seed:05d}.parquet", parquet_file(seed))
        running.add(REPO, "data/por_Latn/test/000_00000.parquet", parquet_file(99))
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running


def bring(out: Path, **options) -> Path:
    return fetch("fineweb2-pt", out, FetchOptions(**{"policy": QUICK, "max_disk": 10**9, **options}))


def rows_of(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_every_row_comes_in_order_with_its_address_and_licence(server: HubServer, tmp_path: Path):
    shares: list[Status] = []
    out = bring(tmp_path / "textos", progress=shares.append)
    rows = rows_of(out)
    assert [row["text"] for row in rows] == [text for seed in range(3) for text in texts(seed)]
    assert rows[61]["id"] == "<urn:uuid:1-1>" and rows[61]["url"] == "https://exemplo.example/1/1"
    assert rows[61]["license"] == "ODC-By 1.0" and rows[61]["minhash_cluster_size"] == 1
    assert "top_langs" not in rows[0] and rows[0]["dump"] is None  # asked for, and not in these files
    extra = read_manifest(out).extra
    assert extra["stopped"] == "end" and extra["commit"] == COMMIT and extra["documents"] == 180
    assert extra["text_bytes"] == sum(len(row["text"].encode()) for row in rows)
    assert len(extra["shards"]) > 3 and not (out / ".fetch").exists()
    assert "ODC-By" in (out / "LICENCA.md").read_text(encoding="utf-8")
    assert shares[-1].text_bytes == extra["text_bytes"] and shares[-1].share == 1
    assert 0.5 < shares[-1].received_bytes / server.served_bytes() < 1  # the rest is footers
    asked = len(server.requests)
    assert bring(out) == out and len(server.requests) == asked  # whole: no network


@pytest.mark.parametrize("tokens", [100, 900, 2_500])
def test_a_budget_ends_with_the_document_that_reaches_it_and_more_may_be_asked_for(server, tmp_path, tokens):
    out = bring(tmp_path / "textos", tokens=tokens)
    rows, wanted = rows_of(out), tokens * BYTES_PER_TOKEN
    sizes = [len(row["text"].encode()) for row in rows]
    assert sum(sizes[:-1]) < wanted <= sum(sizes)
    assert read_manifest(out).extra["stopped"] == "tokens"
    whole = sum(len(content) for content in server.files.values())
    assert server.served_bytes() < whole / 2
    more, fresh = bring(out, tokens=4_000), bring(tmp_path / "novo", tokens=4_000)
    assert bytes_of(more) == bytes_of(fresh)
    asked = len(server.requests)
    assert bring(out, tokens=tokens) == out and len(server.requests) == asked  # it holds more than that


def test_a_disk_limit_stops_before_it_and_a_larger_one_goes_on(server, tmp_path):
    out = bring(tmp_path / "textos", max_disk=40_000)
    extra = read_manifest(out).extra
    assert extra["stopped"] == "max_disk" and 0 < extra["documents"] < 180
    assert sum(path.stat().st_size for path in out.glob("*.parquet")) < 40_000
    assert bytes_of(bring(out)) == bytes_of(bring(tmp_path / "novo"))
    little = bring(tmp_path / "pouco", tokens=100, max_disk=8_000)  # less than a chunk, and enough
    assert read_manifest(little).extra["stopped"] == "tokens"
    assert "nenhum texto coube" in refusal(bring, tmp_path / "nada", max_disk=10).message


def test_a_full_disk_is_named_before_it_is_full(server, tmp_path, monkeypatch):
    bring(tmp_path / "inteiro")
    usage = hub_parquet.shutil.disk_usage(tmp_path)
    frees = iter([10**9, 10**9, 10**6])
    monkeypatch.setattr(hub_parquet.shutil, "disk_usage", lambda path: usage._replace(free=next(frees)))
    error = refusal(bring, tmp_path / "textos")
    assert error.code == "E_DISK_FULL" and "o que já foi baixado está inteiro" in error.message
    monkeypatch.undo()
    monkeypatch.setattr(remote_parquet, "CHUNK_BYTES", 6_000)
    monkeypatch.setattr(remote_parquet, "TAIL_BYTES", 1_500)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    assert bytes_of(bring(tmp_path / "textos")) == bytes_of(tmp_path / "inteiro")


def test_a_disk_that_fills_up_ends_with_its_code_and_the_call_is_repeated(server, tmp_path, monkeypatch):
    good = bytes_of(bring(tmp_path / "bom"))
    monkeypatch.setattr(hub_parquet, "_SPARE_BYTES", -(10**9))  # another program took the space meanwhile
    with mounted(tmp_path / "disco", kib=400) as disk:
        other = disk / "outro"
        for size in (385_000, 360_000):
            other.write_bytes(b"x" * size)
            assert refusal(bring, disk / "textos").code == "E_DISK_FULL"
        other.unlink()
        assert bytes_of(bring(disk / "textos")) == good


def test_a_bad_network_gives_the_same_bytes(server, tmp_path):
    good = bytes_of(bring(tmp_path / "bom"))
    server.fail(
        "/store/", refuse(500), cut_after(700), refuse(429, Retry_After="1"), cut_after(2_000), refuse(503)
    )
    server.fail("/tree/", refuse(502))
    server.fail("/revision/", refuse(504))
    notes: list[str] = []
    assert bytes_of(bring(tmp_path / "ruim", note=notes.append)) == good
    assert any("429" in note for note in notes) and any("cortada" in note for note in notes)


def test_a_damaged_chunk_is_fetched_again_and_twice_is_an_error(server, tmp_path):
    good = bytes_of(bring(tmp_path / "bom"))
    keep = lambda answer: None  # noqa: E731
    server.fail("/store/", keep, keep, flipped)  # the footer comes in two
    notes: list[str] = []
    assert bytes_of(bring(tmp_path / "ruim", note=notes.append)) == good
    assert "danificado" in notes[0]
    server.fail("/store/", keep, keep, flipped, flipped)
    error = refusal(bring, tmp_path / "pior")
    assert error.code == "E_FETCH" and "duas vezes" in error.message


RUN = """
import sys
from pathlib import Path
from ptbr_slm.data.sources import hub_parquet, remote_parquet
from ptbr_slm.data.sources.fetch import fetch
from ptbr_slm.data.sources.origin import FetchOptions
remote_parquet.CHUNK_BYTES, remote_parquet.TAIL_BYTES = 6_000, 1_500
fetch("fineweb2-pt", Path(sys.argv[1]), FetchOptions(tokens=4_500))
"""


def test_killed_at_any_moment_it_goes_on_and_gives_the_same_bytes(server, tmp_path):
    good = bytes_of(bring(tmp_path / "bom", tokens=4_500, max_disk=None))
    out = tmp_path / "morto"
    parts: list[int] = []
    for kill in range(2):
        server.fail("/store/", *[slow(0.02)] * 40)
        with subprocess.Popen([sys.executable, "-c", RUN, str(out)], stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 20
            part = out / ".fetch" / "chunk.part"
            before = part.stat().st_size if part.exists() else 0
            while process.poll() is None and time.monotonic() < deadline:
                if part.exists() and part.stat().st_size >= before + 1_000 + 500 * kill:
                    break
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        parts.append(part.stat().st_size if part.exists() else 0)
        server.faults.clear()
    assert any(parts) and not (out / "manifest.json").exists()
    assert refusal(fetch, "wikipedia-pt", out).code == "E_EXISTS"
    resumed = len(server.requests)
    subprocess.run([sys.executable, "-c", RUN, str(out)], check=True)
    assert bytes_of(out) == good
    again = [path for _, path, _ in server.requests[resumed:]]
    assert not any("/tree/" in path or "/revision/" in path for path in again)  # the commit was kept


def test_a_shard_that_was_damaged_or_lost_is_made_again(server, tmp_path):
    out = bring(tmp_path / "textos")
    good = bytes_of(out)
    second, fourth = sorted(out.glob("*.parquet"))[1:4:2]
    second.write_bytes(second.read_bytes()[:-9])
    fourth.unlink()
    assert bytes_of(bring(out)) == good


def test_another_filter_or_source_is_not_mixed_in(server, tmp_path):
    out = bring(tmp_path / "textos", where="language_score>=0.95")
    assert [row["language_score"] >= 0.95 for row in rows_of(out)] == [True] * 30
    assert refusal(bring, out).code == "E_EXISTS"
    assert refusal(bring, tmp_path / "x", where="cor = azul").code == "E_USAGE"
    assert "language_score" in refusal(bring, tmp_path / "x", where="cor = azul").hint
    assert "não se compara" in refusal(bring, tmp_path / "x", where="language_score = azul").message
    assert "não entendi" in refusal(bring, tmp_path / "x", where="language_score").message


def test_a_preset_cleans_and_drops_on_the_way_and_counts_why(server, tmp_path):
    rows = [
        *texts(5),
        "um",
        "o de a que " * 200,
        "acentua\u00c3\u00a7\u00c3\u00a3o e preocupa\u00c3\u00a7\u00c3\u00a3o " + texts(6)[0],
    ]
    file = io.BytesIO()
    parquet.write_table(pa.table({"text": rows}), file, row_group_size=10)
    server.files.clear()
    server.add(REPO, f"{FOLDER}/a.parquet", file.getvalue())
    out = bring(tmp_path / "textos", preset="curated")
    kept = [row["text"] for row in rows_of(out)]
    extra = read_manifest(out).extra
    assert kept[:60] == texts(5) and kept[-1].startswith("acentuação e preocupação")
    assert extra["dropped"] == {"too_short": 1} and extra["documents"] == len(kept) == 62
    assert refusal(bring, out).code == "E_EXISTS"
    assert "web" in refusal(bring, tmp_path / "x", preset="lixo").hint


def test_two_calls_do_not_write_into_one_folder(server, tmp_path):
    from ptbr_slm.data.sources.origin import Task, locked

    with locked(Task("fineweb2-pt", tmp_path / "textos", "", FetchOptions())):
        assert refusal(bring, tmp_path / "textos").code in ("E_LOCKED", "E_EXISTS")
    assert not (tmp_path / "textos").exists()


@pytest.mark.parametrize(
    ("part", "fault", "words"),
    [
        ("/tree/", portal, "não é JSON"),
        ("/revision/", portal, "não é JSON"),
        ("/revision/", refuse(401), "recusou o acesso"),
        ("/resolve/", refuse(403, X_Error_Code="GatedRepo"), "pedido de acesso"),
        ("/store/", refuse(404), "404"),
    ],
)
def test_a_hub_that_answers_something_else_leaves_nothing(server, tmp_path, part, fault, words):
    server.fail(part, fault)
    error = refusal(bring, tmp_path / "textos")
    assert error.code == "E_FETCH" and words in error.message and "Signature" not in str(error)


def test_a_file_that_is_no_parquet_and_an_empty_folder_are_named(server, tmp_path):
    server.add(REPO, f"{FOLDER}/000_00000.parquet", b"nada " * 2_000)
    assert "não é Parquet" in refusal(bring, tmp_path / "a").message
    server.files.clear()
    server.add(REPO, f"{FOLDER}/README.md", b"nada")
    assert "não tem arquivos .parquet" in refusal(bring, tmp_path / "b").message
    assert not (tmp_path / "b").exists()


def test_a_file_that_is_not_the_one_of_the_commit_is_refused(server, tmp_path):
    def another(answer):
        answer.headers["X-Linked-ETag"] = '"' + "0" * 64 + '"'

    server.fail("/resolve/", another)
    assert "não é o que o commit anuncia" in refusal(bring, tmp_path / "textos").message


def test_chunks_without_a_row_that_passes_leave_no_file(server, tmp_path):
    out = bring(tmp_path / "textos", where="minhash_cluster_size>=58")
    assert [row["minhash_cluster_size"] for row in rows_of(out)] == [58, 59] * 3
    assert len(list(out.glob("*.parquet"))) == len(read_manifest(out).extra["shards"]) == 3
    assert "passou no filtro" in refusal(bring, tmp_path / "nada", where="minhash_cluster_size>99").message
    assert not list((tmp_path / "nada").glob("*.parquet"))


def test_a_large_source_needs_a_limit_and_a_restricted_one_consent(server, tmp_path):
    error = refusal(bring, tmp_path / "x", max_disk=None)
    assert error.code == "E_USAGE" and "--tokens 2B" in error.hint
    error = refusal(fetch, "gigaverbo", tmp_path / "x", FetchOptions(tokens=10))
    assert error.code == "E_USAGE" and "brWaC" in error.message and "--accept-license" in error.hint
    assert server.requests == []


def test_another_layout_of_columns_is_read_by_its_entry(server, tmp_path):
    origin = replace(SOURCES["gigaverbo"].origin, columns=HubColumns("corpo", "", "", {"label": "int64"}))
    table = pa.table({"corpo": ["um texto", "", None, "outro"], "label": [1, 1, 0, 0]})
    file = io.BytesIO()
    parquet.write_table(table, file)
    server.add("TucanoBR/GigaVerbo", "data/train-00000-of-00001.parquet", file.getvalue())
    SOURCES["outra"] = replace(SOURCES["gigaverbo"], origin=origin)
    try:
        out = fetch("outra", tmp_path / "x", FetchOptions(tokens=100, accept_license=True, policy=QUICK))
    finally:
        del SOURCES["outra"]
    assert [(row["text"], row["url"], row["label"]) for row in rows_of(out)] == [
        ("um texto", None, 1),
        ("outro", None, 0),
    ]
    assert server.asked("/revision/3464568a")


def test_from_the_command_line(server, tmp_path, run: Callable, monkeypatch):
    out = tmp_path / "textos"
    done = run("data", "fetch", "fineweb2-pt", "--tokens", "2k", "-o", out, check=True)
    assert "tokens" in done.stdout and "parou no número de tokens pedido" in done.stdout
    assert f"tokenizer train {out}" in done.stdout
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_segredo")
    more = ("data", "fetch", "fineweb2-pt", "--tokens", "2.5k", "-o", out, "--mirror", server.url)
    body = json.loads(run(*more, "--json", check=True).stdout)
    assert body["stopped"] == "tokens" and body["tokens"] >= 2_500 and body["commit"] == COMMIT
    assert body["bytes"] == sum(path.stat().st_size for path in out.glob("*.parquet"))
    assert "hf_segredo" not in (out / "manifest.json").read_text()
    wrong = run("data", "fetch", "fineweb2-pt", "--tokens", "muitos", "-o", out)
    assert wrong.returncode == 2 and "Erro [E_USAGE]: não entendi a quantidade" in wrong.stderr
    assert "--list" in run("data", "fetch").stderr


def test_the_list_says_size_licence_and_chain_of_every_source(run: Callable):
    text = run("data", "fetch", "--list", check=True).stdout
    assert "ODC-By 1.0" in text and "Common Crawl" in text and "brWaC" in text and "ATENÇÃO" in text
    listed = json.loads(run("data", "fetch", "--list", "--json", check=True).stdout)["sources"]
    assert [entry["name"] for entry in listed] == list(SOURCES)
    assert all(entry["licence"]["name"] and entry["licence"]["chain"] for entry in listed)


def test_the_shards_are_read_by_data_prepare(server, tmp_path):
    from ptbr_slm.data.pipeline import read_documents

    out = bring(tmp_path / "textos", tokens=500)
    assert [document.text for document in read_documents([out])] == [row["text"] for row in rows_of(out)]
