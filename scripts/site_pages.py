"""Pages of the site that do not lie in docs/: MkDocs calls the `on_...` functions (`hooks` in mkdocs.yml).

A page of docs/ links to a file of the repository with a path that GitHub follows (`../CONTRIBUTING.md`). Here
such a file becomes a page of the site: the project's own pages under projeto/, code under codigo/, and the
link is rewritten to lead there. What a link names must exist, so the strict build finds a stale one.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
HOME = "README.md"
"""On GitHub the start; on the site index.md is."""
LINK = re.compile(r"(?<=\]\()([^)\s#]*)((?:#[^)\s]*)?)(?=\))")
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.M | re.S)
NAMED = re.compile(r"^(```\w+) [\w-]+$", re.M)
"""A block that a test knows by a second word; GitHub shows it, Python-Markdown does not."""
LANGUAGES = {
    ".py": "python",
    ".sh": "bash",
    ".json": "json",
    ".toml": "toml",
    ".service": "ini",
    "": "docker",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the project's pages, and a page for each file that a page links to."""
    for name in PROJECT:
        files.append(File.generated(config, place(name), content=(ROOT / name).read_text(encoding="utf-8")))
    unread = list(files.documentation_pages())
    while unread:
        page = unread.pop()
        for target in outside(page.content_string, repository_path(page.src_uri)):
            if files.get_file_from_path(place(target)) is None:
                unread.append(File.generated(config, place(target), content=code_page(target)))
                files.append(unread[-1])
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead the links that leave docs/ to the pages that `on_files` has added."""
    home = repository_path(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def lead(link: re.Match[str]) -> str:
        target = target_of(link[1], home)
        return link[0] if target is None else posixpath.relpath(place(target), here or ".") + link[2]

    return NAMED.sub(r"\1", between_fences(markdown, lambda text: LINK.sub(lead, text)))


def repository_path(src_uri: str) -> str:
    """Where a page of the site lies in the repository."""
    folder, _, name = src_uri.partition("/")
    if folder == "codigo":
        return name.removesuffix(".md")
    return name if folder == "projeto" else f"docs/{src_uri}"


def place(path: str) -> str:
    """The page of the site for a path of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/") + ("/README.md" if (ROOT / path).is_dir() else "")
    if path == HOME:
        return "index.md"
    return f"projeto/{path}" if path in PROJECT else f"codigo/{path}.md"


def target_of(link: str, home: str) -> str | None:
    """The repository's path that a link of page `home` names; None for an address and inside docs/."""
    if not link or ":" in link or link.startswith("/"):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(home), link))
    if home.startswith("docs/") and target.startswith("docs/"):
        return None
    return target


def outside(markdown: str, home: str) -> Iterator[str]:
    """Paths of files outside docs/ that a page links to."""
    for link, _ in LINK.findall(FENCE.sub("", markdown)):
        target = target_of(link, home)
        if target and target != HOME and not target.startswith(("docs/", "..")) and (ROOT / target).exists():
            yield target


def between_fences(markdown: str, change: Callable[[str], str]) -> str:
    """The page with `change` made to what stands outside its blocks of code."""
    done, at = [], 0
    for fence in FENCE.finditer(markdown):
        done += [change(markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*done, change(markdown[at:])])


def code_page(path: str) -> str:
    """A page that shows a file, the names in a folder, or a notebook's cells."""
    source = ROOT / path
    front = f"---\nsearch:\n  exclude: true\ntitle: {source.name}\n---\n\n# {path}\n\n"
    if source.is_dir():
        names = sorted(child.name for child in source.iterdir() if not child.name.startswith("_"))
        return front + "\n".join(f"- `{name}`" for name in names) + "\n"
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".md":
        return front + re.sub(r"\A# .*\n", "", text)
    if source.suffix == ".ipynb":
        return front + "\n\n".join(cell_text(cell) for cell in json.loads(text)["cells"])
    return front + fenced(text, LANGUAGES.get(source.suffix, "text"))


def cell_text(cell: dict[str, Any]) -> str:
    """A notebook's cell as Markdown, its title one level down."""
    text = "".join(cell["source"])
    return fenced(text, "python") if cell["cell_type"] == "code" else re.sub(r"^#", "##", text, flags=re.M)


def fenced(text: str, language: str) -> str:
    """A block of code that may hold fences itself."""
    return f"`````{language}\n{text.rstrip()}\n`````\n"
