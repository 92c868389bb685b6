"""Every tab of the page in every look, as pictures.

PYTHONPATH=tests/support python -m page_pictures MODEL FOLDER      those of README and docs
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chromium import DESKTOP, PHONE, chromium

LOOKS: dict[str, dict[str, Any]] = {
    "computador": {"viewport": DESKTOP, "color_scheme": "light"},
    "celular": {"viewport": PHONE, "color_scheme": "light", "device_scale_factor": 2},
    "escuro": {"viewport": DESKTOP, "color_scheme": "dark"},
}
PROMPT = "Naquela manhã de domingo, Helena"

_USED = """() => [...document.querySelectorAll('[role=tabpanel] button.primary')]
    .every(button => !button.offsetParent || !(button.disabled || button.ariaDisabled == "true"))"""


def tab_pictures(browser: Any, url: str, folder: Path, look: str) -> Iterator[tuple[str, Any]]:
    """Open the page in one of `LOOKS`, use each of its tabs once, write `folder/TAB-LOOK.png`, and give
    (the tab's name in its id, the open page) while it is shown. url: where the page answers, in Portuguese.
    """
    context = browser.new_context(locale="pt-BR", reduced_motion="reduce", **LOOKS[look])
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(url)
    page.wait_for_selector("#continuar:not([disabled])")
    for name in tab_names(page):
        show_tab(page, name)
        use_tab(page)
        page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
        yield name, page
    context.close()


def tab_names(page: Any) -> list[str]:
    """The ids of the tabs without `aba-`, in their order."""
    panels = page.locator("#abas > .tab-wrapper [role=tab]").evaluate_all(
        "tabs => tabs.map(tab => tab.getAttribute('aria-controls'))"
    )
    return [panel.removeprefix("aba-") for panel in panels]


def show_tab(page: Any, name: str) -> None:
    """Click the tab, by its id without `aba-`, and wait for what it shows."""
    page.click(f"#aba-{name}-button")
    page.locator(f"#aba-{name}").wait_for()


def use_tab(page: Any) -> None:
    """Write into the first box of the tab that is shown, press its main button, and wait for its end."""
    panel = page.locator("[role=tabpanel]:visible")
    main = panel.locator("button.primary:visible")
    box = panel.locator("textarea:visible").first
    if not main.count() or not box.count():
        return
    if not box.input_value():
        box.fill(PROMPT)
    main.first.click()
    page.wait_for_timeout(300)  # until the button is off
    page.wait_for_function(_USED)
    page.wait_for_timeout(100)  # the last piece of text


def main(model: str, folder: str) -> None:
    """All pictures of this model's page, into `folder`."""
    from ptbr_slm.app import open_page
    from ptbr_slm.app.launch import open_server

    opened = open_page(model)
    url = open_server(opened).url
    Path(folder).mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for look in LOOKS:
            for name, _ in tab_pictures(browser, url, Path(folder), look):
                print(f"{folder}/{name}-{look}.png")
    opened.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
