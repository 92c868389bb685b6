"""`--fastest-here`: what is measured, what follows from it, and what stays as it was asked for."""

from __future__ import annotations

import json

import pytest
from ptbr_slm_export import export_model, fastest
from ptbr_slm_export.quantization.recipe import RECIPES, recipe_for

from ptbr_slm.errors import SlmError
from ptbr_slm.storage.manifest import read_manifest
from ptbr_slm.storage.model_folder import ModelFolder

KEPT = RECIPES["int4"]


@pytest.fixture
def times(monkeypatch) -> dict[tuple[int, str], float]:
    """(block, head) -> microseconds that the measurement is to find; 100 where none are given."""
    found: dict[tuple[int, str], float] = {}
    monkeypatch.setattr(
        fastest,
        "step_microseconds",
        lambda config, recipe, threads: found.get((recipe.block, recipe.head), 100.0),
    )
    return found


@pytest.mark.parametrize(
    ("found", "block", "head"),
    [
        ({}, 256, "int4-rescored"),
        ({(128, "int4-rescored"): 96.0}, 256, "int4-rescored"),  # within the margin
        (
            {(128, "int4-rescored"): 90.0, (64, "int4-rescored"): 80.0, (64, "int8"): 90.0},
            64,
            "int4-rescored",
        ),
        ({(256, "int8"): 90.0}, 256, "int8"),
        ({(128, "int4-rescored"): 90.0, (128, "int8"): 80.0}, 128, "int8"),
    ],
)
def test_the_fastest_blocks_and_head_are_taken_where_they_are_clearly_faster(tied, times, found, block, head):
    times |= found
    choice = fastest.fastest(ModelFolder(tied).config, KEPT, 1)
    assert (choice.recipe.block, choice.recipe.head) == (block, head)
    assert choice.recipe == fastest.with_head(recipe_for("int4", block=block), head)
    assert list(choice.block_microseconds) == ["32", "64", "128", "256"]
    assert list(choice.head_microseconds) == ["int8", "int4-rescored"]
    assert f"blocos de {block}, saída {head}" in str(choice)


def test_one_disturbed_measurement_does_not_depose_the_default(tied, monkeypatch):
    calls: list[int] = []

    def disturbed(config, recipe, threads) -> float:
        calls.append(recipe.block)
        return 200.0 if recipe.block == 256 and calls.count(256) == 1 else 100.0

    monkeypatch.setattr(fastest, "step_microseconds", disturbed)
    assert fastest.fastest(ModelFolder(tied).config, KEPT, 1).recipe == KEPT


def test_an_export_says_what_was_measured_and_is_verified(tied, tmp_path):
    steps: list[str] = []
    report = export_model(tied, tmp_path / "e", precision="int4", fastest_here=True, on_step=steps.append)
    assert report.verification is not None and report.verification.passed and report.recipe is not None
    facts = read_manifest(tmp_path / "e").extra
    measured = facts["fastest_here"]
    assert measured["cpu"] and measured["threads"] >= 1 and measured["layers"] == 2
    assert all(time > 0 for kind in ("block", "head") for time in measured[f"{kind}_microseconds"].values())
    assert str(facts["recipe"]["block"]) in measured["block_microseconds"]
    assert any(step.startswith("medido nesta máquina") for step in steps)
    export_model(tied, tmp_path / "e", precision="int4", verify=False)
    assert "fastest_here" not in read_manifest(tmp_path / "e").extra


@pytest.mark.parametrize(("target", "precision"), [("cpu", "int8"), ("cpu", "fp32"), ("cuda", "int4")])
def test_only_int4_for_the_cpu_is_chosen_by_measurement(tied, tmp_path, target, precision):
    with pytest.raises(SlmError) as caught:
        export_model(tied, tmp_path / "e", target=target, precision=precision, fastest_here=True)
    assert caught.value.code == "E_USAGE" and not (tmp_path / "e").exists()


def test_the_command_chooses_or_is_told_and_never_both(run, tied, tmp_path):
    refused = run("export", tied, "-o", "e", "--precision", "int4", "--fastest-here", "--block", "64")
    assert refused.returncode == 2 and "Tire --block" in refused.stderr
    made = run("export", tied, "-o", "e", "--precision", "int4", "--fastest-here", "--json", check=True)
    assert json.loads(made.stdout)["fastest_here"]["layers"] == 2
    assert made.stderr.count("medido nesta máquina, em ms por token") == 1
