"""`ptbr-slm data fetch`: brings a corpus by its name, or lists those that there are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptbr_slm.cli.command import command
from ptbr_slm.cli.output import Output, Report
from ptbr_slm.cli.progress import Progress
from ptbr_slm.errors import SlmError
from ptbr_slm.text import human_bytes, number, quoted

if TYPE_CHECKING:
    from ptbr_slm.data.sources.catalogue import Source
    from ptbr_slm.data.sources.hub_inputs import DownloadOptions
    from ptbr_slm.data.sources.origin import Status

_AMOUNT = re.compile(r"(\d+(?:[.,]\d+)?)\s*([kmgtb]?)(i?)b?", re.IGNORECASE)
_THOUSANDS = {"": 0, "k": 1, "m": 2, "g": 3, "b": 3, "t": 4}
_PANEL = "Rede e disco"


def register_fetch(group: typer.Typer) -> None:
    """Add `fetch` to the group `data`."""
    command(
        group,
        "fetch",
        examples={
            "ptbr-slm data fetch --list": "As fontes que há",
            "ptbr-slm data fetch dante": "Notícias e teses: 23 MB, em dados/dante",
            "ptbr-slm data fetch fineweb2-pt --tokens 100M -o textos": "Páginas da internet, só um pedaço",
        },
    )(fetch)


def fetch(
    out: Output,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NOME", help="A fonte: veja os nomes com --list.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="PASTA", help="Onde gravar (padrão: dados/NOME).")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens", metavar="N", help="Para ao chegar a N tokens: 500M, 2B (4,4 bytes por token)."
        ),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="Mostra as fontes, o tamanho e a licença de cada uma.")
    ] = False,
    where: Annotated[
        str,
        typer.Option(
            "--where", metavar="CONDIÇÃO", help='Só as linhas que a cumprem, como "language_score>=0.95".'
        ),
    ] = "",
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="LIMPEZA",
            help="Limpa e filtra no caminho: web, curated ou none.",
        ),
    ] = "",
    accept_license: Annotated[
        bool,
        typer.Option(
            "--accept-license", help="Li e aceito os termos de uma fonte que não é livre para todo uso."
        ),
    ] = False,
    max_disk: Annotated[
        str | None,
        typer.Option(
            "--max-disk",
            metavar="N",
            help="Para antes de a pasta passar disto: 15GB.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    mirror: Annotated[
        str,
        typer.Option(
            "--mirror",
            metavar="URL",
            envvar="PTBR_SLM_MIRROR",
            help="Espelho no lugar do servidor da fonte (o do hub também vem de HF_ENDPOINT).",
            rich_help_panel=_PANEL,
        ),
    ] = "",
) -> Report:
    """Traz textos em português, com a licença de cada um.

    Repetido, continua de onde parou.
    """
    from ptbr_slm.data.sources.catalogue import SOURCES
    from ptbr_slm.data.sources.fetch import fetch as fetch_source
    from ptbr_slm.data.sources.origin import BYTES_PER_TOKEN, FetchOptions

    if listing:
        return _listing(SOURCES)
    if name is None:
        raise SlmError(
            "E_USAGE",
            "falta dizer qual fonte.",
            where="NOME",
            hint="Veja as fontes:  ptbr-slm data fetch --list",
        )
    folder = output or Path("dados") / name
    started = time.monotonic()
    with out.progress(f"trazendo {name}", total=1.0) as progress:
        options = FetchOptions(
            tokens=_amount(tokens, "--tokens"),
            max_disk=_amount(max_disk, "--max-disk"),
            where=where,
            preset=preset,
            mirror=mirror,
            accept_license=accept_license,
            progress=lambda status: _show(progress, status, time.monotonic() - started, BYTES_PER_TOKEN),
            note=out.note,
        )
        path = fetch_source(name, folder, options)
    return _report(name, path, folder, BYTES_PER_TOKEN)


@contextmanager
def downloading(out: Output, inputs: Sequence[Path]) -> Iterator[DownloadOptions]:
    """How to download the inputs that are names of the hub: with a bar, where there are any."""
    from ptbr_slm.data.sources.hub_inputs import DownloadOptions
    from ptbr_slm.data.sources.hub_names import is_hub_name

    if not any(map(is_hub_name, inputs)):
        yield DownloadOptions()
        return
    with out.progress("baixando do hub", total=1.0) as bar:

        def show(received: int, total: int) -> None:
            bar.update(received / max(total, 1), f"{human_bytes(received)} de {human_bytes(total)}")

        yield DownloadOptions(progress=show, note=out.note)


def _show(progress: Progress, status: Status, seconds: float, bytes_per_token: float) -> None:
    speed = human_bytes(status.received_bytes / max(seconds, 1e-3))
    tokens = f", {_short(status.text_bytes / bytes_per_token)} tokens" if status.text_bytes else ""
    progress.update(status.share, f"{human_bytes(status.received_bytes)}, {speed}/s{tokens}")


def _report(name: str, path: Path, folder: Path, bytes_per_token: float) -> Report:
    """What there is now, and what to type next."""
    from ptbr_slm.storage.manifest import read_manifest

    manifest = read_manifest(folder, hashes=False)
    files = [file for file in manifest.files if file != "LICENCA.md"]
    size = sum(int(manifest.files[file]["size"]) for file in files)
    data: dict[str, Any] = {"file": str(path), "bytes": size, "name": name, "folder": str(folder)}
    text = f"Textos em {path} ({human_bytes(size)}); licenças em {folder / 'LICENCA.md'}\n"
    found = manifest.extra
    if "shards" in found:
        tokens = round(found["text_bytes"] / bytes_per_token)
        keys = ("documents", "text_bytes", "stopped", "commit", "dropped")
        data |= {key: found[key] for key in keys} | {"files": len(found["shards"]), "tokens": tokens}
        text += (
            f"{number(found['documents'])} documentos, {human_bytes(found['text_bytes'])} de texto, "
            f"cerca de {_short(tokens)} tokens ({number(bytes_per_token, 1)} bytes por token); "
            f"{_STOPPED[found['stopped']]}\n"
        )
        dropped = sum(found["dropped"].values())
        if dropped:
            text += f"A limpeza {found['preset']} tirou {number(dropped)} documentos.\n"
    text += f"\nPróximo passo:\n  ptbr-slm tokenizer train {quoted(path)} -o tokenizer.json"
    return Report(data, text, brief=str(path))


_STOPPED = {
    "tokens": "parou no número de tokens pedido.",
    "max_disk": "parou no limite de disco: com --max-disk maior, o mesmo comando continua.",
    "end": "a fonte acabou.",
}
"""Why a fetch ended -> its words."""


def _listing(sources: dict[str, Source]) -> Report:
    """The catalogue, a paragraph a source."""
    lines: list[str] = []
    for name, source in sources.items():
        licence = source.licence
        told = [
            ("tamanho", _sizes(source)),
            ("licença", f"{licence.name}  {licence.url}"),
            *(("feito de", parent) for parent in licence.chain),
            ("convém", licence.duties),
        ]
        if not licence.commercial:
            told.append(("ATENÇÃO", "nem tudo pode ter uso comercial: só com --accept-license"))
        if licence.gated:
            told.append(("ATENÇÃO", "exige aceitar os termos na página do conjunto, e HF_TOKEN"))
        lines += _wrapped(f"{name}: {source.summary}", "", "  ")
        for label, text in told:
            lines += _wrapped(text, f"  {label:<9}", " " * 11)
        lines.append("")
    lines.append("Próximo passo:\n  ptbr-slm data fetch fineweb2-pt --tokens 100M -o textos")
    return Report({"sources": [_entry(name, source) for name, source in sources.items()]}, "\n".join(lines))


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    """Lines of 80 columns at most, unless a URL is longer."""
    return wrap(
        text,
        80,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sizes(source: Source) -> str:
    known = [
        *([f"download {human_bytes(source.download_bytes)}"] if source.download_bytes else []),
        *([f"texto {human_bytes(source.text_bytes)}"] if source.text_bytes else []),
        *([f"{_short(source.documents)} documentos"] if source.documents else []),
        source.format,
    ]
    if not (source.download_bytes or source.text_bytes):
        known.insert(0, "bytes não conhecidos")
    return f"{', '.join(known)} ({source.figures})"


def _entry(name: str, source: Source) -> dict[str, Any]:
    return {
        "name": name,
        "summary": source.summary,
        "format": source.format,
        "download_bytes": source.download_bytes,
        "text_bytes": source.text_bytes,
        "documents": source.documents,
        "figures": source.figures,
        "licence": asdict(source.licence),
        "origin": dict(source.origin.pins()),
    }


def _amount(text: str | None, option: str) -> int | None:
    """`2B`, `500M`, `15GB` or `12GiB` as a number. Raises E_USAGE."""
    if text is None:
        return None
    found = _AMOUNT.fullmatch(text.strip())
    value = 0
    if found is not None:
        base = 1024 if found[3] else 1000
        value = round(float(found[1].replace(",", ".")) * base ** _THOUSANDS[found[2].lower()])
    if value < 1:
        raise SlmError(
            "E_USAGE",
            f"não entendi a quantidade {text!r}.",
            where=option,
            hint="Escreva como 500M, 2B ou 15GB.",
        )
    return value


def _short(count: float) -> str:
    """A count as people say it: 1,9 bilhão is `1,9 bi`."""
    for size, unit in ((1e9, " bi"), (1e6, " mi"), (1e3, " mil")):
        if count >= size:
            return f"{number(count / size, 1)}{unit}"
    return number(count)
