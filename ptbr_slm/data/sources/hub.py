"""The Hugging Face hub's HTTP API, as huggingface_hub 2.4.0 uses it (`HfApi.list_repo_tree`, `hf_hub_url`).

    GET {endpoint}/api/datasets/{repo}/revision/{revision}              {"sha": commit, ...}
    GET {endpoint}/api/datasets/{repo}/tree/{commit}/{folder}           [{"type", "path", "size", "lfs"}, ...]
    GET {endpoint}/datasets/{repo}/resolve/{commit}/{path}              a redirect to the store of large files

A listing has pages, each naming the next in its `Link` header. `lfs.oid` is the sha256 of a large file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ptbr_slm.data.sources.http import HttpClient, RemoteFile
from ptbr_slm.data.sources.origin import fetch_error

DEFAULT_ENDPOINT = "https://huggingface.co"


def endpoint(mirror: str, environment: Mapping[str, str] | None = None) -> str:
    """Where the hub is: a mirror that was asked for, else HF_ENDPOINT, else huggingface.co."""
    found = mirror or (os.environ if environment is None else environment).get("HF_ENDPOINT", "")
    return (found or DEFAULT_ENDPOINT).rstrip("/")


def hub_token(environment: Mapping[str, str] | None = None) -> str:
    """HF_TOKEN, without the line end that a copied secret may carry; empty where there is none."""
    return "".join((os.environ if environment is None else environment).get("HF_TOKEN", "").split())


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository at one commit."""

    path: str
    size: int
    """Bytes."""
    sha256: str
    """Empty for a small file, which git keeps itself."""


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub, or a mirror of it."""

    http: HttpClient
    endpoint: str

    def commit(self, repo: str, revision: str) -> str:
        """The commit that a branch or tag of a dataset names now. Raises E_FETCH."""
        url = f"{self.endpoint}/api/datasets/{repo}/revision/{quote(revision, safe='')}"
        body = _json(self.http.get(url).content, url)
        sha = body.get("sha") if isinstance(body, dict) else None
        if not isinstance(sha, str) or not sha:
            raise fetch_error("a resposta do hub não diz o commit", url)
        return sha

    def files(self, repo: str, commit: str, folder: str) -> list[HubFile]:
        """The files directly in a folder of a dataset, sorted by path. Raises E_FETCH."""
        url = f"{self.endpoint}/api/datasets/{repo}/tree/{commit}/{quote(folder, safe='')}"
        found = []
        for page in self.http.pages(url):
            entries = _json(page.content, url)
            if not isinstance(entries, list):
                raise fetch_error("a lista de arquivos do hub não é uma lista", url)
            found += [_hub_file(entry, url) for entry in entries if entry.get("type") == "file"]
        return sorted(found, key=lambda file: file.path)

    def remote(self, repo: str, commit: str, file: HubFile) -> RemoteFile:
        """Where the content of a file is."""
        url = f"{self.endpoint}/datasets/{repo}/resolve/{commit}/{quote(file.path)}"
        return RemoteFile(url, file.size, file.sha256)


def _hub_file(entry: Mapping[str, Any], url: str) -> HubFile:
    lfs = entry.get("lfs") or {}
    try:
        return HubFile(str(entry["path"]), int(entry["size"]), str(lfs.get("oid", "")))
    except (KeyError, TypeError, ValueError) as error:
        raise fetch_error("a lista de arquivos do hub tem uma linha sem nome ou tamanho", url) from error


def _json(content: bytes, url: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise fetch_error("a resposta não é JSON (um portal de Wi-Fi ou um proxy?)", url) from error
