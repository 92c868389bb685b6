"""Log probabilities on the wire, with accents, emoji and tokens that hold parts of a character."""

from __future__ import annotations

import math

import openai
import pytest

TEXTS = ["A manhã de café, às três", "Ação 😀 e ❤ no coração", "日本 não é aqui", "sem acento algum"]


def complete(client, prompt, extra=None, **options):
    asked = {"model": "base", "temperature": 0.0, "max_tokens": 8, "extra_body": extra} | options
    return client.completions.create(prompt=prompt, **asked).choices[0]


def is_special(piece):
    return piece.startswith("<|") and piece.endswith("|>")


def assert_spells(choice):
    """Four lists of one length; pieces join to the text and each stands at its offset."""
    found = choice.logprobs
    lengths = {len(each) for each in (found.tokens, found.token_logprobs, found.top_logprobs)}
    assert lengths == {len(found.text_offset)}
    pieces = [(at, piece) for at, piece in zip(found.text_offset, found.tokens, strict=True)]
    assert "".join(piece for _, piece in pieces if not is_special(piece)) == choice.text
    for at, piece in pieces:
        assert is_special(piece) or choice.text[at : at + len(piece)] == piece
    for piece, value, top in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        assert (value is None) == (top is None)
        if top is not None:
            assert top[piece] == value and sum(map(math.exp, top.values())) <= 1 + 1e-6
            values = list(top.values())  # the most probable first, the token itself last where it is not one
            assert values[:-1] == sorted(values[:-1], reverse=True)
            assert values[-1] in (value, min(values))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("most", [0, 5])
def test_pieces_join_to_the_text_and_offsets_point_into_it(client, text, most):
    for seed in range(4):
        options = {"echo": True, "logprobs": most, "temperature": 1.0, "seed": seed, "max_tokens": 20}
        choice = complete(client, text, **options)
        assert choice.text.startswith(text)
        assert_spells(choice)
        assert_spells(complete(client, text, **(options | {"echo": False})))
        assert max(len(each or ()) for each in choice.logprobs.top_logprobs) <= most + 1


def test_echo_gives_none_for_the_first_token_alone(client, server):
    choice = complete(client, TEXTS[0], echo=True, logprobs=1)
    assert [value is None for value in choice.logprobs.token_logprobs].count(True) == 1
    assert choice.logprobs.tokens[0] == "<|bos|>" and choice.logprobs.text_offset[:2] == [0, 0]
    model = server.models["base"]
    ids = model.engine.tokenizer.encode(TEXTS[0])
    expected = model.logprobs(ids).tolist()
    assert choice.logprobs.token_logprobs[1 : len(ids)] == pytest.approx(expected, abs=1e-4)


def test_a_stop_text_leaves_no_offset_beyond_the_text(client):
    whole = complete(client, TEXTS[0], logprobs=0)
    stop = whole.text[3:7]
    cut = complete(client, TEXTS[0], logprobs=0, stop=stop)
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert max(cut.logprobs.text_offset) <= len(cut.text)
    assert cut.logprobs.tokens == whole.logprobs.tokens[: len(cut.logprobs.tokens)]


def test_tokens_may_be_given_as_ids(client):
    extra = {"return_tokens_as_token_ids": True, "return_token_ids": True}
    choice = complete(client, TEXTS[1], logprobs=3, extra=extra)
    assert choice.logprobs.tokens == [f"token_id:{token}" for token in choice.token_ids]
    assert all(name.startswith("token_id:") for top in choice.logprobs.top_logprobs for name in top)


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_has_the_log_probabilities_of_the_whole_answer(client, text):
    options = {"logprobs": 2, "temperature": 1.0, "seed": 9, "max_tokens": 20}
    whole = complete(client, text, **options)
    parts = client.completions.create(
        model="base", prompt=text, stream=True, extra_body={"return_token_ids": True}, **options
    )
    chunks = [chunk.choices[0] for chunk in parts]
    assert "".join(chunk.text for chunk in chunks) == whole.text
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [each for chunk in chunks for each in getattr(chunk.logprobs, name)]
        assert joined == getattr(whole.logprobs, name)
    assert sum(len(chunk.token_ids) for chunk in chunks) == len(whole.logprobs.tokens)


def test_scores_of_a_prompt_do_not_go_into_a_stream(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="base", prompt="a", echo=True, logprobs=1, stream=True)
    assert caught.value.param == "echo"


# Chat


def chat(client, **options):
    asked = {"model": "conversa", "messages": [{"role": "user", "content": "Olá, você!"}], "logprobs": True}
    return client.chat.completions.create(**(asked | {"temperature": 1.0, "max_tokens": 30} | options))


def test_bytes_of_a_chat_s_tokens_join_to_its_text(client):
    for seed in range(6):
        (choice,) = chat(client, seed=seed, top_logprobs=3).choices
        content = choice.logprobs.content
        raw = b"".join(bytes(each.bytes or ()) for each in content)
        assert raw.decode("utf-8", errors="replace") == choice.message.content
        for each in content:
            assert len(each.top_logprobs) == 3 and each.logprob <= 0
            values = [other.logprob for other in each.top_logprobs]
            assert values == sorted(values, reverse=True) and sum(map(math.exp, values)) <= 1 + 1e-6


def test_a_chat_s_stream_has_the_log_probabilities_of_the_whole_answer(client):
    whole = chat(client, seed=3, top_logprobs=2).choices[0]
    parts = [chunk.choices[0] for chunk in chat(client, seed=3, top_logprobs=2, stream=True)]
    found = [each for part in parts if part.logprobs for each in part.logprobs.content]
    assert found == whole.logprobs.content


@pytest.mark.parametrize("options", [{"top_logprobs": 21}, {"logprobs": False, "top_logprobs": 2}])
def test_top_logprobs_that_cannot_be_are_refused(client, options):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **options)
    assert caught.value.param == "top_logprobs"
