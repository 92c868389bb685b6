"""The corpora that `data fetch` knows. Adding a source is adding an entry to `SOURCES`.

Sizes are those that `figures` names; none of them is used to decide anything but a refusal to fetch hundreds
of gigabytes by mistake.
"""

from __future__ import annotations

from dataclasses import dataclass

from ptbr_slm.data.sources import dante, machado
from ptbr_slm.data.sources.hub_parquet import HubParquet
from ptbr_slm.data.sources.hub_rows import HubColumns
from ptbr_slm.data.sources.origin import Origin
from ptbr_slm.data.sources.packages import Converted, LocalData, PinnedWheel
from ptbr_slm.data.sources.url_file import UrlFile


@dataclass(frozen=True, slots=True)
class Licence:
    """Under what terms the texts are, and under what terms those that they were made from."""

    name: str
    url: str
    chain: tuple[str, ...] = ()
    """What the corpus was made from, nearest first, each with its terms."""
    commercial: bool = True
    """False: a part of it is for academic or non-commercial use only. Fetched after `--accept-license`."""
    gated: bool = False
    """Whether the hub wants its terms accepted on the page of the set, and HF_TOKEN."""
    duties: str = ""
    """What a user must do or know, in Portuguese."""


@dataclass(frozen=True, slots=True)
class Source:
    """A corpus by name."""

    summary: str
    """A line in Portuguese."""
    origin: Origin
    licence: Licence
    format: str
    download_bytes: int | None
    """None: not known before the server says it."""
    text_bytes: int | None
    documents: int | None
    figures: str
    """Where the three numbers above come from."""
    licence_text: str = ""
    """LICENCA.md, where it is longer than what is made of `licence`."""


GB = 10**9
MB = 10**6

SOURCES: dict[str, Source] = {
    "dante": Source(
        summary="notícias (Folha, só frases) e teses de petróleo, pt-BR",
        origin=Converted(PinnedWheel(dante.WHEEL, dante.WHEEL_SHA256), dante.write_texts),
        licence=Licence(
            "CC BY 4.0 e CC BY-SA 4.0",
            "https://pypi.org/project/dante-corpora/2.0.5/",
            (
                "Porttinari (frases da Folha de S.Paulo): CC BY 4.0",
                "PetroGold (teses e monografias da PUC-Rio): CC BY-SA 4.0",
            ),
            duties="cite os dois corpora; o texto do PetroGold se redistribui sob a mesma licença",
        ),
        format="JSONL",
        download_bytes=23 * MB,
        text_bytes=2_200_000,
        documents=1_092,
        figures="medido",
        licence_text=dante.LICENCE,
    ),
    "machado": Source(
        summary="obra completa de Machado de Assis (1839-1908), do NLTK deste computador",
        origin=Converted(LocalData(machado.find), machado.write_texts),
        licence=Licence(
            "domínio público",
            "https://www.planalto.gov.br/ccivil_03/leis/l9610.htm",
            ("textos do portal machado.mec.gov.br: domínio público",),
            duties="grafia anterior a 2009",
        ),
        format="JSONL",
        download_bytes=None,
        text_bytes=None,
        documents=None,
        figures="o que o NLTK deste computador tiver",
        licence_text=machado.LICENCE,
    ),
    "fineweb2-pt": Source(
        summary="páginas da web em português, já filtradas e sem quase-cópias (FineWeb2, por_Latn)",
        origin=HubParquet(
            repo="HuggingFaceFW/fineweb-2",
            folder="data/por_Latn/train",
            columns=HubColumns(
                attributes={
                    "language_score": "double",
                    "minhash_cluster_size": "int64",
                    "date": "string",
                    "dump": "string",
                },
                licence="ODC-By 1.0",
            ),
        ),
        licence=Licence(
            "ODC-By 1.0",
            "https://opendatacommons.org/licenses/by/1-0/",
            ("Common Crawl: termos de uso do Common Crawl; o direito de cada página é de quem a escreveu",),
            duties="cite o FineWeb2; a licença é da base de dados, não de cada texto",
        ),
        format="Parquet",
        download_bytes=275_900_000_000,
        text_bytes=569 * GB,
        documents=199_700_000,
        figures="medida de terceiros, não conferida no hub; 66 arquivos",
    ),
    "wikipedia-pt": Source(
        summary="artigos da Wikipédia em português já sem marcação (novembro de 2023)",
        origin=HubParquet(
            repo="wikimedia/wikipedia",
            folder="20231101.pt",
            columns=HubColumns(attributes={"title": "string"}, licence="CC BY-SA 3.0"),
        ),
        licence=Licence(
            "CC BY-SA 3.0 e GFDL",
            "https://creativecommons.org/licenses/by-sa/3.0/deed.pt-br",
            ("Wikipédia em português: CC BY-SA, de quem escreveu cada artigo",),
            duties="cite a Wikipédia; o texto se redistribui sob a mesma licença; muitos artigos são mínimos",
        ),
        format="Parquet",
        download_bytes=None,
        text_bytes=None,
        documents=1_110_000,
        figures="número de artigos de segunda mão, arredondado",
    ),
    "wikipedia-pt-dump": Source(
        summary="a cópia mensal da Wikipédia em português, em XML com marcação (a mais nova)",
        origin=UrlFile(
            url="https://dumps.wikimedia.org/ptwiki/{date}/ptwiki-{date}-pages-articles-multistream.xml.bz2",
            checksums="https://dumps.wikimedia.org/ptwiki/latest/ptwiki-latest-sha1sums.txt",
        ),
        licence=Licence(
            "CC BY-SA 4.0 e GFDL",
            "https://dumps.wikimedia.org/legal.html",
            ("Wikipédia em português: CC BY-SA, de quem escreveu cada artigo",),
            duties="cite a Wikipédia; redistribua sob a mesma licença; vem inteira (--tokens não corta)",
        ),
        format="XML do MediaWiki (.bz2)",
        download_bytes=None,
        text_bytes=None,
        documents=None,
        figures="o servidor diz o tamanho",
    ),
    "gigaverbo": Source(
        summary="19 conjuntos em português juntos, web na maior parte (Tucano); `label` 1 é boa qualidade",
        origin=HubParquet(
            repo="TucanoBR/GigaVerbo",
            folder="data",
            revision="3464568a815efa5b9823a7ace15b519a0aca35c0",
            columns=HubColumns(
                id="text_id",
                url="",
                attributes={"metadata": "string", "label": "int64"},
                licence="mista (other)",
            ),
        ),
        licence=Licence(
            "mista (other): cada parte tem a sua",
            "https://huggingface.co/datasets/TucanoBR/GigaVerbo",
            (
                "CrawlPT: diz CC BY 4.0, e contém o brWaC, só para uso acadêmico",
                "HPLT-PT: CC0 1.0",
                "Wikipédia: CC BY-SA 3.0",
                "outras partes: CC BY 4.0, Apache 2.0 e CC BY-NC 4.0 (não comercial)",
            ),
            commercial=False,
            duties="há partes só para uso acadêmico ou não comercial; a coluna metadata diz a origem",
        ),
        format="Parquet",
        download_bytes=None,
        text_bytes=780 * GB,
        documents=145_300_000,
        figures="de segunda mão, não conferido no hub; 1.573 arquivos",
    ),
}
"""Name -> source."""


def licence_text(name: str, source: Source) -> str:
    """The content of LICENCA.md."""
    if source.licence_text:
        return source.licence_text
    licence = source.licence
    chain = "\n".join(f"- {parent}" for parent in licence.chain)
    pins = "\n".join(f"- {key}: `{value}`" for key, value in source.origin.pins().items() if value)
    limits = "" if licence.commercial else "\n**Nem tudo aqui pode ter uso comercial.**\n"
    return f"""\
# De onde vêm estes textos

Trazidos por `ptbr-slm data fetch {name}`: {source.summary}.

Licença: {licence.name} (<{licence.url}>).
{limits}
Feito a partir de:

{chain}

O que a licença pede, e o que convém saber: {licence.duties}.

De onde foi baixado (o commit exato está em `manifest.json`):

{pins}
"""
