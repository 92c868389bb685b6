"""Tuning by adapters on a simulated T4: the CUDA lines with real numbers, beside the CPU's own run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("simulated_card")]


@pytest.fixture(scope="module")
def found(play_on_a_card: Any) -> dict[str, Any]:
    """What the case found."""
    body: dict[str, Any] = play_on_a_card(Path(__file__).with_name("lora_card_cases.py"))["lora"]
    assert "error" not in body, body["error"]
    return body


def test_in_fp32_the_card_gives_the_numbers_of_the_processor(found: dict[str, Any]) -> None:
    assert found["losses"]["fp32"] == pytest.approx(found["losses"]["cpu"], abs=1e-5)
    assert found["distance"] < 5e-4


def test_in_fp16_it_learns_under_the_loss_scale(found: dict[str, Any]) -> None:
    assert found["losses"]["fp16"] == pytest.approx(found["losses"]["cpu"], abs=1e-3)
    assert not found["skipped"] and all(scale >= 2.0**15 for scale in found["scales"])


def test_the_host_waits_once_a_step(found: dict[str, Any]) -> None:
    steps = len(found["scales"])
    assert found["waits"]["step.py:optimizer_step"] == 2 * steps  # two runs
    assert not [
        place for place in found["waits"] if place.split(":")[0] in ("lora.py", "adapters.py", "loss.py")
    ]
