"""The Hugging Face hub's HTTP API, as huggingface_hub 2.4.0 uses it (`HfApi.list_repo_tree`, `hf_hub_url`).

    GET {endpoint}/api/datasets/{repo}/revision/{revision}              {"sha": commit, ...}
                                                                        with the card's YAML as `cardData`
    GET {endpoint}/api/datasets/{repo}/tree/{commit}/{folder}           [{"type", "path", "size", "lfs"}, ...]
    GET {endpoint}/datasets/{repo}/resolve/{commit}/{path}              a redirect to the store of large files

A listing has pages, each naming the next in its `Link` header. `lfs.oid` is the sha256 of a large file.
"""

from __future__ import annotations

import json
import os
import re
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
    git_sha1: str = ""
    """Of git's blob, for a small file."""


@dataclass(frozen=True, slots=True)
class HubDataset:
    """A dataset at one commit."""

    commit: str
    licence: str
    """What its card says: identifiers of the hub, such as `cc-by-4.0`; empty where it says none."""
    configs: tuple[Mapping[str, Any], ...]
    """The `configs` of its card, unchecked."""


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub, or a mirror of it."""

    http: HttpClient
    endpoint: str

    def commit(self, repo: str, revision: str) -> str:
        """The commit that a branch or tag of a dataset names now. Raises E_FETCH or E_NOT_FOUND."""
        return self.dataset(repo, revision).commit

    def dataset(self, repo: str, revision: str) -> HubDataset:
        """A dataset at the commit that a branch or tag names now. Raises E_FETCH or E_NOT_FOUND."""
        url = f"{self.endpoint}/api/datasets/{repo}/revision/{quote(revision, safe='')}"
        body = _json(self.http.get(url).content, url)
        sha = body.get("sha") if isinstance(body, dict) else None
        if not isinstance(sha, str) or not re.fullmatch(r"[0-9a-f]{40}", sha):
            raise fetch_error("a resposta do hub não diz o commit", url)
        card = body.get("cardData")
        card = card if isinstance(card, dict) else {}
        licence, configs = card.get("license") or [], card.get("configs")
        named = [licence] if isinstance(licence, str) else [str(each) for each in licence]
        found = configs if isinstance(configs, list) else []
        return HubDataset(sha, ", ".join(named), tuple(each for each in found if isinstance(each, dict)))

    def files(self, repo: str, commit: str, folder: str, *, recursive: bool = False) -> list[HubFile]:
        """The files directly in a folder of a dataset, or anywhere below, sorted by path.

        folder: empty for the whole repository. Raises E_FETCH, or E_NOT_FOUND where there is none.
        """
        url = f"{self.endpoint}/api/datasets/{repo}/tree/{commit}"
        url += f"/{quote(folder, safe='')}" if folder else ""
        found = []
        for page in self.http.pages(url + "?recursive=True" if recursive else url):
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
        path, size = str(entry["path"]), int(entry["size"])
        file = HubFile(path, size, str(lfs.get("oid", "")), "" if lfs else str(entry.get("oid", "")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise fetch_error("a lista de arquivos do hub tem uma linha sem nome ou tamanho", url) from error
    digest = file.sha256 or file.git_sha1
    if path.startswith("/") or "\\" in path or ".." in path.split("/") or not digest.isalnum():
        raise fetch_error("a lista de arquivos do hub tem um nome que não é de um arquivo", url)
    return file


def _json(content: bytes, url: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise fetch_error("a resposta não é JSON (um portal de Wi-Fi ou um proxy?)", url) from error
