"""Adapters on disk, with the real peft as the judge in both directions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapted_models import ADAPTED, ROWS, SHAPE, adapted
from safetensors.numpy import load_file, save_file
from tiny_models import random_weights

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.storage.atomic import write_json
from ptbr_slm.storage.weights import write_safetensors
from ptbr_slm.tune.adapter_files import load_adapter, write_adapter
from ptbr_slm.tune.lora import TARGETS, LoraConfig

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

SHAPES = {
    "tied": SHAPE,
    "untied": replace(SHAPE, tie_embeddings=False),
    "Qwen3": replace(SHAPE, qk_norm=True),
}
TOKENS = torch.tensor([[1, 3, 50, 7, 11, 150, 3, 4]])


def base_folder(folder: Path, shape: ModelConfig) -> Path:
    """The frozen model as transformers opens it."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", shape.to_hf())
    write_safetensors(folder / "model.safetensors", random_weights(shape))
    return folder


def in_transformers(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def config_of(shape: ModelConfig) -> LoraConfig:
    return ADAPTED if shape.tie_embeddings else replace(ADAPTED, head_rows=ROWS[:2])


@pytest.mark.parametrize("shape", SHAPES)
def test_peft_opens_our_adapter_and_merges_it_as_we_do(shape: str, tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", SHAPES[shape])
    model = adapted(SHAPES[shape], config_of(SHAPES[shape]))
    (tmp_path / "adapter").mkdir()
    write_adapter(tmp_path / "adapter", model, config_of(SHAPES[shape]), str(base))
    with torch.no_grad():
        ours = model(TOKENS)
        opened = peft.PeftModel.from_pretrained(in_transformers(base), tmp_path / "adapter")
        assert (opened(TOKENS).logits - ours).abs().max() <= 1e-4
        assert (in_transformers(base)(TOKENS).logits - ours).abs().max() > 0.1
        by_name = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
        assert (by_name(TOKENS).logits - ours).abs().max() <= 1e-4
        merged = opened.merge_and_unload()
        assert (merged(TOKENS).logits - ours).abs().max() <= 1e-4
    theirs = {name: tensor.numpy() for name, tensor in merged.state_dict().items()}
    for name, weight in model.to_hf_weights().items():
        np.testing.assert_allclose(theirs[name], weight, atol=1e-6, err_msg=name)
    if SHAPES[shape].tie_embeddings:
        assert merged.lm_head.weight is merged.model.embed_tokens.weight


@pytest.mark.parametrize("rank_stabilized", [False, True])
@pytest.mark.parametrize(
    "targets", [list(TARGETS), ["q_proj", "v_proj"], "all-linear", r".*\.(up|down)_proj"]
)
def test_an_adapter_of_peft_opens_here(targets: Any, rank_stabilized: bool, tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", SHAPE)
    settings = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets, task_type="CAUSAL_LM",
                               use_rslora=rank_stabilized, init_lora_weights=False,
                               trainable_token_indices=list(ROWS))  # fmt: skip
    theirs = peft.get_peft_model(in_transformers(base), settings)
    with torch.no_grad():
        theirs.base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta["default"] += 0.1
    theirs.save_pretrained(tmp_path / "adapter")
    weights = random_weights(SHAPE)
    model = Llama(SHAPE).load_hf_weights(lambda name, shape: weights[name])
    config = load_adapter(model, tmp_path / "adapter")
    with torch.no_grad():
        assert (model(TOKENS) - theirs(TOKENS).logits).abs().max() <= 1e-4
    assert config.rank == 3 and config.embed_rows == ROWS
    assert all(not p.requires_grad for name, p in model.named_parameters() if name.endswith("weight"))


def test_what_is_written_is_read_back_to_the_bit(tmp_path: Path) -> None:
    model = adapted()
    write_adapter(tmp_path, model, ADAPTED, "base")
    other = Llama(SHAPE).initialize(0)
    assert load_adapter(other, tmp_path) == ADAPTED
    for (name, one), (_, same) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(one, same), name


def written(folder: Path, **settings: Any) -> Path:
    """Our adapter's files with other settings."""
    write_adapter(folder, adapted(), ADAPTED, "base")
    body = json.loads((folder / "adapter_config.json").read_bytes()) | settings
    (folder / "adapter_config.json").write_text(json.dumps(body))
    return folder


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "use_dora=true"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"peft_type": "LOHA"}, "'LOHA'"),
        ({"r": 8}, "forma"),
        ({"r": 0}, "r 0"),
        ({"lora_alpha": "muito"}, "valor inválido"),
        ({"trainable_token_indices": {"model.wpe": [1]}}, "model.wpe"),
        ({"trainable_token_indices": None}, "trainable_tokens_delta"),
        ({"trainable_token_indices": [3, 7, 1000]}, "token 1000"),
    ],
)
def test_an_adapter_that_does_more_than_ours_is_refused(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(SlmError, match=said) as caught:
        load_adapter(Llama(SHAPE), written(tmp_path, **settings))
    assert caught.value.code == "E_ADAPTER"


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    for other in (replace(SHAPE, num_layers=1), replace(SHAPE, num_layers=3), replace(SHAPE, hidden_size=32)):
        with pytest.raises(SlmError) as caught:
            load_adapter(Llama(other), tmp_path)
        assert caught.value.code == "E_ADAPTER"


def test_a_tensor_too_many_is_refused_by_its_name(tmp_path: Path) -> None:
    written(tmp_path)
    arrays = load_file(tmp_path / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"
    save_file(arrays | {name: np.zeros(3, np.float32)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(SlmError, match="lora_magnitude_vector"):
        load_adapter(Llama(SHAPE), tmp_path)


def test_a_folder_without_an_adapter_or_with_a_pickle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SlmError) as caught:
        load_adapter(Llama(SHAPE), tmp_path)
    assert caught.value.code == "E_NOT_FOUND"
    written(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(SlmError) as caught:
        load_adapter(Llama(SHAPE), tmp_path)
    assert caught.value.code == "E_PICKLE"
    (tmp_path / "adapter_config.json").write_text("[")
    with pytest.raises(SlmError) as caught:
        load_adapter(Llama(SHAPE), tmp_path)
    assert caught.value.code == "E_ADAPTER"
