"""Names of the form `hf://datasets/OWNER/NAME[@REVISION][/PATH]`, and which files of a dataset they mean.

The form is that of huggingface_hub's `HfFileSystem`. PATH is a file, a folder or a pattern; without one it is
the training part of the set's default configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ptbr_slm.data.read.files import FORMATS, format_of, is_about
from ptbr_slm.errors import SlmError

if TYPE_CHECKING:
    from ptbr_slm.data.sources.hub import Hub, HubDataset, HubFile

PREFIX = "hf://"
_REVISION = re.compile(r"refs(?:/|%2F)(?:convert(?:/|%2F)[\w.-]+|pr(?:/|%2F)\d+)|[^/]+")
"""huggingface_hub's `_SPECIAL_REFS_REVISION_REGEX`: the only revisions whose slashes need no escape."""
_PART = r"\w+(?:(?:\.-?|-\.?)\w+)*"
"""Of a repository's name, as huggingface_hub's `validate_repo_id` allows it."""
MAGIC = re.compile(r"[*?\[]")
_HELD_OUT = re.compile(r"(?:^|[/._-])(?:validation|valid|val|dev|testing|test|evaluation|eval)(?=$|[/._-])")
"""Parts of a path by which `datasets` tells the splits that are not for training (data_files.py)."""


@dataclass(frozen=True, slots=True)
class HubName:
    """A parsed `hf://` name."""

    repo: str
    revision: str
    path: str
    """In the repository: a file, a folder, a pattern; empty for the default configuration."""

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Raises E_USAGE for what names no dataset."""
        rest = text.removeprefix(PREFIX).removeprefix("datasets/")
        found = re.fullmatch(rf"({_PART}/{_PART})(?:@([^@]+?))?(?:/+(.*))?", rest)
        if not text.startswith(f"{PREFIX}datasets/") or found is None:
            raise _bad_name(text)
        repo, path = found[1], found[3] or ""
        revision = "main"
        if found[2] is not None:
            after = rest.partition("@")[2]
            matched = _REVISION.match(after)
            assert matched is not None  # of one character at least that is no slash
            revision, path = unquote(matched[0]), after[matched.end() :].lstrip("/")
        return cls(repo, revision, path.rstrip("/"))

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{PREFIX}datasets/{self.repo}{revision}" + (f"/{self.path}" if self.path else "")


def is_hub_name(path: Path) -> bool:
    """Whether an input, as a path that has lost the second slash of `hf://`, is a name of the hub."""
    return path.parts[:1] == ("hf:",)


def shown(path: Path) -> str:
    """An input as it was typed."""
    return PREFIX + path.as_posix().removeprefix("hf:").lstrip("/") if is_hub_name(path) else str(path)


def files_of(
    name: HubName, hub: Hub, dataset: HubDataset, note: Callable[[str], None] = lambda text: None
) -> list[HubFile]:
    """The files of a dataset that a name means.

    note: told, in Portuguese, what is left out. Raises E_NOT_FOUND for no file, E_DATA_FORMAT where none can
    be read, E_USAGE for a set of several configurations without a default one, or E_FETCH.
    """
    commit = dataset.commit
    if not name.path:
        found = _default_files(hub, name, dataset, note)
    elif MAGIC.search(name.path):
        fixed = PurePosixPath(MAGIC.split(name.path)[0] + "x").parent.as_posix().removeprefix(".")
        pattern = glob_pattern(name.path)
        found = [file for file in hub.files(name.repo, commit, fixed, recursive=True) if pattern(file.path)]
    else:
        found = _file_or_folder(hub, name, commit)
    if not found:
        raise SlmError(
            "E_NOT_FOUND",
            "o conjunto não tem arquivos com este nome.",
            where=str(name),
            hint=f"Veja os arquivos em {hub.endpoint}/datasets/{name.repo}/tree/{name.revision}",
        )
    readable = [file for file in found if format_of(file.path) and not is_about(Path(file.path).name)]
    if not readable:
        raise SlmError(
            "E_DATA_FORMAT",
            f"não sei ler {PurePosixPath(found[0].path).suffix or 'este tipo de arquivo'} como texto.",
            where=str(name),
            hint=f"Leio {', '.join(FORMATS)}. O hub converte muitos conjuntos para Parquet:  "
            f"'{PREFIX}datasets/{name.repo}@refs/convert/parquet/**.parquet'",
        )
    return readable


def _file_or_folder(hub: Hub, name: HubName, commit: str) -> list[HubFile]:
    parent = PurePosixPath(name.path).parent.as_posix().removeprefix(".")
    same = [file for file in hub.files(name.repo, commit, parent) if file.path == name.path]
    return same or hub.files(name.repo, commit, name.path, recursive=True)


def _default_files(
    hub: Hub, name: HubName, dataset: HubDataset, note: Callable[[str], None]
) -> list[HubFile]:
    """The training files of the default configuration; without one in the card, the Parquet files.

    The card's `configs` are those of `datasets` (hub docs, "manual configuration"): `data_files` is a
    pattern, a list of them, or a list of `split` and `path`.
    """
    everything = hub.files(name.repo, dataset.commit, "", recursive=True)
    config = _default_config(dataset.configs, name)
    if config is None:
        found = [file for file in everything if file.path.endswith(".parquet")]
        train = [file for file in found if not _HELD_OUT.search(file.path.lower())]
        found, left = (train, len(found) - len(train)) if train else (found, 0)
    else:
        listed = _split_patterns(config)
        train_splits = [split for split in listed if split.startswith("train")]
        used = train_splits or list(listed)
        patterns = [glob_pattern(path) for split in used for path in listed[split]]
        found = [file for file in everything if any(pattern(file.path) for pattern in patterns)]
        left = len(listed) - len(used)
    if not found:
        raise SlmError(
            "E_NOT_FOUND",
            "o conjunto não diz quais são seus arquivos, e não tem nenhum .parquet.",
            where=str(name),
            hint=f"Diga quais, por exemplo  '{name}/**.jsonl.gz'  (veja-os em "
            f"{hub.endpoint}/datasets/{name.repo}/tree/{name.revision}).",
        )
    if left:
        note(f"{name}: só a parte de treino; as de validação e teste ficam de fora.")
    return found


def _default_config(configs: Sequence[Mapping[str, Any]], name: HubName) -> Mapping[str, Any] | None:
    """The configuration that `datasets` loads where none is named. Raises E_USAGE where it would ask."""
    named = [config for config in configs if config.get("data_files")]
    chosen = next((config for config in named if config.get("default") is True), None)
    chosen = chosen or next((config for config in named if config.get("config_name") == "default"), None)
    if chosen is None and len(named) > 1:
        first = next(iter(_split_patterns(named[0]).values()), ["data"])[0]
        names = [str(config.get("config_name", "?")) for config in named]
        listed = ", ".join(names[:12]) + ("..." if len(names) > 12 else "")
        raise SlmError(
            "E_USAGE",
            f"o conjunto tem {len(names)} configurações, e nenhuma é a padrão: {listed}.",
            where=str(name),
            hint=f"Escolha os arquivos de uma, por exemplo:  '{name}/{first}'",
        )
    return chosen or (named[0] if named else None)


def _split_patterns(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Split -> patterns of its files, in the folder `data_dir` where the configuration names one."""
    files = config["data_files"]
    entries = files if isinstance(files, list) else [files]
    found: dict[str, list[str]] = {}
    for entry in entries:
        split, paths = "train", entry
        if isinstance(entry, Mapping):
            split, paths = str(entry.get("split") or "train"), entry.get("path")
        for path in paths if isinstance(paths, list) else [paths]:
            if isinstance(path, str):
                inside = PurePosixPath(str(config.get("data_dir") or "")) / path.removeprefix("./")
                found.setdefault(split, []).append(inside.as_posix())
    return found


def glob_pattern(pattern: str) -> Callable[[str], bool]:
    """A function that tells whether a path matches: `*` and `?` stay in a folder, `**` goes into all."""
    at, regex = 0, ""
    while at < len(pattern):
        rest = pattern[at:]
        if rest.startswith("**/"):
            regex, at = regex + r"(?:[^/]+/)*", at + 3
        elif rest.startswith("**"):
            regex, at = regex + ".*", at + 2
        elif rest[0] == "*":
            regex, at = regex + "[^/]*", at + 1
        elif rest[0] == "?":
            regex, at = regex + "[^/]", at + 1
        elif found := re.match(r"\[(!?)([^]/]+)]", rest):
            inside = re.sub(r"([\\\[^&~|])", r"\\\1", found[2])
            regex, at = regex + f"[{'^/' if found[1] else ''}{inside}]", at + found.end()
        else:
            regex, at = regex + re.escape(rest[0]), at + 1
    try:
        compiled = re.compile(regex, re.DOTALL)
    except re.error:  # a range from right to left
        return lambda path: path == pattern
    return lambda path: compiled.fullmatch(path) is not None


def _bad_name(text: str) -> SlmError:
    return SlmError(
        "E_USAGE",
        "não é o nome de um conjunto de dados do Hugging Face.",
        where=text,
        hint="Escreva hf://datasets/DONO/NOME, com @REVISÃO e um caminho se quiser:  "
        "'hf://datasets/wikimedia/wikipedia@main/20231101.pt/*.parquet'",
    )
