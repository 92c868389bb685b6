"""The user's training commands as real processes on simulated T4s: the scenarios of test_gpu.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fake_cards
import gpu_scenarios_train as scenarios
import pytest

SITE = Path(__file__).parents[1] / "support" / "simulated_cuda" / "site"
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("simulated_card")]


@pytest.fixture
def run(cli, tmp_path):
    """Runs a command on a machine with two simulated T4s; `cards=1` takes one away."""

    def start(*arguments, cards=2, **environment):
        known = [fake_cards.Card(uuid=f"simulated-{index}") for index in range(cards)]
        driver = fake_cards.nvidia_smi(tmp_path, *known)
        python = os.pathsep.join(filter(None, [str(SITE), os.environ.get("PYTHONPATH", "")]))
        machine = {
            "PYTHONPATH": python,
            "SIMULATED_CUDA": json.dumps({"cards": cards}),
            "OMP_NUM_THREADS": "1",
        }
        return cli(*arguments, env={**driver, **machine, **environment})

    return start


def test_a_run_goes_from_nothing_to_final_and_on_after_a_kill(run, train_arguments, tmp_path):
    scenarios.trains_from_nothing_to_final_and_goes_on_after_a_kill(
        run, train_arguments, tmp_path, exact=True
    )


def test_two_cards_go_from_nothing_to_final_and_on_after_a_kill(run, train_arguments, tmp_path):
    scenarios.trains_from_nothing_to_final_and_goes_on_after_a_kill(
        run, train_arguments, tmp_path, exact=True, ranks=2
    )


def test_other_commands_use_the_card(run, train_arguments, tmp_path):
    scenarios.other_commands_use_the_card(lambda *a, **e: run(*a, cards=1, **e), train_arguments, tmp_path)
