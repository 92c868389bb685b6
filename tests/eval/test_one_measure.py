"""Training, export and verify measure bits per byte alike: same windows, same targets, one key."""

from __future__ import annotations

from pathlib import Path

import pytest
from ptbr_slm_export import export_model, verify_export

from ptbr_slm.eval.held_out import TOKENS
from ptbr_slm.storage.manifest import read_manifest, write_manifest
from ptbr_slm.train.config_file import from_values
from ptbr_slm.train.run import train


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A run's final model, by the targets that its evaluation reads."""

    def make(tokens: int) -> Path:
        output = tmp_path_factory.mktemp("run") / "run"
        values = {
            "data": prepared, "output": output, "model_size": "nano", "seq_len": 32, "batch_size": 2,
            "grad_accum": 1, "max_steps": 2, "device": "cpu", "evaluation.every": 0,
            "evaluation.tokens": tokens, "evaluation.sample_tokens": 0,
        }  # fmt: skip
        return train(from_values(values)).model

    return make


def test_an_export_records_what_training_found(trained, tmp_path):
    final = trained(512)
    known = read_manifest(final).extra
    report = export_model(final, tmp_path / "e", precision="fp32")
    facts = read_manifest(tmp_path / "e").extra
    assert facts["held_out"] == known["held_out"] and known["held_out"]["seq_len"] == 32
    assert facts["bits_per_byte"] == pytest.approx(known["bits_per_byte"], rel=1e-5)
    assert facts["parity"]["targets"] == known["held_out"]["targets"]
    assert verify_export(tmp_path / "e", final).bits_per_byte == report.verification.bits_per_byte


def test_an_export_that_reads_fewer_targets_records_the_change_of_the_whole(trained, tmp_path):
    final = trained(65_536)
    known = read_manifest(final).extra
    report = export_model(final, tmp_path / "e", precision="int8").verification
    facts = read_manifest(tmp_path / "e").extra
    assert known["held_out"]["targets"] > TOKENS >= report.text.counted
    assert facts["held_out"] == {**known["held_out"], "sampled": report.text.counted}
    change = report.bits_per_byte / report.reference_bits_per_byte
    assert facts["bits_per_byte"] == pytest.approx(known["bits_per_byte"] * change)
    assert abs(facts["bits_per_byte"] / known["bits_per_byte"] - 1) < 0.01


def test_a_manifest_from_before_records_what_was_measured_here(trained, tmp_path):
    final = trained(65_536)
    old = {
        key: value for key, value in read_manifest(final).extra.items() if key in ("steps", "bits_per_byte")
    }
    write_manifest(final, "model", **old)
    report = export_model(final, tmp_path / "e", precision="fp32").verification
    facts = read_manifest(tmp_path / "e").extra
    assert facts["bits_per_byte"] == report.bits_per_byte
    assert facts["held_out"] == report.text.facts() and facts["held_out"]["seq_len"] == 32
