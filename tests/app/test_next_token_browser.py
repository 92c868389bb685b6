"""The Próximo token tab in a real Chromium: bars that follow the sliders alone, a click that appends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.browser

BOX = "#prox-texto textarea"
BAR = ".prox-bars button"
TEXT = "Era uma vez"


@pytest.fixture
def bars(tab: Any) -> Any:
    """An open page whose tab is chosen, with the bars of TEXT."""
    tab.get_by_role("tab", name="Próximo token").click()
    tab.fill(BOX, TEXT)
    tab.click("#prox-ver")
    tab.wait_for_selector(BAR)
    return tab


def ids(tab: Any) -> list[int]:
    return [int(bar.get_attribute("data-id")) for bar in tab.locator(BAR).all()]


def set_slider(tab: Any, label: str, value: str) -> None:
    field = tab.locator("#prox-amostragem").get_by_role("spinbutton", name=label)
    field.fill(value)
    field.press("Tab")


def test_bars_follow_the_sliders_in_the_browser_alone(bars, page):
    tokenizer = page.model.engine.tokenizer
    logits = page.model.logits(tokenizer.encode(TEXT))[-1][: tokenizer.vocab_size]
    assert ids(bars) == np.argsort(-logits, kind="stable")[:12].tolist()
    asked: list[str] = []
    bars.on("request", lambda request: asked.append(request.url))
    set_slider(bars, "Top-k", "5")
    bars.wait_for_function("document.querySelectorAll('.prox-bars .tok-out').length == 7")
    assert "fora do top-k" in bars.locator(BAR).nth(5).inner_text()
    assert bars.locator(BAR).nth(5).inner_text().endswith("0,0 %")
    set_slider(bars, "Temperatura", "0")
    bars.wait_for_function("document.querySelector('.prox-bars button').innerText.endsWith('100,0 %')")
    assert not asked


def test_a_click_appends_the_token_and_undo_takes_it_back(bars):
    first = ids(bars)
    word = bars.locator(f"{BAR}:not([disabled])").first
    word.dblclick()  # one token, not two
    bars.wait_for_function(f"document.querySelector('{BOX}').value != '{TEXT}'")
    bars.wait_for_selector("#prox-ver:not([disabled])")
    bars.wait_for_timeout(300)
    longer = bars.input_value(BOX)
    assert longer.startswith(TEXT) and longer != TEXT
    assert bars.evaluate("!!document.activeElement.closest('.prox-bars')")
    bars.click("#prox-desfazer")
    assert (bars.input_value(BOX), ids(bars)) == (TEXT, first)
    assert bars.is_disabled("#prox-desfazer")
    bars.fill(BOX, "")
    bars.click("#prox-ver")
    bars.wait_for_selector(".toast-body")
    assert "está vazio" in bars.inner_text(".toast-body")
    assert ids(bars) == first
