"""`data fetch machado`: the complete works that NLTK's data hold, read from this machine without NLTK.

Kaggle's image has them under /usr/share/nltk_data (its Dockerfile lists `machado`): Portuguese with the
internet off. NLTK reads the files as Latin-1 and keeps the archive packed; both are found here.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ptbr_slm.errors import SlmError, os_errors

ENCODING = "latin-1"
"""Of the corpus, as `nltk.corpus.machado` declares it."""

TEXT_LICENCE = "domínio público"


def find(environment: Mapping[str, str] | None = None) -> Path:
    """The folder or the zip of the corpus, where NLTK would look. Raises E_FETCH where there is none."""
    for root in _roots(os.environ if environment is None else environment):
        for name in ("machado", "machado.zip"):
            found = root / "corpora" / name
            if found.exists():
                return found
    raise SlmError(
        "E_FETCH",
        "não achei as obras de Machado de Assis do NLTK neste computador.",
        where="nltk_data/corpora/machado.zip",
        hint="Com internet:  pip install nltk && python -m nltk.downloader machado   "
        "ou use  ptbr-slm data fetch dante",
    )


def write_texts(found: Path, path: Path) -> None:
    """Write each work as a JSON line with `text`, `source` and `license`. Raises E_FETCH if empty."""
    count = 0
    with os_errors(path), path.open("w", encoding="utf-8", newline="\n") as file:
        for name, raw in _works(found):
            line = {"text": raw.decode(ENCODING), "source": f"machado:{name}", "license": TEXT_LICENCE}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    if not count:
        raise SlmError(
            "E_FETCH",
            "a cópia do corpus machado do NLTK não tem textos.",
            where=found,
            hint="Baixe de novo:  python -m nltk.downloader machado",
        )


def _works(found: Path) -> Iterator[tuple[str, bytes]]:
    """(kind/work.txt, bytes) in the order of their names."""
    if found.is_dir():
        with os_errors(found):
            for path in sorted(found.glob("*/*.txt")):
                yield path.relative_to(found).as_posix(), path.read_bytes()
        return
    try:
        with os_errors(found), zipfile.ZipFile(found) as archive:
            for name in sorted(archive.namelist()):
                parts = name.split("/")  # machado/romance/marm05.txt
                if len(parts) == 3 and name.endswith(".txt") and not parts[-1].startswith("."):
                    yield "/".join(parts[1:]), archive.read(name)
    except zipfile.BadZipFile as error:
        raise SlmError(
            "E_FETCH",
            "o arquivo do corpus machado do NLTK está danificado.",
            where=found,
            hint="Baixe de novo:  python -m nltk.downloader machado",
        ) from error


def _roots(environment: Mapping[str, str]) -> list[Path]:
    """Where NLTK keeps data, as nltk.data does: the variable, the home, the environment, the system."""
    given = [Path(part) for part in environment.get("NLTK_DATA", "").split(os.pathsep) if part]
    system = ("/usr/share/nltk_data", "/usr/local/share/nltk_data", "/usr/lib/nltk_data")
    return [
        *given,
        Path.home() / "nltk_data",
        Path(sys.prefix) / "nltk_data",
        Path(sys.prefix) / "share" / "nltk_data",
        *map(Path, system),
    ]


LICENCE = """\
# De onde vêm estes textos

`machado.jsonl` foi feito por `ptbr-slm data fetch machado` a partir do corpus `machado` dos dados do
[NLTK](https://www.nltk.org/nltk_data/) que já estava neste computador: a obra completa de Machado de Assis
(1839-1908), publicada em <http://machado.mec.gov.br> pelo Ministério da Educação.

As obras estão em **domínio público** no Brasil: o autor morreu em 1908, e o prazo é de 70 anos
(Lei 9.610/1998, art. 41). O NLTK declara o corpus como «Public Domain».

O que mudamos: só a codificação, de Latin-1 para UTF-8. Cada linha tem `text`, `source` e `license`.
"""
