"""The documentation as a site: it builds strictly, and its pages ask nothing of another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from chromium import Watch, chromium

import ptbr_slm

pytest.importorskip("mkdocs", reason='instale com: pip install "ptbr-slm[docs]"')

ROOT = Path(__file__).resolve().parents[1]
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|link(?=[^>]*rel="?(?:stylesheet|preconnect|icon|preload)))[^>]*?(?:src|href)="?([^"\s>]+)"""
)
"""What a browser fetches by itself when it opens a page."""


def build(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # Not --quiet, with which --strict counts no warning (mkdocs 1.6.1).
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    done = build("--site-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_fetches_anything_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    found = {(page.name, url) for page in pages for url in FETCHED.findall(page.read_text(encoding="utf-8"))}
    assert any(url.endswith("iframe-worker.js") for _, url in found)
    assert not {(page, url) for page, url in found if re.match(r"(https?:)?//", url)}
    sheets = "".join(sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", sheets)


def test_the_python_page_has_every_public_name(site):
    page = (site / "api.html").read_text(encoding="utf-8")
    missing = [
        name
        for name in ptbr_slm.__all__
        if name != "__version__" and not re.search(rf'<h3 id="[\w.]+\.{name}"', page)
    ]
    assert not missing
    assert 'id="ptbr_slm.runtime.model.Model.generate"' in page


@pytest.mark.browser
def test_the_search_works_from_a_folder_without_accents_and_asks_nobody(site):
    with chromium() as browser:
        watch = Watch()
        context = browser.new_context(locale="pt-BR")
        watch.follow(context)
        for typed in ("memoria", "--batch-size"):
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.goto((site / "index.html").as_uri())
            page.locator(".md-search__input").fill(typed)
            page.locator(".md-search__input").press("End")  # one search, not one for each letter
            page.locator(".md-search-result__item").first.wait_for(state="attached")
        context.close()
        watch.check("file://")


def test_stale_links_and_pages_outside_the_navigation_fail_the_build(tmp_path):
    stale = ["nada.md", "#nada", "/nada", "../nada.py"]
    (tmp_path / "docs").mkdir()
    links = "\n".join(f"- [x]({link})" for link in stale)
    (tmp_path / "docs" / "index.md").write_text(f"# Início\n\n{links}\n", encoding="utf-8")
    (tmp_path / "docs" / "solta.md").write_text("# Solta\n", encoding="utf-8")
    ours = re.search(r"^validation:\n(?: +.*\n)+", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    assert ours is not None
    settings = (
        f"site_name: x\nhooks: ['{ROOT}/scripts/site_pages.py']\nnav: [index.md, projeto/CONTRIBUTING.md]\n"
    )
    (tmp_path / "mkdocs.yml").write_text(settings + ours[0], encoding="utf-8")
    done = build("--config-file", tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert not [name for name in [*stale, "solta.md"] if name.removeprefix("../") not in done.stderr], (
        done.stderr
    )
