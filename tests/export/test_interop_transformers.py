"""Our model folder in transformers: the same 32 greedy tokens from its `generate`, and a chat template."""

from __future__ import annotations

import pytest

import ptbr_slm
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer

torch = pytest.importorskip("torch", reason="precisa do PyTorch: pip install 'ptbr-slm[train]'")
transformers = pytest.importorskip("transformers", reason="compara com transformers: ptbr-slm[dev]")

PROMPTS = ["O rio corre devagar entre as pedras", "Maria abriu a janela", "A"]


@pytest.mark.parametrize("kind", ["tied", "untied", "normalised"])
def test_generate_of_transformers_writes_our_32_greedy_tokens(request, kind):
    folder = request.getfixturevalue(kind)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    names = transformers.AutoTokenizer.from_pretrained(folder)
    with ptbr_slm.load(folder, device="cpu") as ours:
        for prompt in PROMPTS:
            inputs = names(prompt, return_tensors="pt", return_token_type_ids=False)
            output = theirs.generate(**inputs, max_new_tokens=32, do_sample=False)
            result = ours.generate_detailed(prompt, max_new_tokens=32, temperature=0.0)
            new = output[0, inputs.input_ids.shape[1] :].tolist()
            assert new == list(result.tokens)
            assert names.decode(new, skip_special_tokens=True) == result.text


def test_generate_of_transformers_takes_a_ragged_batch_with_the_folders_own_padding(tied):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tied).eval()
    names = transformers.AutoTokenizer.from_pretrained(tied, padding_side="left")
    assert names.pad_token == "<|pad|>" and names.pad_token not in (names.eos_token, names.bos_token)
    inputs = names(PROMPTS, return_tensors="pt", padding=True, return_token_type_ids=False)
    output = theirs.generate(**inputs, max_new_tokens=16, do_sample=False)
    texts = names.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    with ptbr_slm.load(tied, device="cpu") as ours:
        assert texts == ours.generate(PROMPTS, max_new_tokens=16, temperature=0.0)


def test_the_folders_chat_template_is_chatml(tied):
    names = transformers.AutoTokenizer.from_pretrained(tied)
    chat = [{"role": "user", "content": "Olá!"}, {"role": "assistant", "content": "Oi."}]
    text = names.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|bos|><|im_start|>user\nOlá!<|im_end|>\n<|im_start|>assistant\nOi.<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = names.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    tokenizer = Tokenizer.load(tied)
    assert ids[:2] == [tokenizer.bos_id, tokenizer.token_id("<|im_start|>")]
    assert ids.count(tokenizer.token_id("<|im_end|>")) == 2
    template = ModelFolder(tied).chat_template
    assert template is not None and "im_start" in template
