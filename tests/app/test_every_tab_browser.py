"""Every tab in every look: axe-core finds nothing, all fits the screen, and pictures are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from chromium import Watch
from page_pictures import LOOKS, tab_pictures

pytestmark = pytest.mark.browser

PICTURES = "PTBR_SLM_PICTURES"
"""Environment variable: the folder where the pictures of the last run are kept."""


@pytest.fixture(scope="module")
def violations():
    """What axe-core finds wrong on an open page, as lines: the rule, what it asks, and the element."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python"
    )

    def find(page) -> list[str]:
        # axe cannot tell what is behind a letter where a drawn line (of the chosen tab) may be.
        plain = page.add_style_tag(content="[role=tab]::before, [role=tab]::after {display: none !important}")
        found = axe.Axe().run(page).response["violations"]
        plain.evaluate("style => style.remove()")
        return [
            f"{rule['id']}: {rule['help']}: {node['html'][:200]} {node['failureSummary']}"
            for rule in found
            for node in rule["nodes"]
        ]

    return find


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    kept = os.environ.get(PICTURES)
    found = Path(kept) if kept else tmp_path_factory.mktemp("pictures")
    found.mkdir(parents=True, exist_ok=True)
    return found


@pytest.mark.parametrize("look", LOOKS)
def test_every_tab_can_be_used_by_everyone_and_fits(browser, url, folder, violations, look):
    seen = []
    for name, page in tab_pictures(browser, url, folder, look):
        seen.append(name)
        assert violations(page) == [], name
        width = LOOKS[look]["viewport"]["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert (folder / f"{name}-{look}.png").stat().st_size > 10_000  # one colour alone takes less
    assert seen == ["texto", "probabilidades", "proximo", "comparar", "conversa", "modelo"]


def test_axe_and_the_watch_see_what_is_wrong(tab, browser, violations):
    tab.evaluate("""document.body.insertAdjacentHTML('beforeend', `
        <main><input type=text> <p style="color: #777; background: #666">sem contraste</p></main>`)""")
    assert {line.split(":")[0] for line in violations(tab)} >= {"label", "color-contrast"}
    watch, context = Watch(), browser.new_context()
    watch.follow(context)
    page = context.new_page()
    page.set_content("<script>console.error('um'); setTimeout(() => { throw Error('dois') })</script>")
    page.wait_for_timeout(100)
    context.close()
    assert watch.errors == ["um", "Error: dois"] or watch.errors == ["um", "dois"]
    watch.asked.append("https://exemplo.invalid/fonte.woff2")
    watch.errors.clear()
    with pytest.raises(AssertionError):
        watch.check("http://127.0.0.1:7860/")
