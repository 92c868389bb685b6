"""`data fetch`: a source by its name becomes a folder of texts, LICENCA.md and a manifest."""

from __future__ import annotations

import os
from pathlib import Path

from ptbr_slm.data.sources.catalogue import SOURCES, Source, licence_text
from ptbr_slm.data.sources.hub_parquet import HubParquet
from ptbr_slm.data.sources.origin import KIND, FetchOptions, Task, is_unfinished
from ptbr_slm.data.sources.packages import Converted
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import may_replace
from ptbr_slm.storage.manifest import NAME as MANIFEST
from ptbr_slm.storage.manifest import Manifest, read_manifest
from ptbr_slm.text import human_bytes

LARGE_BYTES = 20 * 10**9
"""A source with more text than this needs a limit: Kaggle's working folder holds 20 GB."""


def fetch(name: str, out: Path, options: FetchOptions | None = None) -> Path:
    """Put the corpus `name` into the folder `out` and return the file or folder of its texts.

    A folder that holds what is asked for, intact, is used as it is, so a second call needs no network; one
    that a killed call left is continued, and one that holds less is added to.
    Raises E_USAGE, E_FETCH, E_EXISTS, E_LOCKED, E_DISK_FULL, E_PERMISSION or E_DEPENDENCY.
    """
    options = options or FetchOptions()
    source = SOURCES.get(name)
    if source is None:
        raise SlmError(
            "E_USAGE",
            f"não conheço o conjunto de dados {name!r}.",
            where="ptbr-slm data fetch",
            hint="Use:  ptbr-slm data fetch " + "  ou  ".join(SOURCES),
        )
    manifest = fetched(out)
    if manifest is not None and _is_enough(manifest, name, source, options):
        return _texts(out, name, manifest)
    _require_terms(name, source, options)
    _require_limit(name, source, options)
    if not (may_replace(out, KIND) or is_unfinished(out, name)):
        raise SlmError(
            "E_EXISTS",
            "o destino já existe e tem outras coisas: não vou substituí-lo.",
            where=out,
            hint="Escolha outra pasta em --output.",
        )
    _say_what_does_not_apply(name, source, options)
    return source.origin.bring(Task(name, out, licence_text(name, source), options))


def fetched(out: Path) -> Manifest | None:
    """The manifest of a folder that `fetch` finished, checked; None for another or a damaged one."""
    if not (out / MANIFEST).is_file():
        return None
    try:
        manifest = read_manifest(out)
    except SlmError:
        return None  # fetched again, as far as it is damaged
    return manifest if manifest.kind == KIND else None


def _is_enough(manifest: Manifest, name: str, source: Source, options: FetchOptions) -> bool:
    """Whether the folder holds the source, of the same version and filter, up to the budget."""
    made_from = {"name": name, **source.origin.pins()}
    if any(manifest.extra.get(key) != value for key, value in made_from.items()):
        return False
    if isinstance(source.origin, Converted) or "text_bytes" not in manifest.extra:
        return True
    if (manifest.extra.get("where"), manifest.extra.get("preset")) != (options.where, options.preset):
        return False
    wanted = options.text_bytes
    whole = manifest.extra["stopped"] == "end"
    return whole or (wanted is not None and manifest.extra["text_bytes"] >= wanted)


def _texts(out: Path, name: str, manifest: Manifest) -> Path:
    """The one file of texts, or the folder of several."""
    files = [file for file in manifest.files if file not in ("LICENCA.md", MANIFEST)]
    return out if "shards" in manifest.extra else out / next(iter(files), f"{name}.jsonl")


def _require_terms(name: str, source: Source, options: FetchOptions) -> None:
    """Refuse what is not free for every use until the user accepts it, and a gated set without a token."""
    licence = source.licence
    if not licence.commercial and not options.accept_license:
        raise SlmError(
            "E_USAGE",
            f"{name} tem partes que não podem ter uso comercial: {licence.chain[0]}.",
            where=licence.url,
            hint="Leia os termos; se servem, repita com --accept-license. Sem restrição:  "
            "ptbr-slm data fetch fineweb2-pt",
        )
    if licence.gated and not os.environ.get("HF_TOKEN"):
        raise SlmError(
            "E_USAGE",
            f"{name} exige aceitar os termos na página do conjunto.",
            where=licence.url,
            hint="Aceite-os lá, crie um token de leitura e ponha-o na variável HF_TOKEN.",
        )


def _say_what_does_not_apply(name: str, source: Source, options: FetchOptions) -> None:
    """Refuse a filter, and tell that there is no budget, for a source that comes whole."""
    if isinstance(source.origin, HubParquet):
        return
    if options.where or options.preset:
        raise SlmError(
            "E_USAGE",
            f"{name} vem inteiro, sem filtro no caminho.",
            where="--where, --preset",
            hint=f"Repita sem o filtro:  ptbr-slm data fetch {name}",
        )
    if options.tokens is not None:
        options.note(f"{name} vem inteiro: --tokens não o corta.")


def _require_limit(name: str, source: Source, options: FetchOptions) -> None:
    if options.tokens is None and options.max_disk is None and (source.text_bytes or 0) > LARGE_BYTES:
        raise SlmError(
            "E_USAGE",
            f"{name} tem {human_bytes(source.text_bytes or 0)} de texto: diga quanto quer.",
            where="--tokens",
            hint=f"Por exemplo:  ptbr-slm data fetch {name} --tokens 2B",
        )
