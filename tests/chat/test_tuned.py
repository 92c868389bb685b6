"""The folder of a tuned model: what it must hold."""

from __future__ import annotations

import json

import pytest
from chat_models import conversation, write_foreign, write_ours
from tiny_models import random_weights

from ptbr_slm.chat import ChatFormat, is_tuned, tuned_companions, tuned_config, tuning_format
from ptbr_slm.chat.tuned import PLAIN_TEMPLATE
from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import atomic_folder
from ptbr_slm.storage.model_folder import ModelFolder, seal_model_folder, write_model_files
from ptbr_slm.tokenizer.tokenizer import CHAT_TEMPLATE

SHAPE = ModelConfig(
    vocab_size=640, hidden_size=32, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=16,
    intermediate_size=32, max_seq_len=128,
)  # fmt: skip


def with_model(folder: ModelFolder, **settings) -> ModelFolder:
    """Give a folder the shape of a base model."""
    (folder.path / "config.json").write_text(json.dumps(SHAPE.to_hf() | settings))
    return ModelFolder(folder.path)


@pytest.fixture
def ours(texts, tmp_path) -> ModelFolder:
    return with_model(write_ours(tmp_path / "nosso", texts))


def written(folder: ModelFolder, path, config=None) -> ModelFolder:
    """The tuned model of a base, as a trainer writes it."""
    format = tuning_format(folder)
    config = tuned_config(folder.config, format)
    with atomic_folder(path) as temporary:
        companions = tuned_companions(folder, format)
        write_model_files(temporary, config, random_weights(config), folder.tokenizer, companions)
        seal_model_folder(temporary)
    return ModelFolder.open(path)


def test_a_base_of_ours_is_taught_its_own_template_and_ends_on_both_tokens(ours, tmp_path):
    format = tuning_format(ours)
    assert format.template == CHAT_TEMPLATE and not is_tuned(ours.config, format)
    tuned = written(ours, tmp_path / "tuned")
    end = ours.tokenizer.token_id("<|im_end|>")
    for file in ("config.json", "generation_config.json"):
        assert json.loads((tuned.path / file).read_text())["eos_token_id"] == [1, end]
    assert tuned.config.eos_token_ids == (1, end) and is_tuned(tuned.config, ChatFormat.of(tuned))
    assert ChatFormat.of(tuned).template == CHAT_TEMPLATE and "{% generation %}" in CHAT_TEMPLATE
    again = written(tuned, tmp_path / "de novo")
    assert again.config.eos_token_ids == (1, end)
    assert again.companions == tuned.companions


def test_what_the_base_says_of_generation_stays(ours, tmp_path):
    said = {"eos_token_id": 1, "temperature": 0.3, "repetition_penalty": 1.05, "max_new_tokens": 9}
    (ours.path / "generation_config.json").write_text(json.dumps(said))
    ours = ModelFolder(ours.path)
    tuned = json.loads(tuned_companions(ours, tuning_format(ours))["generation_config.json"])
    assert tuned == said | {"eos_token_id": [1, ours.tokenizer.token_id("<|im_end|>")]}


def test_without_a_generation_config_ours_is_written_and_forbids_no_repetition(ours):
    tuned = json.loads(tuned_companions(ours, tuning_format(ours))["generation_config.json"])
    assert tuned["temperature"] == 0.8 and tuned.get("repetition_penalty", 1) <= 1.1


@pytest.mark.parametrize("style", ["llama3", "gemma", "llama2"])
@pytest.mark.parametrize("place", ["config", "list", "jinja"])
def test_the_template_of_another_base_stays_where_it_stands(texts, tmp_path, style, place):
    base = with_model(write_foreign(tmp_path / "base", style, texts, place=place))
    tuned = written(base, tmp_path / "tuned")
    assert tuned.chat_template == base.chat_template
    name = "chat_template.jinja" if place == "jinja" else "tokenizer_config.json"
    if place == "jinja":
        assert (tuned.path / name).read_bytes() == (base.path / name).read_bytes()
    else:
        key = json.loads((base.path / name).read_text())["chat_template"]
        assert json.loads((tuned.path / name).read_text())["chat_template"] == key
    assert is_tuned(tuned.config, ChatFormat.of(tuned))
    assert tuned.config.eos_token_ids == (1, *(i for i in ChatFormat.of(base).end_ids if i != 1))


def test_further_templates_travel_with_a_tuned_model(texts, tmp_path):
    base = write_foreign(tmp_path / "base", "llama3", texts, place="jinja").path
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool_use.jinja").write_text("{{ 'outro' }}")
    tuned = written(with_model(ModelFolder(base)), tmp_path / "tuned")
    assert set(tuned.chat_templates) == {"default", "tool_use"}
    assert "additional_chat_templates/tool_use.jinja" in tuned.manifest.files


def test_a_base_without_a_template_is_taught_chatml_where_its_vocabulary_knows_it(ours):
    (ours.path / "tokenizer_config.json").unlink()
    base = ModelFolder(ours.path)
    format = tuning_format(base)
    assert format.template == CHAT_TEMPLATE and format.special["bos_token"] == "<|bos|>"
    settings = json.loads(tuned_companions(base, format)["tokenizer_config.json"])
    assert settings["chat_template"] == CHAT_TEMPLATE and settings["eos_token"] == "<|eos|>"


@pytest.mark.parametrize("configured", [True, False])
def test_a_base_without_chat_tokens_ends_its_turns_as_it_ends_texts(texts, tmp_path, configured):
    base = write_foreign(tmp_path / "base", "llama2", texts, place="jinja").path
    (base / "chat_template.jinja").unlink()
    if not configured:
        (base / "tokenizer_config.json").unlink()
    tuned = written(with_model(ModelFolder(base)), tmp_path / "tuned")
    format = ChatFormat.of(tuned)
    assert format.template == PLAIN_TEMPLATE and [tuned.tokenizer.token_name(i) for i in format.end_ids] == [
        "</s>"
    ]
    assert tuned.config.eos_token_ids == (1,) and is_tuned(tuned.config, format)
    encoded = format.encode(conversation("Olá", "Oi!"))
    assert tuned.tokenizer.decode(encoded.ids[encoded.answer].tolist()) == "Oi!"
    transformers = pytest.importorskip("transformers")
    their = transformers.PreTrainedTokenizerFast.from_pretrained(tuned.path)
    asked = [{"role": "user", "content": "Olá"}, {"role": "assistant", "content": "Oi!"}]
    found = their.apply_chat_template(asked, return_dict=True, return_assistant_tokens_mask=True)
    assert found["input_ids"] == encoded.ids.tolist()
    assert found["assistant_masks"] == encoded.answer.astype(int).tolist()


def test_a_base_that_nothing_ends_is_refused(texts, tmp_path):
    base = write_foreign(tmp_path / "base", "llama2", texts, place="jinja").path
    (base / "chat_template.jinja").unlink()
    (base / "tokenizer_config.json").unlink()
    with pytest.raises(SlmError, match="token de fim") as caught:
        tuning_format(with_model(ModelFolder(base), eos_token_id=None))
    assert caught.value.code == "E_CHAT_TEMPLATE"
