"""`ptbr-slm export` and `ptbr-slm verify` as processes."""

from __future__ import annotations

import json

import pytest
from ptbr_slm_export import export_model


def test_export_then_verify_on_the_command_line(cli, tied, tmp_path):
    made = cli("export", tied, "-o", "e", "--precision", "int4", "--json", check=True)
    body = json.loads(made.stdout)
    assert body["precision"] == "int4" and body["target"] == "cpu" and body["parity"]["passed"]
    assert (tmp_path / "e" / "model.onnx").exists()
    checked = cli("verify", "e", "--against", tied, check=True)
    assert "semelhança dos logits" in checked.stdout and "FALHOU" not in checked.stdout
    assert "O export confere com o modelo." in checked.stdout


@pytest.mark.parametrize(
    "flags",
    [
        ("--precision", "fp16"),
        ("--target", "tensorrt", "--precision", "int4"),
        ("--format", "gguf", "--precision", "int4"),
        ("--no-verify",),
        ("--precision", "fp32", "--head", "int8"),
        ("--target", "cuda", "--precision", "int4", "--head", "int4-rescored"),
        ("--format", "gguf", "--head", "int8"),
        ("--precision", "int4", "--head-bits", "5"),
    ],
)
def test_what_a_target_or_a_format_does_not_have_is_a_usage_error(run, tied, tmp_path, flags):
    done = run("export", tied, "-o", "e", *flags)
    assert done.returncode == 2 and not (tmp_path / "e").exists()


def test_the_head_is_chosen_by_name_and_its_earlier_option_still_works_and_says_so(run, tied):
    for flags, expected in ((("--head", "int4-rescored"), (4, 64)), (("--head-bits", "8"), (8, 0))):
        made = run("export", tied, "-o", "e", "--precision", "int4", *flags, "--json", check=True)
        recipe = json.loads(made.stdout)["recipe"]
        assert (recipe["head_bits"], recipe["head_rescored"]) == expected
        assert ("agora é --head int8" in made.stderr) == ("--head-bits" in flags)


def test_an_export_for_tensorrt_is_made_and_judged_without_a_gpu_and_says_so(run, tied, tmp_path):
    made = run("export", tied, "-o", "e", "--target", "tensorrt", check=True)
    assert "aqui não há a GPU deste export" in made.stdout and "FALHOU" not in made.stdout
    facts = json.loads((tmp_path / "e" / "manifest.json").read_text(encoding="utf-8"))
    assert (facts["flavour"], facts["precision"], facts["kv_dtype"]) == ("std", "fp16", "float16")


def test_an_export_of_another_model_ends_with_exit_code_4_and_three_lines(run, tied, untied, tmp_path):
    export_model(tied, tmp_path / "e", precision="fp32", verify=False)
    done = run("verify", "e", "--against", untied, "--quiet")
    assert done.returncode == 4 and done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 3 and lines[0].startswith("Erro [E_VERIFY]: este export foi feito")
    assert f"ptbr-slm export {untied} -o e" in lines[2]
