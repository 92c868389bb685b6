"""A dated file with its list of checksums, as Wikimedia publishes them: whole, resumed, changed, wrong."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import HubServer, cut_after, flipped, other_etag, refuse, serving, slow
from refusals import refusal

from ptbr_slm.data.sources.catalogue import SOURCES
from ptbr_slm.data.sources.fetch import fetch
from ptbr_slm.data.sources.origin import FetchOptions, RetryPolicy
from ptbr_slm.storage.manifest import read_manifest

pytest.importorskip("requests")

CONTENT = bytes(range(256)) * 200
NAME = "ptwiki-{}-pages-articles-multistream.xml.bz2"
LIST = "/ptwiki/latest/ptwiki-latest-sha1sums.txt"
QUICK = RetryPolicy(attempts=3, sleep=lambda seconds: None)


def publish(server: HubServer, date: str, content: bytes) -> None:
    """A dump of this date, and the list that names it."""
    name = NAME.format(date)
    server.files[f"/ptwiki/{date}/{name}"] = content
    index = name.replace(".xml", "-index.txt")
    lines = f"{'0' * 40}  {index}\n{hashlib.sha1(content).hexdigest()}  {name}\n"
    server.files[LIST] = lines.encode()


@pytest.fixture
def server() -> Iterator[HubServer]:
    with serving(HubServer()) as running:
        publish(running, "20261101", CONTENT)
        yield running


def bring(server: HubServer, out: Path, **options) -> Path:
    return fetch("wikipedia-pt-dump", out, FetchOptions(mirror=server.url, policy=QUICK, **options))


def test_the_newest_dump_comes_with_its_checksum_and_its_licence(server, tmp_path):
    notes: list[str] = []
    path = bring(server, tmp_path / "dump", tokens=1, note=notes.append)
    assert notes == ["wikipedia-pt-dump vem inteiro: --tokens não o corta."]
    assert "vem inteiro" in refusal(bring, server, tmp_path / "x", where="a=b").message
    assert path.name == NAME.format("20261101") and path.read_bytes() == CONTENT
    manifest = read_manifest(path.parent)
    assert manifest.extra["digest"] == hashlib.sha1(CONTENT).hexdigest()
    assert "CC BY-SA 4.0" in (path.parent / "LICENCA.md").read_text(encoding="utf-8")
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["LICENCA.md", "manifest.json", path.name]
    asked = len(server.requests)
    assert bring(server, path.parent) == path and len(server.requests) == asked


def test_cuts_errors_and_a_kill_give_the_same_file(server, tmp_path):
    out = tmp_path / "dump"
    run = (
        "import sys; from pathlib import Path\n"
        "from ptbr_slm.data.sources.fetch import fetch\n"
        "from ptbr_slm.data.sources.origin import FetchOptions\n"
        "fetch('wikipedia-pt-dump', Path(sys.argv[1]), FetchOptions(mirror=sys.argv[2]))"
    )
    keep = lambda answer: None  # noqa: E731
    server.fail("multistream", keep, slow(0.02))  # the HEAD, then the body
    with subprocess.Popen(
        [sys.executable, "-c", run, str(out), server.url], stderr=subprocess.PIPE
    ) as process:
        part, deadline = out / ".fetch" / "part", time.monotonic() + 20
        while not (part.exists() and part.stat().st_size > 5_000) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.communicate()
    begun = part.stat().st_size
    assert 0 < begun < len(CONTENT)
    asked = len(server.requests)
    server.fail("multistream", cut_after(3_000), refuse(503), cut_after(900))
    assert bring(server, out).read_bytes() == CONTENT
    first = next(headers for _, path, headers in server.requests[asked:] if "multistream" in path)
    assert first["Range"] == f"bytes={begun}-{len(CONTENT) - 1}"


def test_a_file_that_changes_under_the_download_begins_again(server, tmp_path):
    keep = lambda answer: None  # noqa: E731
    server.fail("multistream", keep, cut_after(9_000), other_etag)
    notes: list[str] = []
    assert bring(server, tmp_path / "a", note=notes.append).read_bytes() == CONTENT
    assert any("mudou no servidor" in note for note in notes)
    server.fail("multistream", keep, other_etag, keep, other_etag)
    assert "mudou no servidor" in refusal(bring, server, tmp_path / "b").message


def test_a_wrong_checksum_begins_again_and_twice_is_an_error(server, tmp_path):
    keep = lambda answer: None  # noqa: E731
    server.fail("multistream", keep, flipped)
    assert bring(server, tmp_path / "a").read_bytes() == CONTENT
    server.fail("multistream", keep, flipped, keep, flipped)
    error = refusal(bring, server, tmp_path / "b")
    assert error.code == "E_FETCH" and "soma de verificação" in error.message
    assert not (tmp_path / "b").exists()


def test_a_limit_below_the_file_and_a_list_without_it_are_named(server, tmp_path):
    error = refusal(bring, server, tmp_path / "a", max_disk=1000)
    assert error.code == "E_USAGE" and str(len(CONTENT)) in error.hint
    server.files[LIST] = b"nada\n"
    assert "soma" in refusal(bring, server, tmp_path / "b").message


def test_a_pinned_file_needs_no_list(server, tmp_path, monkeypatch):
    server.files["/textos/livro.txt"] = b"Era uma vez."
    origin = replace(
        SOURCES["wikipedia-pt-dump"].origin,
        url="https://textos.example/textos/livro.txt",
        checksums="",
        checksum=hashlib.sha256(b"Era uma vez.").hexdigest(),
    )
    monkeypatch.setitem(SOURCES, "livro", replace(SOURCES["wikipedia-pt-dump"], origin=origin))
    path = fetch("livro", tmp_path / "livro", FetchOptions(mirror=server.url, policy=QUICK))
    assert path.read_bytes() == b"Era uma vez." and not server.asked("sha1sums")
