"""Folders from elsewhere: what they leave unsaid or say twice is as transformers takes it, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from ptbr_slm_export import export_model
from ptbr_slm_export.gguf.file import export_gguf
from refusals import refusal

import ptbr_slm
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.weights import WeightReader
from ptbr_slm.tokenizer import Tokenizer

torch = pytest.importorskip("torch", reason="precisa do PyTorch: pip install 'ptbr-slm[train]'")
transformers = pytest.importorskip("transformers", reason="compara com transformers: ptbr-slm[dev]")

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


@pytest.fixture
def folder(make_foreign, sentencepiece) -> Path:
    """A fresh folder of transformers, without generation_config.json."""
    made = make_foreign(sentencepiece())
    (made / "generation_config.json").unlink(missing_ok=True)
    return made


@pytest.fixture
def ours(tied, copy_of) -> Path:
    """A copy of a byte-level model to change, without its manifest."""
    copy = copy_of(tied)
    (copy / "manifest.json").unlink()
    (copy / "generation_config.json").unlink()
    return Path(copy)


def change(folder: Path, file: str = "config.json", **changes) -> None:
    """Set keys of a JSON file; `...` takes one out."""
    path = folder / file
    body = json.loads(path.read_text()) if path.exists() else {}
    body |= changes
    path.write_text(json.dumps({key: value for key, value in body.items() if value is not ...}))


@pytest.mark.parametrize(
    ("written", "ends"), [(None, ()), (..., (2,)), (-1, ()), ([], ()), ([7, 2], (7, 2)), (0, (0,))]
)
def test_the_end_tokens_are_those_that_config_json_names_and_null_names_none(folder, written, ends):
    change(folder, eos_token_id=written)
    assert ModelFolder(folder).config.eos_token_ids == ends
    if written is ... or written is None:
        assert transformers.AutoConfig.from_pretrained(folder).eos_token_id == (ends[0] if ends else None)


def test_null_in_generation_config_counts_and_an_absent_key_does_not(folder):
    change(folder, "generation_config.json", temperature=0.7)
    assert ModelFolder(folder).config.eos_token_ids == (2,)
    change(folder, "generation_config.json", eos_token_id=None)
    assert ModelFolder(folder).config.eos_token_ids == ()


def test_a_qwen3_without_its_keys_has_the_defaults_of_qwen3(folder):
    change(
        folder, model_type="qwen3", head_dim=..., eos_token_id=..., bos_token_id=..., num_key_value_heads=2
    )
    config = ModelFolder(folder).config
    theirs = transformers.AutoConfig.from_pretrained(folder)
    assert (config.head_dim, config.eos_token_ids, config.bos_token_id) == (theirs.head_dim, (), None)
    assert theirs.eos_token_id is None and theirs.bos_token_id is None


def test_a_text_does_not_end_at_id_2_where_no_token_ends_it(folder, tmp_path):
    """The model's head is made to say id 2 always."""
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    weights["lm_head.weight"][:] = 0
    safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    forced = {"max_new_tokens": 6, "temperature": 0.0}
    change(folder, eos_token_id=0)  # all logits are alike, and the first id wins
    with ptbr_slm.load(folder, device="cpu") as model:
        assert len(model.generate_detailed("O rio", **forced).tokens) <= 1
    change(folder, eos_token_id=None)
    export_model(folder, tmp_path / "e", precision="fp32", verify=False)
    for path in (folder, tmp_path / "e"):
        with ptbr_slm.load(path, device="cpu") as model:
            result = model.generate_detailed("O rio", **forced)
        assert (len(result.tokens), result.finish_reason) == (6, "length")


def test_a_model_without_an_end_goes_to_genai_and_not_to_a_gguf_whose_reader_makes_one_up(ours, tmp_path):
    change(ours, eos_token_id=None)
    export_model(ours, tmp_path / "g", target="genai", precision="fp32", verify=False)
    assert json.loads((tmp_path / "g" / "genai_config.json").read_text())["model"]["eos_token_id"] == []
    error = refusal(export_gguf, ours, tmp_path / "m.gguf")
    assert error.code == "E_MODEL_INVALID" and "eos_token_id" in error.hint
    assert not (tmp_path / "m.gguf").exists()


def test_every_end_token_goes_into_a_gguf(folder, tmp_path):
    import gguf

    change(folder, eos_token_id=[2, 7, 9])
    fields = gguf.GGUFReader(export_gguf(folder, tmp_path / "m.gguf").file).fields
    found = [fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("eos", "eot", "eom")]
    assert found == [2, 7, 9]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stored_head_counts_where_config_json_says_that_it_is_tied(
    make_foreign, sentencepiece, tmp_path, dtype
):
    folder = make_foreign(sentencepiece(), dtype=dtype)
    change(folder, tie_word_embeddings=True)
    assert not ModelFolder(folder).config.tie_embeddings
    ids = np.random.default_rng(2).integers(3, 400, 40).tolist()
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor([ids])).logits[0].numpy()
    report = export_model(folder, tmp_path / "e", precision="fp32")
    assert report.verification is not None and report.verification.passed
    for path in (folder, tmp_path / "e"):
        with ptbr_slm.load(path, device="cpu") as model:
            np.testing.assert_allclose(model.logits(ids), wanted, atol=2e-4)
    assert json.loads((tmp_path / "e" / "config.json").read_text())["tie_word_embeddings"] is False
    import gguf

    names = [t.name for t in gguf.GGUFReader(export_gguf(folder, tmp_path / "m.gguf", "fp32").file).tensors]
    assert "output.weight" in names


def test_a_head_that_is_a_copy_of_the_embedding_stays_tied(tied, copy_of):
    copy = copy_of(tied)
    (copy / "manifest.json").unlink()
    weights = safetensors.numpy.load_file(copy / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    safetensors.numpy.save_file(weights, copy / "model.safetensors")
    assert ModelFolder(copy).config.tie_embeddings


@pytest.mark.parametrize(("prefix", "way"), [("_orig_mod.", "_orig_mod"), ("module.", "module")])
def test_weights_named_from_inside_a_wrapper_are_told_with_their_prefix(folder, prefix, way):
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    weights = {prefix + name: array for name, array in weights.items()}
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    error = refusal(ptbr_slm.load, folder, device="cpu")
    assert error.code == "E_MODEL_INVALID" and prefix in error.message and "config.json" not in error.hint
    assert f"modelo.{way}.save_pretrained" in error.hint


def test_a_missing_tensor_is_told_with_what_there_is_instead(folder):
    reader = WeightReader(folder)
    error = refusal(reader.read, "model.norm.gain", (64,))
    assert "model.norm.gain" in error.message and "lm_head.weight" in error.message


@pytest.mark.parametrize("other", ["tokenizer.model", "vocab.json"])
def test_a_tokenizer_in_another_form_is_told_with_the_command_that_converts_it(folder, other):
    (folder / "tokenizer.json").rename(folder / other)
    error = refusal(ptbr_slm.load, folder, device="cpu")
    assert error.code == "E_TOKENIZER_MISSING" and other in error.message
    assert "transformers" in error.hint and "tokenizer train" not in error.hint


def test_one_token_more_than_rows_is_named_wherever_it_is_met(folder, sentencepiece, cli, texts, tmp_path):
    body = json.loads((folder / "tokenizer.json").read_text())
    size = Tokenizer.load(folder).vocab_size
    extra = {"id": size, "content": "[PAD]", "special": True, "normalized": False}
    body["added_tokens"].append(body["added_tokens"][0] | extra)
    (folder / "tokenizer.json").write_text(json.dumps(body))
    (tmp_path / "t.txt").write_text("\n\n".join(f"{i}. {text}" for i, text in enumerate(texts * 12)))
    cli("data", "prepare", "t.txt", "-o", "dados", "--tokenizer", folder / "tokenizer.json", check=True)
    train = ["train", "--data", "dados", "--output", "run", "--init-from", folder, "--max-steps", "1",
             "--seq-len", "32"]  # fmt: skip
    for words in (["generate", "-m", folder, "O rio", "-n", "2"], ["export", folder, "-o", "e"], train):
        done = cli(*words)
        assert done.returncode != 0 and "E_TOKENIZER_MISMATCH" in done.stderr
        assert f"'[PAD]' (id {size})" in done.stderr
        assert (
            f"resize_token_embeddings({size + 1})" in done.stderr and "outro tokenizador" not in done.stderr
        )


@pytest.mark.parametrize("target", ["cpu", "genai"])
def test_companions_travel_to_an_export(ours, tmp_path, target):
    (ours / "chat_template.jinja").write_text(TEMPLATE)
    (ours / "special_tokens_map.json").write_text('{"eos_token": "<|eos|>"}')
    (ours / "additional_chat_templates").mkdir()
    (ours / "additional_chat_templates" / "rag.jinja").write_text("{{ 'outro' }}")
    export_model(ours, tmp_path / "e", target=target, precision="fp32", verify=False)
    assert ModelFolder(tmp_path / "e").chat_templates == {"default": TEMPLATE, "rag": "{{ 'outro' }}"}
    assert (tmp_path / "e" / "special_tokens_map.json").is_file()


@pytest.mark.parametrize("place", ["jinja alone", "both", "no tokenizer_config"])
def test_genai_writes_the_chat_that_transformers_writes(ours, tmp_path, place):
    genai = pytest.importorskip("onnxruntime_genai", reason="abre o export no onnxruntime-genai")
    (ours / "chat_template.jinja").write_text(TEMPLATE)
    if place == "jinja alone":
        change(ours, "tokenizer_config.json", chat_template=...)
    elif place == "no tokenizer_config":
        (ours / "tokenizer_config.json").unlink()
    export_model(ours, tmp_path / "e", target="genai", precision="fp32", verify=False)
    tokenizer = genai.Tokenizer(genai.Model(str(tmp_path / "e")))
    chat = [{"role": "user", "content": "Olá"}]
    written = tokenizer.apply_chat_template(json.dumps(chat), add_generation_prompt=False)
    assert written == "[user] Olá\n"


def test_companions_travel_through_a_training_and_its_resumption(folder, cli, texts, tmp_path):
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    change(folder, "generation_config.json", eos_token_id=[2, 7], temperature=0.3)
    change(folder, "tokenizer_config.json", extra="meu")
    (tmp_path / "t.txt").write_text("\n\n".join(f"{i}. {text}" for i, text in enumerate(texts * 12)))
    cli("data", "prepare", "t.txt", "-o", "dados", "--tokenizer", folder / "tokenizer.json", check=True)
    words = ["train", "--data", "dados", "--output", "run", "--seq-len", "32", "--batch-size", "1",
             "--set", "schedule.warmup_steps=1"]  # fmt: skip
    cli(*words, "--init-from", folder, "--max-steps", "1", check=True)
    for name in ("chat_template.jinja", "tokenizer_config.json"):
        (folder / name).unlink()
    cli(*words, "--init-from", folder, "--max-steps", "2", "--allow-config-change", check=True)
    final = tmp_path / "run" / "final"
    assert ModelFolder(final).chat_template == TEMPLATE
    assert json.loads((final / "generation_config.json").read_text())["temperature"] == 0.3
    assert json.loads((final / "tokenizer_config.json").read_text())["extra"] == "meu"
    assert ModelFolder(final).config.eos_token_ids == (2, 7)
    assert transformers.AutoTokenizer.from_pretrained(final).chat_template == TEMPLATE
