"""/v1/completions with the real client: fields, prompts of every form, ends, forms, and what is refused."""

from __future__ import annotations

import json
import re

import openai
import pytest

PROMPT = "O rio corre devagar"
GREEDY = {"model": "base", "temperature": 0.0, "max_tokens": 12}


@pytest.fixture
def model(server):
    return server.models["base"]


def complete(client, prompt=PROMPT, extra=None, **options):
    """extra: fields that the client has no argument for."""
    return client.completions.create(prompt=prompt, extra_body=extra, **(GREEDY | options))


def refused(client, param, prompt=PROMPT, **options):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, prompt, **options)
    assert caught.value.param == param, caught.value
    return caught.value


def test_an_answer_has_every_field_that_the_client_knows(client, model):
    answer = complete(client)
    assert answer.object == "text_completion" and answer.model == "base"
    assert answer.id.startswith("cmpl-") and answer.created > 1_700_000_000
    assert answer.system_fingerprint == "fp_base"
    (choice,) = answer.choices
    assert choice.finish_reason == "length" and choice.index == 0 and choice.logprobs is None
    expected = model.generate_detailed(PROMPT, max_new_tokens=12, temperature=0.0)
    assert choice.text == expected.text
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (expected.prompt_tokens, 12)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_without_max_tokens_there_are_sixteen(client):
    answer = client.completions.create(model="base", prompt=PROMPT, logit_bias={"1": -100}, seed=3)
    assert answer.usage.completion_tokens == 16


def test_the_first_model_answers_where_none_is_named_and_an_unknown_one_is_404(client, http):
    answer = http.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 1})
    assert answer.status_code == 200 and answer.json()["model"] == "base"
    with pytest.raises(openai.NotFoundError) as caught:
        complete(client, model="gpt-4")
    assert caught.value.code == "model_not_found"


def test_a_prompt_read_before_is_told_as_cached_tokens(client, model):
    model.forget()
    text = "As crianças brincavam no quintal enquanto o avô contava histórias do sertão"
    first, second = complete(client, text, max_tokens=2), complete(client, text, max_tokens=2)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert 0 < second.usage.prompt_tokens_details.cached_tokens < second.usage.prompt_tokens
    assert first.choices[0].text == second.choices[0].text


# Prompts


def test_token_ids_give_what_their_text_gives(client, model):
    ids = model.engine.tokenizer.encode(PROMPT)
    text = complete(client).choices[0].text
    assert complete(client, ids).choices[0].text == text
    assert [each.text for each in complete(client, [ids, ids]).choices] == [text, text]


def test_choices_of_several_prompts_come_prompt_by_prompt(client):
    prompts = [PROMPT, "Maria abriu a janela"]
    answer = complete(client, prompts, n=2, temperature=1.0, seed=5)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    alone = [complete(client, each, n=2, temperature=1.0, seed=5).choices for each in prompts]
    texts = [choice.text for choice in (*alone[0], *alone[1])]
    assert [choice.text for choice in answer.choices] == texts and len(set(texts)) == 4
    prompt_tokens = sum(complete(client, each).usage.prompt_tokens for each in prompts)
    assert answer.usage.prompt_tokens == prompt_tokens and answer.usage.completion_tokens == 48


@pytest.mark.parametrize("prompt", ["", [], [""], [[]], [-1], [10**6], [["a"]], 7, None])
def test_a_prompt_that_is_none_is_refused(http, prompt):
    answer = http.post("/v1/completions", json={"model": "base", "prompt": prompt})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith("prompt")


def test_texts_beyond_what_one_request_may_ask_are_refused(client):
    refused(client, "n", ["a"] * 9, n=64)
    assert len(complete(client, ["a"] * 8, n=64, max_tokens=1).choices) == 512


def test_a_prompt_beyond_the_context_is_refused_with_both_counts(client):
    error = refused(client, "prompt", "uma palavra " * 300)
    assert error.code == "context_length_exceeded"
    assert error.body["n_prompt_tokens"] > error.body["n_ctx"] == 256


def test_max_tokens_beyond_the_context_ends_where_the_context_does(client):
    answer = complete(client, max_tokens=10_000, extra={"ignore_eos": True})
    assert answer.usage.total_tokens == 256 and answer.choices[0].finish_reason == "length"


def test_special_tokens_are_left_out_and_long_prompts_cut_where_asked(client, model):
    tokenizer = model.engine.tokenizer
    ids = tokenizer.encode(PROMPT)
    plain = complete(client, extra={"add_special_tokens": False, "return_token_ids": True}).choices[0]
    assert plain.prompt_token_ids == ids[1:] and len(plain.token_ids) == 12
    cut = complete(client, extra={"truncate_prompt_tokens": 3, "return_token_ids": True}).choices[0]
    assert cut.prompt_token_ids == ids[-3:]
    fitted = complete(client, "uma palavra " * 300, extra={"truncate_prompt_tokens": -1})
    assert fitted.usage.prompt_tokens == 256 - 12


def test_a_special_token_that_a_user_types_stays_text(client, model):
    answer = complete(client, "a<|eos|>b", extra={"return_token_ids": True})
    assert model.engine.tokenizer.eos_id not in answer.choices[0].prompt_token_ids


# Echo


def test_echo_with_no_tokens_gives_the_prompt_back_and_scores_it(client, model):
    answer = complete(client, echo=True, max_tokens=0, logprobs=1)
    (choice,) = answer.choices
    assert choice.text == PROMPT and answer.usage.completion_tokens == 0
    found = choice.logprobs.token_logprobs
    assert found[0] is None and choice.logprobs.top_logprobs[0] is None
    ids = model.engine.tokenizer.encode(PROMPT)
    assert found[1:] == pytest.approx(model.logprobs(ids).tolist(), abs=1e-4)
    assert complete(client, echo=True, max_tokens=0).choices[0].text == PROMPT


def test_echo_puts_the_prompt_before_each_text(client):
    texts = [choice.text for choice in complete(client, ["Maria", PROMPT], echo=True).choices]
    plain = [choice.text for choice in complete(client, ["Maria", PROMPT]).choices]
    assert texts == ["Maria" + plain[0], PROMPT + plain[1]]


def test_no_tokens_without_echo_or_scores_are_refused(client):
    refused(client, "max_tokens", max_tokens=0)


def test_prompt_logprobs_name_each_token_and_its_rivals(client, model):
    answer = complete(client, max_tokens=0, extra={"prompt_logprobs": 2})
    first, *rest = answer.choices[0].prompt_logprobs
    ids = model.engine.tokenizer.encode(PROMPT)
    assert first is None and len(rest) == len(ids) - 1
    for token, candidates in zip(ids[1:], rest, strict=True):
        assert str(token) in candidates and 2 <= len(candidates) <= 3
        ranked = sorted((each["rank"], -each["logprob"]) for each in candidates.values())
        assert [rank for rank, _ in ranked[:2]] == [1, 2]
        assert [value for _, value in ranked] == sorted(value for _, value in ranked)
    refused(client, "prompt_logprobs", extra={"prompt_logprobs": 2, "stream": True})


# Ends


def test_a_stop_text_ends_the_answer_and_is_not_in_it(client):
    whole = complete(client).choices[0].text
    for begin in range(1, len(whole) - 3):
        stop = whole[begin : begin + 3]  # across the borders of tokens, and of characters of two bytes
        found = complete(client, stop=stop).choices[0]
        assert found.text == whole[: whole.index(stop)] and found.finish_reason == "stop"
        assert found.stop_reason == stop


def test_the_stop_that_comes_first_of_a_list_counts_and_there_may_be_64(client):
    whole = complete(client).choices[0].text
    assert complete(client, stop=[whole[5:8], whole[2:4]]).choices[0].text == whole[: whole.index(whole[2:4])]
    complete(client, stop=[f"não existe {number}" for number in range(64)])
    refused(client, "stop", stop=[str(number) for number in range(65)])
    refused(client, "stop", stop=[""])


def test_the_end_token_ends_a_text_unless_it_is_ignored(client, model):
    end = str(model.engine.tokenizer.eos_id)
    ended = complete(client, logit_bias={end: 100})
    assert ended.choices[0].finish_reason == "stop" and ended.choices[0].text == ""
    assert ended.usage.completion_tokens == 1 and ended.choices[0].stop_reason is None
    ignored = complete(client, logit_bias={end: 100}, extra={"ignore_eos": True})
    assert ignored.usage.completion_tokens == 12 and ignored.choices[0].finish_reason == "length"
    late = complete(client, logit_bias={end: 100}, extra={"min_tokens": 5})
    assert late.usage.completion_tokens == 6 and late.choices[0].finish_reason == "stop"


def test_a_token_that_stops_is_told(client):
    first = complete(client, extra={"return_token_ids": True}).choices[0].token_ids
    found = complete(client, extra={"stop_token_ids": [first[3]], "return_token_ids": True}).choices[0]
    assert found.finish_reason == "stop" and found.stop_reason == first[3]
    assert found.token_ids == first[: first.index(first[3]) + 1]


# Sampling


def test_a_bias_forces_and_forbids_a_token(client, model):
    token = model.engine.tokenizer.encode("a", special=False)[0]
    assert complete(client, logit_bias={str(token): 100}).choices[0].text == "a" * 12
    ids = complete(client, extra={"return_token_ids": True}).choices[0].token_ids
    other = complete(client, logit_bias={str(ids[0]): -100}, extra={"return_token_ids": True})
    assert ids[0] not in other.choices[0].token_ids


@pytest.mark.parametrize(
    ("bias", "param"),
    [
        ({"999999": 1}, "logit_bias"),
        ({"-1": 1}, "logit_bias"),
        ({"um": 1}, "logit_bias"),
        ({"٣": 1}, "logit_bias"),  # a digit, but not one of ASCII
        ({"5": 101}, "logit_bias.5"),
        ({"5": "1"}, "logit_bias.5"),
    ],
)
def test_a_bias_that_cannot_be_is_refused(client, bias, param):
    refused(client, param, logit_bias=bias)


def test_a_seed_repeats_a_text_and_another_gives_another(client):
    drawn = {"temperature": 1.0, "max_tokens": 20}
    texts = [complete(client, seed=seed, **drawn).choices[0].text for seed in (1, 1, 2, -1, -1)]
    assert texts[0] == texts[1] != texts[2] and texts[3] == texts[4]


def test_penalties_and_filters_of_vllm_reach_the_sampler(client, model):
    for options, extra, ours in (
        ({"frequency_penalty": 2.0}, {}, {"frequency_penalty": 2.0}),
        ({"presence_penalty": 1.5}, {}, {"presence_penalty": 1.5}),
        ({}, {"repetition_penalty": 1.5}, {"repetition_penalty": 1.5}),
        ({"temperature": 1.0, "seed": 4}, {"top_k": 2}, {"temperature": 1.0, "seed": 4, "top_k": 2}),
        ({"temperature": 1.0, "seed": 4}, {"min_p": 0.3}, {"temperature": 1.0, "seed": 4, "min_p": 0.3}),
        ({"temperature": 1.0, "seed": 4}, {"top_k": -1}, {"temperature": 1.0, "seed": 4, "top_k": 0}),
    ):
        expected = model.generate(PROMPT, **({"temperature": 0.0, "max_new_tokens": 12} | ours))
        assert complete(client, extra=extra, **options).choices[0].text == expected


# Forms


def test_each_form_is_kept(client):
    schema = {"type": "object", "properties": {"nome": {"enum": ["Ana", "Rui"]}}, "required": ["nome"]}
    named = {"type": "json_schema", "json_schema": {"name": "pessoa", "schema": schema, "strict": True}}
    long = {"max_tokens": 60, "temperature": 1.0, "seed": 2}
    for form in (named, {"type": "json_schema", "json_schema": {"name": "p", "schema": schema}}):
        text = complete(client, extra={"response_format": form}, **long).choices[0].text
        assert json.loads(text)["nome"] in ("Ana", "Rui")
    for extra, pattern in (
        ({"response_format": {"type": "regex", "regex": "[ab]{4}"}}, "[ab]{4}"),
        ({"structured_outputs": {"regex": "[ab]{4}"}}, "[ab]{4}"),
        ({"structured_outputs": {"choice": ["sim", "não (talvez)"]}}, r"sim|não \(talvez\)"),
        ({"guided_choice": ["x", "yy"]}, "x|yy"),
        ({"guided_regex": "[0-9]{3}"}, "[0-9]{3}"),
        ({"structured_outputs": {"json": {"enum": ["a", "b"]}}}, '"[ab]"'),
    ):
        found = complete(client, extra=extra, **long).choices[0]
        assert re.fullmatch(pattern, found.text) and found.finish_reason == "stop"


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nada"}}}}, None),
        ({"response_format": {"type": "regex", "regex": "("}}, None),
        ({"response_format": {"type": "xml"}}, None),
        ({"response_format": {"type": "regex", "regex": "a"}, "guided_regex": "b"}, None),
        ({"structured_outputs": {"grammar": "root ::= 'a'"}}, "structured_outputs.grammar"),
        ({"guided_grammar": "root ::= 'a'"}, "guided_grammar"),
    ],
)
def test_a_form_that_cannot_be_kept_is_refused(client, extra, param):
    refused(client, param or "response_format", extra=extra)


# What is refused, and what is ignored


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("suffix", "fim"), ("best_of", 3), ("use_beam_search", True), ("logprobs", 21), ("logprobs", -1),
        ("n", 0), ("n", 65), ("max_tokens", -1), ("max_tokens", "5"), ("max_tokens", 5.5),
        ("max_tokens", True), ("temperature", -0.1), ("temperature", "0.5"), ("top_p", 0), ("top_p", 1.1),
        ("seed", "1"), ("seed", 2**70), ("stream", "sim"), ("echo", 1), ("frequency_penalty", 3),
        ("min_p", 2), ("top_k", -2),
        ("skip_special_tokens", False), ("include_stop_str_in_output", True), ("bad_words", ["a"]),
        ("prompt", ["a"] * 513), ("stop_token_ids", [-1]), ("min_tokens", 13), ("logit_bias", [1]),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(http, name, value):
    body = {"model": "base", "prompt": PROMPT, "max_tokens": 12, "temperature": 0, name: value}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and error["param"].split(".")[0] == name


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_refused(http, number):
    body = f'{{"model": "base", "prompt": "a", "temperature": {number}}}'
    answer = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_fields_that_clients_send_unasked_change_nothing(client):
    extra = {
        "user": "ana", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "suffix": "",
        "reasoning_effort": "low", "verbosity": "low", "prompt_cache_key": "x", "safety_identifier": "y",
        "prediction": {"type": "content", "content": "z"}, "best_of": 1, "stop": None, "logit_bias": None,
        "stream_options": None, "um_campo_de_2027": [1, 2], "response_format": {"type": "text"},
    }  # fmt: skip
    assert complete(client, extra=extra).choices[0].text == complete(client).choices[0].text


def test_the_server_answers_as_before_after_all_that_was_refused(client):
    text = complete(client).choices[0].text
    refused(client, "suffix", suffix="x")
    refused(client, "response_format", extra={"response_format": {"type": "regex", "regex": "["}})
    refused(client, "prompt", "uma palavra " * 300)
    assert complete(client).choices[0].text == text
