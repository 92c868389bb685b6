"""A folder for `kaggle kernels push`: kernel-metadata.json, the notebook, and conversations to begin with.

Field names: docs/kernels_metadata.md of Kaggle/kaggle-cli (2026-09).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import write_bytes, write_json

NOTEBOOK = "treinar_no_kaggle.ipynb"
METADATA = "kernel-metadata.json"
CONVERSATIONS = "conversas.jsonl"
"""The form of the data of `ptbr-slm tune`. A push leaves it behind: a user's own goes up as a dataset."""

MACHINE = "NvidiaTeslaT4"
"""Two T4 cards: Kaggle has no single one (kaggle-cli#1198). Left out, or misspelt, the server gives a P100
without a word, which PyTorch has no kernels for; the flag `--accelerator` did not help (kaggle-cli#821)."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_SOURCE = re.compile(r"[A-Za-z0-9-]+/[a-z0-9-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class KaggleProject:
    """What to push."""

    user: str
    """Kaggle user name, as in kaggle.com/USER."""
    title: str
    """Of the notebook, at least five characters; its slug follows from it."""
    internet: bool = True
    datasets: Sequence[str] = ()
    """`user/dataset` to mount below /kaggle/input, wheels included."""
    notebooks: Sequence[str] = ()
    """`user/notebook` whose newest output to mount: the version to continue from."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", self.user):
            raise _usage(
                f"{self.user!r} não é um nome de usuário do Kaggle.",
                "--user",
                "É o que vem depois de kaggle.com/ na sua página: letras, números e hífens.",
            )
        if len(self.title.strip()) < 5 or not _NAME.fullmatch(self.slug):
            raise _usage(
                f"o título {self.title!r} é curto demais para o Kaggle.",
                "--title",
                "Use pelo menos cinco letras ou números, como --title 'Meu modelo de português'.",
            )
        for option, sources in (("--dataset", self.datasets), ("--continue-from", self.notebooks)):
            for source in sources:
                if not _SOURCE.fullmatch(source):
                    raise _usage(
                        f"{source!r} não tem a forma USUARIO/NOME.",
                        option,
                        "É o fim do endereço da página no Kaggle, como maria/meus-textos.",
                    )

    @property
    def slug(self) -> str:
        """The title in lower case without accents, dashes for the rest: what Kaggle makes of it."""
        plain = unicodedata.normalize("NFKD", self.title).encode("ascii", "ignore").decode("ascii")
        return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")

    @property
    def identifier(self) -> str:
        """`user/slug`."""
        return f"{self.user}/{self.slug}"

    def metadata(self) -> dict[str, Any]:
        """kernel-metadata.json."""
        return {
            "id": self.identifier,
            "title": self.title,
            "code_file": NOTEBOOK,
            "language": "python",
            "kernel_type": "notebook",
            "is_private": True,
            "enable_gpu": True,
            "enable_tpu": False,
            "enable_internet": self.internet,
            "machine_shape": MACHINE,
            "dataset_sources": list(self.datasets),
            "competition_sources": [],
            "kernel_sources": list(self.notebooks),
            "model_sources": [],
        }


def write_project(folder: Path, project: KaggleProject) -> None:
    """Write the files into `folder`. Raises E_EXISTS where one is there: somebody may have edited it."""
    for name in (METADATA, NOTEBOOK, CONVERSATIONS):
        if (folder / name).exists():
            raise SlmError(
                "E_EXISTS",
                f"já existe um {name} aqui, e não vou substituí-lo.",
                where=folder / name,
                hint="Escolha outra pasta; ou apague o arquivo, se não precisa mais dele.",
            )
    notebook, conversations = _shipped(NOTEBOOK), example_conversations()
    with os_errors(notebook):
        contents = {path.name: path.read_bytes() for path in (notebook, conversations)}
    for name, content in contents.items():
        write_bytes(folder / name, content)
    write_json(folder / METADATA, project.metadata())


def example_conversations() -> Path:
    """The conversations of examples/, which the notebook tunes with where it is given none.

    Raises E_NOT_FOUND.
    """
    return _shipped(CONVERSATIONS)


def _shipped(name: str) -> Path:
    """A file of examples/: inside the package in a wheel, in the repository in a checkout."""
    here = Path(__file__).resolve()
    examples = here.parents[2] / "examples"
    for folder in (here.parent, examples / "kaggle", examples):
        if (folder / name).is_file():
            return folder / name
    raise SlmError(
        "E_NOT_FOUND",
        f"o arquivo {name} não veio nesta instalação.",
        where=name,
        hint="Instale de novo:  pip install --force-reinstall --no-deps ptbr-slm",
    )


def _usage(message: str, where: str, hint: str) -> SlmError:
    return SlmError("E_USAGE", message, where=where, hint=hint)
