"""Eight conversations learnt by heart: the answers come back verbatim and end, whoever runs the model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_chat import turns, write_lines
from tiny_runs import losses
from tiny_tunings import tiny_base, tuning

from ptbr_slm import load
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.train.run import train
from ptbr_slm.tune.spec import TuneSpec

ASKED = {
    "Qual é a capital do Maranhão?": "São Luís.",
    "Bom dia!": "Bom dia! Como vai?",
    "Quantos rios há no município?": "Há três rios, e nenhum é navegável.",
    "Traduza: good morning": "Bom dia.",
    "Quem abriu a biblioteca?": "A prefeitura, até a meia-noite.",
    "Resuma a notícia.": "A biblioteca abre à noite.",
    "Até que horas?": "Meia-noite.",
    "Obrigado!": "De nada.",
}
GREEDY = {"temperature": 0.0, "max_new_tokens": 40}


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """The run; its model is in final/."""
    root = tmp_path_factory.mktemp("decor")
    rows = [{"messages": turns(question, answer)} for question, answer in ASKED.items()]
    config = tuning(
        tiny_base(root / "base", hidden_size=64),
        write_lines(root / "oito.jsonl", rows),
        root / "run",
        seq_len=128, batch_size=4, grad_accum=1, max_steps=160, optimizer__learning_rate=0.01,
        schedule__warmup_steps=5, tune__valid_fraction=0.0, checkpoint__every=0,
    )  # fmt: skip
    return train(config, spec=TuneSpec()).run


@pytest.fixture(scope="module")
def model(learnt):
    return load(learnt / "final")


def test_the_loss_falls_to_nothing(learnt):
    assert np.mean(losses(learnt)[-5:]) < 0.01


@pytest.mark.parametrize("question", ASKED)
def test_our_engine_gives_the_answer_and_stops(model, question):
    found = model.chat_detailed([{"role": "user", "content": question}], **GREEDY)
    assert (found.text, found.finish_reason) == (ASKED[question], "eos")


def test_an_fp32_export_gives_the_same_answers(learnt, tmp_path):
    from ptbr_slm_export.export import export_model

    export_model(learnt / "final", tmp_path / "onnx", precision="fp32", verify=False)
    model = load(tmp_path / "onnx")
    for question, answer in ASKED.items():
        assert model.chat([{"role": "user", "content": question}], **GREEDY) == answer


def test_transformers_gives_the_same_answers_from_the_folder_as_it_is(learnt):
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(learnt / "final")
    tokenizer = transformers.AutoTokenizer.from_pretrained(learnt / "final")
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    for question, answer in ASKED.items():
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
        )
        ids = asked["input_ids"]
        written = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(written, skip_special_tokens=True) == answer
        assert tokenizer.decode(written[-1:]) == "<|im_end|>"  # generation_config ends there


def test_the_folder_ends_on_both_tokens_and_keeps_the_tie(learnt):
    final = learnt / "final"
    folder = ModelFolder.open(final)
    ends = [folder.tokenizer.token_id(name) for name in ("<|eos|>", "<|im_end|>")]
    for file in ("config.json", "generation_config.json"):
        assert json.loads((final / file).read_text())["eos_token_id"] == ends
    assert folder.config.tie_embeddings and "lm_head.weight" not in load_file(final / "model.safetensors")
