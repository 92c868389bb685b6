"""The model against transformers, its cache, its checkpointing, its sizes."""

import math

import numpy as np
import pytest
import torch
from tiny_models import write_model

from ptbr_slm.config import SIZES, ModelConfig, model_config
from ptbr_slm.errors import SlmError
from ptbr_slm.model import IGNORE, KVCache, Llama
from ptbr_slm.storage.manifest import write_manifest
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer

CONFIG = ModelConfig(
    vocab_size=400, hidden_size=96, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=24,
    intermediate_size=128, max_seq_len=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Llama:
    return Llama(CONFIG).initialize(7)


@pytest.fixture(scope="module")
def folder(model, texts, tmp_path_factory):
    tokenizer = Tokenizer.train(texts * 3, 400)
    return write_model(tmp_path_factory.mktemp("model") / "m", CONFIG, tokenizer, model.to_hf_weights())


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 400, (2, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_opens_the_folder_and_gives_the_same_logits(texts, tmp_path, tokens, tied, qk_norm):
    """A Llama's, and with qk_norm a Qwen3's."""
    from dataclasses import replace

    import transformers

    config = replace(CONFIG, tie_embeddings=tied, qk_norm=qk_norm)
    model = Llama(config).initialize(3)
    for name, gain in model.named_parameters():
        if gain.dim() == 1:  # gains of one would hide a norm that is left out or in another place
            gain.copy_(1 + 0.3 * torch.randn(gain.shape, generator=torch.Generator().manual_seed(len(name))))
    write_model(tmp_path / "m", config, Tokenizer.train(texts * 3, 400), model.to_hf_weights())
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert type(theirs).__name__ == ("Qwen3ForCausalLM" if qk_norm else "LlamaForCausalLM")
    again = Llama.from_folder(tmp_path / "m")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert (theirs(tokens).logits - model(tokens)).abs().max() < 1e-4


def test_transformers_reads_our_tokenizer_alike(folder):
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs("Coração de Mãe").input_ids == Tokenizer.load(folder).encode("Coração de Mãe")


def test_a_folder_opens_with_the_very_same_weights(model, folder):
    ModelFolder.open(folder)
    loaded = Llama.from_folder(folder)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


@torch.no_grad()
def test_prefill_chunks_and_single_tokens_through_the_cache_equal_one_pass(model, tokens):
    whole = model(tokens)
    cache = KVCache(CONFIG, batch_size=2, capacity=64, like=model.embed.weight)
    pieces = [model(tokens[:, :17], cache), model(tokens[:, 17:30], cache)]
    pieces += [model(tokens[:, i : i + 1], cache) for i in range(30, 40)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, atol=1e-5, rtol=1e-5)


def test_checkpointing_changes_neither_the_loss_nor_the_gradients(tokens):
    results = []
    for every in (0, 1, 2):
        model = Llama(CONFIG).initialize(7).train()
        model.checkpoint_every = every
        loss = model.loss_sum(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        results.append((loss.item(), model.embed.weight.grad.clone()))
    for loss, gradient in results[1:]:
        assert loss == results[0][0]
        torch.testing.assert_close(gradient, results[0][1])


def test_first_loss_is_close_to_ln_v_and_ignored_targets_do_not_count(model, tokens):
    targets = torch.roll(tokens, 1, 1)
    mean = model.loss_sum(tokens, targets).item() / targets.numel()
    assert abs(mean / math.log(400) - 1) < 0.05
    halved = targets.clone()
    halved[:, 20:] = IGNORE
    half = model.loss_sum(tokens, halved) + model.loss_sum(
        tokens, torch.where(halved == IGNORE, targets, IGNORE)
    )
    torch.testing.assert_close(half.item() / targets.numel(), mean, rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", ["85m", "160m", "400m", "800m"])
def test_a_size_is_within_five_percent_of_its_name_and_fits_the_kernels(size):
    config = SIZES[size]
    assert abs(config.num_parameters / (int(size[:-1]) * 1e6) - 1) < 0.05
    assert config.head_dim == 64
    for width in (config.hidden_size, config.q_size, config.kv_size, config.intermediate_size):
        assert width % 64 == 0


def test_counted_parameters_are_the_real_ones(model):
    from dataclasses import replace

    assert CONFIG.num_parameters == sum(p.numel() for p in model.parameters())
    normalised = replace(CONFIG, qk_norm=True)
    assert normalised.num_parameters == sum(p.numel() for p in Llama(normalised).parameters())
    for config in (CONFIG, normalised):
        assert ModelConfig.from_hf(config.to_hf()) == config


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2}}, "dynamic"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "incompleto"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.5}}, "incompleto"),
        ({"partial_rotary_factor": 0.5}, "parte da cabeça"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantizados"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"attention_bias": True}, "attention_bias"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "janela"),
        ({"hidden_size": None}, "incompleto"),
        ({"num_key_value_heads": 3}, "num_kv_heads"),
    ],
)
def test_another_architecture_is_refused_by_name(change, expected):
    with pytest.raises(SlmError, match=expected):
        ModelConfig.from_hf({**CONFIG.to_hf(), **change})


def test_an_unknown_size_lists_the_sizes():
    with pytest.raises(SlmError) as caught:
        model_config("7b")
    assert caught.value.code == "E_MODEL_SIZE" and "85m" in caught.value.hint


def test_a_missing_pickled_truncated_or_flipped_model_is_an_answer(folder, tmp_path):
    import shutil

    def code_of(path):
        with pytest.raises(SlmError) as caught:
            ModelFolder.open(path)
            Llama.from_folder(path)
        return caught.value.code

    (tmp_path / "m.pt").write_bytes(b"\x80\x02")
    (tmp_path / "vazia").mkdir()
    (tmp_path / "dados").mkdir()
    write_manifest(tmp_path / "dados", "prepared-data")
    assert code_of(tmp_path / "nada") == "E_NOT_FOUND"
    assert code_of(tmp_path / "m.pt") == "E_PICKLE"
    assert code_of(tmp_path / "vazia") == "E_MODEL_INVALID"
    assert code_of(tmp_path / "dados") == "E_MODEL_INVALID"
    copy = tmp_path / "copia"
    shutil.copytree(folder, copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert code_of(copy) == "E_MODEL_INVALID"
    (copy / "manifest.json").unlink()  # a folder from elsewhere: safetensors' own checks still hold
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert code_of(copy) == "E_MODEL_INVALID"
    assert np.isfinite(Llama.from_folder(folder).embed.weight.detach().numpy()).all()
