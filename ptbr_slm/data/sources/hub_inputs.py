"""Inputs that are names of the Hugging Face hub (`hub_names`), as files on this machine.

They are downloaded before they are read, into the cache of huggingface_hub (its snapshots/COMMIT layout),
because:

- they are read twice and more, by `tokenizer train`, by `data prepare` and by its second try after a kill;
- a download goes on where it was cut, and its sha256 is compared before a document is read;
- every format and compression is read from a file, not only Parquet;
- what other programs downloaded is used as it is, and what comes here serves them.

A corpus larger than the disk is for `data fetch`, which keeps a part of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptbr_slm.data.sources.hub_names import HubName, files_of, is_hub_name, shown
from ptbr_slm.data.sources.origin import RetryPolicy, fetch_error
from ptbr_slm.errors import SlmError, missing_extra, os_errors
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.storage.lock import Lock, try_lock
from ptbr_slm.storage.manifest import sha256_file
from ptbr_slm.storage.output import make_folder
from ptbr_slm.text import human_bytes

if TYPE_CHECKING:
    from ptbr_slm.data.sources.hub import Hub, HubFile

_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class HubPin:
    """What of the hub an input was, to be had again."""

    repo: str
    revision: str
    """As it was asked for."""
    path: str
    commit: str
    licence: str
    """As the set's card says, an identifier of the hub; empty where it says none."""
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LocalInputs:
    """Inputs that are all on this machine."""

    paths: tuple[Path, ...]
    hub: tuple[HubPin, ...] = ()
    """Where those that came from the hub are from."""

    @property
    def licence(self) -> str:
        """The licences that the cards say; empty where one of them says none."""
        named = dict.fromkeys(pin.licence for pin in self.hub)
        return "" if "" in named else ", ".join(named)


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """How to download."""

    policy: RetryPolicy = RetryPolicy()  # noqa: RUF009  (frozen)
    progress: Callable[[int, int], None] = lambda received, total: None
    """Told bytes of the files of one input: those that are here, and all."""
    note: Callable[[str], None] = lambda text: None


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The cache of huggingface_hub (constants.py): HF_HUB_CACHE, or `hub` in HF_HOME, or in ~/.cache."""
    found = os.environ if environment is None else environment
    if asked := found.get("HF_HUB_CACHE") or found.get("HUGGINGFACE_HUB_CACHE"):
        return Path(asked).expanduser()
    home = found.get("HF_HOME") or Path(found.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def local_inputs(inputs: Sequence[Path], options: DownloadOptions | None = None) -> LocalInputs:
    """`inputs`, with the files of the hub that they name downloaded and in their place.

    No network is used where no input is a name of the hub, nor for a path of a commit (`@` and 40 digits)
    that an earlier call brought. Killed, a call goes on where it was.
    Raises E_USAGE for a name that is none; E_NOT_FOUND for a repository, revision or path that does not
    exist; E_DATA_FORMAT for files of another kind; E_FETCH, E_LOCKED, E_DISK_FULL, E_PERMISSION or
    E_DEPENDENCY.
    """
    if not any(map(is_hub_name, inputs)):
        return LocalInputs(tuple(inputs))
    paths: list[Path] = []
    pins: list[HubPin] = []
    for given in inputs:
        if not is_hub_name(given):
            paths.append(given)
            continue
        files, pin = _bring(HubName.parse(shown(given)), options or DownloadOptions())
        paths += files
        pins.append(pin)
    return LocalInputs(tuple(dict.fromkeys(paths)), tuple(pins))


def already_here(name: HubName) -> list[HubName]:
    """The commits of a name's path that earlier calls brought, the last one first. No network is used."""
    folder = cache_folder() / f"datasets--{name.repo.replace('/', '--')}"
    return [pinned for pinned in reversed(_pinned(name, folder)) if _earlier(folder, pinned) is not None]


def _pinned(name: HubName, folder: Path) -> list[HubName]:
    """A name at each commit of which an earlier call recorded something, the last one last."""
    records = sorted((folder / "ptbr-slm").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    commits = [file.stem for file in records]
    return [replace(name, revision=commit) for commit in commits if name.path in _seen(folder, commit)]


def _bring(name: HubName, options: DownloadOptions) -> tuple[list[Path], HubPin]:
    """The files of one name in the cache, sorted by their paths at the hub, and what they are."""
    folder = cache_folder() / f"datasets--{name.repo.replace('/', '--')}"
    earlier = _earlier(folder, name)
    if earlier is not None:
        return earlier
    try:
        from ptbr_slm.data.sources.http import Changed, HttpClient
    except ModuleNotFoundError as error:
        raise missing_extra("requests") from error
    from ptbr_slm.data.sources.hub import Hub, endpoint, hub_token

    where = endpoint("")
    hub = Hub(HttpClient(hub_token(), where, options.policy, options.note), where)
    with _explaining(name, folder):
        dataset = hub.dataset(name.repo, name.revision)
        files = files_of(name, hub, dataset, options.note)
        try:
            _download_all(hub, name, dataset.commit, files, folder, options)
        except Changed as error:
            raise fetch_error("o arquivo do servidor não é o que o commit anuncia", str(name)) from error
    size = sum(file.size for file in files)
    pin = HubPin(name.repo, name.revision, name.path, dataset.commit, dataset.licence, len(files), size)
    paths = [file.path for file in files]
    seen = _seen(folder, dataset.commit)
    write_json(_seen_file(folder, dataset.commit), {**seen, name.path: {**asdict(pin), "paths": paths}})
    return [folder / "snapshots" / dataset.commit / path for path in paths], pin


def _earlier(folder: Path, name: HubName) -> tuple[list[Path], HubPin] | None:
    """What an earlier call brought for a path of a commit, where all of it is still here."""
    if not re.fullmatch(r"[0-9a-f]{40}", name.revision):
        return None
    entry = dict(_seen(folder, name.revision).get(name.path, {}))
    try:
        paths = [folder / "snapshots" / name.revision / path for path in entry.pop("paths")]
        pin = replace(HubPin(**entry), revision=name.revision)
        whole = paths and sum(path.stat().st_size for path in paths) == pin.bytes
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return (paths, pin) if whole else None


def _seen(folder: Path, commit: str) -> dict[str, Any]:
    """Path of a name -> its pin and files, of the earlier calls."""
    try:
        body = json.loads(_seen_file(folder, commit).read_bytes())
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _seen_file(folder: Path, commit: str) -> Path:
    return folder / "ptbr-slm" / f"{commit}.json"


@contextmanager
def _explaining(name: HubName, folder: Path) -> Iterator[None]:
    """Tell by its name what the hub does not have and, without a network, what an earlier call brought."""
    try:
        yield
    except SlmError as error:
        if error.code == "E_NOT_FOUND":
            raise SlmError(error.code, error.message, where=str(name), hint=error.hint) from error
        pinned = _pinned(name, folder)
        if error.code != "E_FETCH" or not pinned:
            raise
        hint = f"{error.hint} Sem rede, use o que já veio:  '{pinned[-1]}'"
        raise SlmError(error.code, error.message, where=error.where, hint=hint) from error


def _download_all(
    hub: Hub, name: HubName, commit: str, files: Sequence[HubFile], folder: Path, options: DownloadOptions
) -> None:
    """Put every file that is not in the cache there. Raises Changed where a file is not the listed one."""
    snapshot = folder / "snapshots" / commit
    total = sum(file.size for file in files)
    missing = [file for file in files if not _is_there(snapshot / file.path, file.size)]
    present = total - sum(file.size for file in missing)
    options.progress(present, total)
    if not missing:
        return
    make_folder(folder)
    need = total - present - sum(_size(_part(folder, file)) for file in missing)
    with os_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < need + _SPARE_BYTES:
        raise SlmError(
            "E_DISK_FULL",
            f"só há {human_bytes(free)} livres, e faltam {human_bytes(need)} de {name}.",
            where=folder,
            hint="Escolha menos arquivos, ponha o cache em outro disco (HF_HOME), ou traga só uma parte:  "
            "ptbr-slm data fetch --list",
        )
    options.note(f"{name}: baixo {human_bytes(need)} para {cache_folder()}")
    for file in missing:
        done = _download(hub, name, commit, file, folder, options, present, total)
        target = snapshot / file.path
        with os_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            done.replace(target)
        present += file.size


def _download(
    hub: Hub,
    name: HubName,
    commit: str,
    file: HubFile,
    folder: Path,
    options: DownloadOptions,
    present: int,
    total: int,
) -> Path:
    """A file, whole and compared with its digest; one that is not what was listed is fetched once more."""
    from ptbr_slm.data.sources.http import Changed

    part = _part(folder, file)
    with _locked(part, name):
        for again in (False, True):
            here = present + _size(part)

            def progress(count: int) -> None:
                nonlocal here
                here += count
                options.progress(here, total)

            hub.http.download(hub.remote(name.repo, commit, file), part, progress=progress)
            if _digest_of(part, file) in (file.sha256, file.git_sha1):
                return part
            part.unlink()
            if not again:
                options.note(f"{file.path} chegou danificado: baixo de novo.")
        raise Changed(file.path)


@contextmanager
def _locked(part: Path, name: HubName) -> Iterator[None]:
    """Hold the lock beside the part. Raises E_LOCKED where another process downloads the same file."""
    path = part.with_suffix(".lock")
    make_folder(part.parent)
    with os_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if try_lock(handle) is Lock.BUSY:
            raise SlmError(
                "E_LOCKED",
                "outro processo está baixando este arquivo.",
                where=str(name),
                hint="Espere ele terminar e repita o comando: o que ele baixar já serve.",
            )
        yield
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)


def _digest_of(path: Path, file: HubFile) -> str:
    """The digest by which the listing names the content: sha256, or for a small file git's."""
    if file.sha256:
        return sha256_file(path)
    with os_errors(path):
        content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _part(folder: Path, file: HubFile) -> Path:
    return folder / "ptbr-slm" / f"{file.sha256 or file.git_sha1}.part"


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
