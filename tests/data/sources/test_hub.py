"""Our reading of the hub's API against huggingface_hub's own, on the server that the other tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer, serving

from ptbr_slm.data.sources.http import HttpClient
from ptbr_slm.data.sources.hub import Hub, HubFile, endpoint, hub_token

huggingface_hub = pytest.importorskip("huggingface_hub")

REPO, FOLDER = "ana/textos do sul".replace(" ", "-"), "data/por_Latn/train"
FILES = {f"{FOLDER}/00{i}_00000.parquet": bytes([i]) * (100 + i) for i in range(5)}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serving(HubServer()) as running:
        for path, content in FILES.items():
            running.add(REPO, path, content)
        yield running


def test_the_listing_and_the_commit_are_what_huggingface_hub_reads(server: HubServer):
    ours = Hub(HttpClient(), server.url)
    api = huggingface_hub.HfApi(endpoint=server.url, token=False)
    tree = api.list_repo_tree(REPO, FOLDER, repo_type="dataset", revision=COMMIT)
    theirs = [HubFile(f.path, f.size, f.lfs.sha256) for f in tree if hasattr(f, "lfs")]
    assert ours.files(REPO, COMMIT, FOLDER) == theirs and len(theirs) == len(FILES)
    assert ours.commit(REPO, "main") == api.dataset_info(REPO, revision="main").sha == COMMIT


def test_the_content_is_where_huggingface_hub_finds_it(server: HubServer, tmp_path: Path):
    hub = Hub(HttpClient(), server.url)
    file = hub.files(REPO, COMMIT, FOLDER)[3]
    remote = hub.remote(REPO, COMMIT, file)
    assert remote.url == huggingface_hub.hf_hub_url(
        REPO, file.path, repo_type="dataset", revision=COMMIT, endpoint=server.url
    )
    metadata = huggingface_hub.get_hf_file_metadata(remote.url, token=False)
    assert (metadata.etag, metadata.size, metadata.commit_hash) == (file.sha256, file.size, COMMIT)
    assert hub.http.read(remote, 0, file.size) == FILES[file.path]


def test_endpoint_and_token_come_from_the_environment_as_theirs_do():
    assert endpoint("", {}) == "https://huggingface.co"
    assert endpoint("", {"HF_ENDPOINT": "https://espelho/"}) == "https://espelho"
    assert endpoint("https://meu", {"HF_ENDPOINT": "https://espelho"}) == "https://meu"
    assert hub_token({"HF_TOKEN": "hf_x\r\n"}) == "hf_x" and hub_token({}) == ""
