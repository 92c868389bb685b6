"""A run with `model.qk_norm`: asked for by one setting, resumed like any other, saved as Qwen3ForCausalLM."""

from __future__ import annotations

import json

import pytest

from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.train.run import train


def test_a_run_with_qk_norm_ends_in_a_qwen3_folder_and_cannot_be_resumed_without_it(settings) -> None:
    done = train(settings({"model.qk_norm": True, "max_steps": 4}))
    body = json.loads((done.model / "config.json").read_text(encoding="utf-8"))
    assert body["architectures"] == ["Qwen3ForCausalLM"] and body["model_type"] == "qwen3"
    gains = [p for name, p in Llama.from_folder(done.model).named_parameters() if "q_norm" in name]
    assert len(gains) == 2 and all((gain != 1).any() for gain in gains)  # trained, not only kept
    again = train(settings({"model.qk_norm": True, "max_steps": 8, "allow_config_change": True}))
    assert again.step == 8
    with pytest.raises(SlmError):
        train(settings({"max_steps": 9, "allow_config_change": True}))
