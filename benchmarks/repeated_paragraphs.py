"""What `RepeatedParagraphs` takes of books, of modern prose, and of the pages of a site with planted notices.

    python benchmarks/repeated_paragraphs.py FOLDER...

Each FOLDER (or file) is a source of its own: .txt files, a document each; with --lines a document ends at an
empty line. The site is made of the paragraphs of the first FOLDER, each used once, between a menu, a cookie
notice, links to other pages and a footer.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from machine import facts
from results import table

from ptbr_slm.data.document import Document
from ptbr_slm.data.pipeline import read_documents
from ptbr_slm.data.stages.boilerplate import RemoveBoilerplate
from ptbr_slm.data.stages.repeated_paragraphs import COPIES, MIN_CHARACTERS, RepeatedParagraphs
from ptbr_slm.data.stages.stage import Dropped

SITES, PAGES = 5, 400
SHOWN = 8
"""Removed paragraphs printed for each source, the most frequent first."""


def documents_of(path: Path, lines: bool) -> list[Document]:
    """The documents of a source after the cleaning of `none`."""
    found = list(read_documents([path]))
    if not lines:
        return found
    blocks = (block for document in found for block in document.text.split("\n\n"))
    return [Document(block, str(path)) for block in blocks if block.strip()]


def after(documents: Iterable[Document]) -> tuple[list[str], Counter[str], float]:
    """(texts, empty ones for dropped documents; paragraphs removed; CPU seconds)."""
    step, texts, removed = RepeatedParagraphs(), [], Counter[str]()
    start = time.process_time()
    answers = [(document, step(document)) for document in documents]
    seconds = time.process_time() - start
    for document, answer in answers:
        text = "" if isinstance(answer, Dropped) else answer.text
        texts.append(text)
        removed += Counter(document.text.split("\n")) - Counter(text.split("\n"))
    return texts, Counter({line: n for line, n in removed.items() if line.strip()}), seconds


def site_pages(paragraphs: list[str]) -> tuple[list[Document], list[tuple[set[str], set[str]]]]:
    """(pages, their planted and own lines): the pages of several sites, as a crawl mixes them."""
    pick = random.Random(7)
    titles = [f"{p[:70].rsplit(' ', 1)[0]}" for p in paragraphs[: SITES * 40]]
    stream = iter(paragraphs[SITES * 40 :])
    pages = []
    for number in range(SITES * PAGES):
        site = number % SITES
        links = pick.sample(titles[site * 40 : site * 40 + 40], 4)
        date = f"{1 + number % 28:02d}/{1 + number % 12:02d}/2023 às {number % 24}h{number % 60:02d}"
        top = [
            "Home | Notícias | Esportes | Contato",
            f"Portal {site}: as notícias da cidade, do estado e do país, atualizadas todos os dias",
            f"O portal {site} guarda informações no seu navegador para melhorar a sua experiência.",
            f"Publicado em {date} pela redação do portal {site}",
        ]
        bottom = [
            "Leia também",
            *links,
            *(f"Leia também: {link}" for link in links[:2]),
            "Compartilhe no Facebook",
            f"Portal {site} Comunicações Ltda., rua das Acácias, {100 + site}. Proibida a cópia sem licença.",
        ]
        own = [next(stream) for _ in range(6)]
        pages.append(
            (Document("\n".join([*top, *own, *bottom]), f"{site}/{number}"), set(top + bottom), set(own))
        )
    pick.shuffle(pages)
    return [page for page, _, _ in pages], [(planted, own) for _, planted, own in pages]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sources", type=Path, nargs="+")
    parser.add_argument("--lines", type=Path, nargs="*", default=[], help="sources of many documents a file")
    arguments = parser.parse_args()
    print(
        facts(["numpy"], 1) + f"\n\nParagraphs of {MIN_CHARACTERS} characters, {COPIES} documents keep them\n"
    )
    rows, shown = [], []
    for path in [*arguments.sources, *arguments.lines]:
        documents = documents_of(path, path in arguments.lines)
        texts, removed, seconds = after(documents)
        before, left = (sum(map(len, all_)) for all_ in ([d.text for d in documents], texts))
        long = sum(
            len(line) >= MIN_CHARACTERS for document in documents for line in document.text.split("\n")
        )
        rows.append(
            [
                path.name,
                f"{len(documents):,}",
                f"{long:,}",
                f"{removed.total():,}",
                f"{100 * (1 - left / before):.3f} %",
                f"{texts.count('')}",
                f"{before / 1e6 / seconds:.0f}",
            ]
        )
        shown += [f"{path.name}: {n} x {line[:110]}" for line, n in removed.most_common(SHOWN)]
    header = [
        "source",
        "documents",
        "paragraphs",
        "removed",
        "characters",
        "documents dropped",
        "M characters/CPU s",
    ]
    print(table(header, rows) + "\n\n" + "\n".join(shown))
    pool = dict.fromkeys(
        line
        for document in documents_of(arguments.sources[0], lines=False)
        for line in document.text.split("\n")
        if len(line) >= 120
    )
    pages, lines = site_pages(list(pool))
    rows = []
    for name in ("boilerplate rules", "repeated paragraphs", "both"):
        given = pages
        if name != "repeated paragraphs":
            cleaned = [RemoveBoilerplate()(page) for page in pages]
            given = [page if isinstance(page, Document) else Document("", "") for page in cleaned]
        texts = [page.text for page in given] if name == "boilerplate rules" else after(given)[0]
        planted = own = planted_left = own_left = 0
        for text, (noise, body) in zip(texts, lines, strict=True):
            kept = set(text.split("\n"))
            planted, own = planted + sum(map(len, noise)), own + sum(map(len, body))
            planted_left += sum(map(len, noise & kept))
            own_left += sum(map(len, body & kept))
        rows.append(
            [name, f"{100 * (1 - planted_left / planted):.1f} %", f"{100 * (1 - own_left / own):.3f} %"]
        )
    print(f"\n{len(pages):,} pages of {SITES} sites, characters taken\n")
    print(table(["", "of the planted lines", "of the pages' own text"], rows))


if __name__ == "__main__":
    main()
