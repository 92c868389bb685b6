"""The page's controls in a browser, set as a visitor sets them."""

from __future__ import annotations

from typing import Any

_DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
_HOLDS_MS, _TIMES = 150, 20


def set_slider(page: Any, panel: str, index: int, value: float) -> None:
    """Type a value into a slider's field until the slider holds it. panel: a selector, of a closed accordion
    too; index: among the panel's sliders.

    Gradio draws an opened panel some frames later, and then forgets what was typed before.
    """
    field = page.locator(f"{panel} input[type=number]").nth(index)
    if not page.locator(f"{panel} input[type=number]").count():
        page.click(f"{panel} > button")
    field.wait_for()
    handle = page.locator(f"{panel} input[type=range]").nth(index)
    for _ in range(_TIMES):
        page.evaluate(_DRAWN)
        field.fill(str(value))
        field.press("Tab")
        page.wait_for_timeout(_HOLDS_MS)
        if [field.input_value(), handle.input_value()] == [str(value)] * 2:
            return
    raise AssertionError(f"the slider {index} of {panel} does not hold {value}")
