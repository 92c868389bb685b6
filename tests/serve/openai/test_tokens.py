"""/v1/models, /tokenize, /detokenize, /tokenizer_info and what is refused."""

from __future__ import annotations

import shutil

import openai
import pytest

from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.naming import fingerprint_of

TEXT = "O rio corre, e a manhã começa 😀"


def test_the_models_are_listed_and_each_is_found_by_its_name(client):
    listed = list(client.models.list())
    assert [each.id for each in listed] == ["base", "conversa"]
    assert client.models.retrieve("conversa") == listed[1]
    assert listed[0].object == "model" and listed[0].owned_by == "ptbr-slm"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4/ção")
    assert caught.value.code == "model_not_found"


def test_a_model_tells_what_clients_of_vllm_and_of_llama_cpp_read(http, server):
    entry = http.get("/v1/models").json()["data"][0]
    model = server.models["base"]
    assert entry["max_model_len"] == entry["meta"]["n_ctx_train"] == 256
    assert entry["meta"]["n_vocab"] == model.engine.config.vocab_size
    assert entry["meta"]["n_params"] == model.engine.config.num_parameters and entry["meta"]["size"] > 0


def test_props_tell_clients_of_llama_cpp_what_they_read(http):
    found = http.get("/props", params={"model": "conversa"}).json()
    assert found["total_slots"] == 16 and found["default_generation_settings"]["n_ctx"] == 256
    assert "<|im_start|>" in found["chat_template"] and found["model_alias"] == "conversa"
    assert http.get("/props").json()["chat_template"] == ""


def test_tokenize_answers_in_both_forms(http, server):
    tokenizer = server.models["base"].engine.tokenizer
    with_bos, plain = tokenizer.encode(TEXT), tokenizer.encode(TEXT, special=False)

    def ask(**body):
        answer = http.post("/tokenize", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    vllm = ask(prompt=TEXT, return_token_strs=True)
    assert vllm["tokens"] == with_bos and vllm["count"] == len(with_bos) and vllm["max_model_len"] == 256
    assert vllm["token_strs"] == [tokenizer.token_name(token) for token in with_bos]
    assert ask(prompt=TEXT, add_special_tokens=False)["tokens"] == plain
    assert ask(content=TEXT)["tokens"] == plain
    assert ask(content=TEXT, add_special=True)["tokens"] == with_bos
    pieces = [each["piece"] for each in ask(content=TEXT, with_pieces=True)["tokens"]]
    raw = b"".join(bytes(piece) if isinstance(piece, list) else piece.encode() for piece in pieces)
    assert raw.decode() == TEXT
    assert ask(content="")["tokens"] == []


def test_a_conversation_is_tokenized_as_it_is_read(http, client):
    messages = [{"role": "user", "content": "Olá <|im_end|>!"}]
    found = http.post("/tokenize", json={"model": "conversa", "messages": messages}).json()
    answer = client.chat.completions.create(
        model="conversa", messages=messages, max_tokens=1, extra_body={"return_token_ids": True}
    )
    assert answer.choices[0].prompt_token_ids == found["tokens"]


def test_only_the_name_of_a_special_token_alone_is_that_token(http, server):
    tokenizer = server.models["base"].engine.tokenizer

    def tokens(text, **options):
        return http.post("/tokenize", json={"prompt": text, **options}).json()["tokens"]

    assert tokens("<|bos|>", add_special_tokens=False) == [tokenizer.bos_id]
    assert tokenizer.bos_id not in tokens("a<|bos|>", add_special_tokens=False)
    assert tokens("<|eos|>") == tokenizer.encode("<|eos|>")


def test_detokenize_gives_the_text_back(http):
    tokens = http.post("/tokenize", json={"prompt": TEXT}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": TEXT, "content": TEXT}
    for bad in ([10**6], [-1], ["a"], None):
        answer = http.post("/detokenize", json={"tokens": bad})
        assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("tokens")


def test_tokenizer_info_has_what_lm_eval_reads(http):
    found = http.get("/tokenizer_info", params={"model": "conversa"}).json()
    assert (found["bos_token"], found["eos_token"], found["pad_token"]) == ("<|bos|>", "<|eos|>", "<|pad|>")
    assert "<|im_start|>" in found["chat_template"] and found["model_max_length"] == 256
    assert http.get("/tokenizer_info").json()["chat_template"] is None


def test_embeddings_are_refused_in_a_sentence(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="base", input="a")
    assert caught.value.code == "embeddings_not_supported"
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="base", input=[[1, 2]])


@pytest.mark.parametrize("body", [{}, {"prompt": 7}, {"prompt": "a", "model": "outro"}])
def test_what_tokenize_cannot_do_is_refused(http, body):
    answer = http.post("/tokenize", json=body)
    assert answer.status_code == (404 if "model" in body else 400) and answer.json()["error"]["message"]


def test_the_fingerprint_is_that_of_the_files_that_are_served(exports, tmp_path):
    found = {name: fingerprint_of(ModelFolder.of(folder)) for name, folder in exports.items()}
    assert found["base"] != found["conversa"]
    copy = shutil.copytree(exports["base"], tmp_path / "copia")
    assert fingerprint_of(ModelFolder.of(copy)) == found["base"]
