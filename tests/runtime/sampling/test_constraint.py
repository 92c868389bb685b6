"""JSON schemas and regular expressions: what ends with the form fulfilled fits it, whatever the logits."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.sampling.params import SamplingParams
from ptbr_slm.runtime.sampling.sampler import SamplerFactory
from ptbr_slm.runtime.sequence import TextStream
from ptbr_slm.tokenizer import Tokenizer

pytest.importorskip("llguidance", reason="constrained output: pip install 'ptbr-slm[constrain]'")

EOS = 1


def written(tokenizer, seed, *, tokens=400, streamed=False, **asked) -> tuple[str, bool]:
    """A text drawn from random logits, and whether its form was fulfilled.

    streamed: decoded as a continuation, whose first space is its own.
    """
    sampler = SamplerFactory(SamplingParams(**asked), tokenizer, [EOS]).sampler(seed, [0])
    random = np.random.default_rng(seed)
    ids: list[int] = []
    done = False
    while len(ids) < tokens and not done:
        ids.append(sampler.choose(random.normal(size=tokenizer.vocab_size).astype(np.float32) * 4))
        done = ids[-1] == EOS or sampler.finished
    if not streamed:
        return tokenizer.decode(ids), done
    stream = TextStream(tokenizer, [])
    return "".join(map(stream.push, ids)) + stream.finish(), done


def sentencepiece(dialect) -> Tokenizer:
    """A vocabulary of all bytes and a few words, in either dialect (ptbr_slm/tokenizer/spelling.py)."""
    words = ["▁", "▁a", "a", "ç", "ão", "▁rio", "1", "2", "é", "▁▁", "io", "▁é"]
    names = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    inner = tokenizers.Tokenizer(
        models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>", byte_fallback=True)
    )
    if dialect == "metaspace":
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    else:
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        inner.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    inner.add_special_tokens(["<unk>", "</s>"])
    return Tokenizer(inner)


def fits(schema, value) -> bool:
    """The schemas below, read by hand: jsonschema is no dependency of ours."""
    if "enum" in schema:
        return value in schema["enum"]
    match schema["type"]:
        case "integer":
            return isinstance(value, int) and schema["minimum"] <= value <= schema["maximum"]
        case "boolean":
            return isinstance(value, bool)
        case "string":
            return isinstance(value, str) and len(value) <= schema["maxLength"]
        case "array":
            sized = schema["minItems"] <= len(value) <= schema["maxItems"]
            return isinstance(value, list) and sized and all(fits(schema["items"], item) for item in value)
    keys = schema["properties"]
    return list(value) == list(keys) and all(fits(keys[key], value[key]) for key in keys)


leaves = st.one_of(
    st.just({"type": "integer", "minimum": -20, "maximum": 3000}),
    st.just({"type": "boolean"}),
    st.just({"type": "string", "maxLength": 12}),
    st.lists(st.text('aç é"\\1', max_size=6), min_size=1, max_size=4, unique=True).map(lambda v: {"enum": v}),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items, "minItems": 0, "maxItems": 3}),
        st.dictionaries(st.text("abção ", min_size=1, max_size=8), inner, max_size=3).map(
            lambda keys: {
                "type": "object",
                "properties": keys,
                "required": list(keys),
                "additionalProperties": False,
            }
        ),
    ),
    max_leaves=5,
)
regexes = st.recursive(
    st.sampled_from(["a", "ção", "[a-e]", "[0-9]", "[^a-z\\n]", "\\.", " ", "\\d", "é?"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        inner.map(lambda part: f"({part}){{1,3}}"),
        inner.map(lambda part: f"({part})+"),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(schema=schemas, seed=st.integers(0, 1000), temperature=st.sampled_from([0.0, 1.0]))
def test_a_fulfilled_schema_is_json_that_fits_it(tokenizer, schema, seed, temperature):
    text, done = written(tokenizer, seed, json_schema=schema, temperature=temperature, top_p=1.0)
    assert done
    assert fits(schema, json.loads(text))


@settings(max_examples=80, deadline=None)
@given(regex=regexes, seed=st.integers(0, 1000), temperature=st.sampled_from([0.0, 1.0]))
def test_a_fulfilled_regex_matches_the_whole_text(tokenizer, regex, seed, temperature):
    text, done = written(tokenizer, seed, tokens=150, regex=regex, temperature=temperature, top_k=50)
    if "\ufffd" not in text:  # [^a-z] allows U+FFFD itself; a cut text may end within a character
        assert not done or re.fullmatch(regex, text)


def test_a_digit_is_a_digit_that_brazilians_write(tokenizer):
    for seed in range(20):
        text, done = written(tokenizer, seed, regex=r"CEP: \d{5}-\d{3}/[\d]")
        assert done and re.fullmatch(r"CEP: [0-9]{5}-[0-9]{3}/[0-9]", text)


@pytest.mark.parametrize("dialect", ["llama", "metaspace"])
def test_a_sentencepiece_vocabulary_keeps_the_form_too(dialect):
    """Forced text begins without the space that such a tokenizer puts before a text."""
    foreign = sentencepiece(dialect)
    for seed in range(15):
        text, done = written(foreign, seed, regex="(a rio|ção [0-9]{2}| é){2,4}", streamed=True)
        assert done and re.fullmatch("(a rio|ção [0-9]{2}| é){2,4}", text)


def test_the_example_of_the_guide_is_a_form_that_ends(tokenizer):
    guide = Path(__file__).resolve().parents[3] / "docs" / "GERAR_TEXTO.md"
    schema = re.findall(r"```json\n(.*?)```", guide.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    text, done = written(tokenizer, 0, json_schema=schema)
    assert done and set(json.loads(text)) == {"nome", "idade"}


def test_the_end_of_text_may_come_only_where_the_form_is_complete(tokenizer):
    """EOS is the largest logit throughout."""
    sampler = SamplerFactory(SamplingParams(temperature=0, regex="a{3,9}"), tokenizer, [EOS]).sampler(0, [])
    logits = np.full(tokenizer.vocab_size, -5.0, dtype=np.float32)
    logits[EOS] = 9.0
    ids = [sampler.choose(logits.copy()) for _ in range(4)]
    assert ids[-1] == EOS
    assert tokenizer.decode(ids) == "aaa"


def test_the_copies_of_a_form_do_not_see_each_other(tokenizer):
    recipe = SamplerFactory(SamplingParams(temperature=0, regex="ab|ba"), tokenizer, [EOS])
    a, b = (tokenizer.encode(letter, special=False)[0] for letter in "ab")
    one, other = recipe.sampler(0, []), recipe.sampler(0, [])

    def only(token):
        logits = np.zeros(tokenizer.vocab_size, dtype=np.float32)
        logits[token] = 9.0
        return logits

    assert [one.choose(only(a)), other.choose(only(b)), one.choose(only(a)), other.choose(only(b))] == [
        a, b, b, a,
    ]  # fmt: skip
    assert one.finished and other.finished


def test_log_probabilities_of_a_forced_token_are_the_models_own(tokenizer):
    sampler = SamplerFactory(SamplingParams(regex="a", logprobs=1), tokenizer, [EOS]).sampler(0, [])
    logits = np.zeros(tokenizer.vocab_size, dtype=np.float32)
    logits[7] = 30.0
    sampler.choose(logits)
    assert sampler.logprob is not None
    assert sampler.logprob.logprob == pytest.approx(-30.0, abs=1e-3)
    assert sampler.logprob.top == ((7, pytest.approx(0.0, abs=1e-6)),)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"regex": "(a"}, "um parêntese não fecha"),
        ({"regex": "a\\"}, "barra invertida"),
        ({"regex": r"\1"}, r"referências como \1"),
        ({"regex": "(" * 4000 + ")" * 4000}, "nest"),
        ({"regex": "a" * 20_001}, "o máximo é 20000"),
        ({"regex": "a\ud800"}, "Unicode"),
        ({"json_schema": "{"}, "não é JSON"),
        ({"json_schema": "[1]"}, "um esquema é um objeto"),
        ({"json_schema": "[" * 100_000}, "não é JSON"),
        ({"json_schema": '{"items":' * 65 + "{}" + "}" * 65}, "64 níveis"),
        ({"json_schema": {"multipleOf": 2**31}}, "multipleOf"),
        ({"json_schema": {"multipleOf": 10**400}}, "multipleOf"),
        ({"json_schema": {"multipleOf": 0.123457}}, "multipleOf"),
        ({"json_schema": {"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}}, "multipleOf"),
        ({"json_schema": {"type": "texto"}}, "o tipo texto não existe"),
        ({"json_schema": {"not": {}}}, 'ainda não sabemos seguir "not"'),
        ({"json_schema": {"$ref": "#"}}, "ele só remete a si mesmo"),
        ({"json_schema": {"$ref": "http://localhost/x"}}, "só pode apontar para dentro dele"),
        ({"json_schema": {"$ref": "file:///etc/passwd"}}, "só pode apontar para dentro dele"),
        ({"json_schema": {"minimum": float("nan")}}, "expected value"),
        ({"json_schema": {"type": "string", "minLength": 3, "maxLength": 2}}, "minLength"),
    ],
)
def test_a_form_that_cannot_be_followed_is_refused_in_one_calm_line(tokenizer, asked, words):
    with pytest.raises(SlmError, match="não dá para seguir") as error:
        SamplerFactory(SamplingParams(**asked), tokenizer, [EOS])
    assert (error.value.code, error.value.where) == ("E_SAMPLING", next(iter(asked)))
    assert words in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    "regex",
    ["(((a{1,100}){1,100}){1,100}){1,100}", "(.*a){20}", "(a*)*b", r".{0,100000}", r"\p{L}{1000}(x|xx)+"],
)
def test_hostile_expressions_take_bounded_time(tokenizer, regex):
    start = time.process_time()
    try:
        written(tokenizer, 0, tokens=20, regex=regex)
    except SlmError as error:
        assert error.code == "E_SAMPLING"
    assert time.process_time() - start < 3.0


def test_a_form_without_end_outgrows_its_limits_with_a_clear_error(tokenizer):
    schema = {
        "$defs": {"n": {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}, "required": ["c"]}},
        "$ref": "#/$defs/n",
    }
    with pytest.raises(SlmError, match="Too many items") as error:
        written(tokenizer, 0, json_schema=schema)
    assert error.value.code == "E_SAMPLING"


def test_a_model_without_an_end_token_still_finishes_a_form_that_ends(tokenizer):
    sampler = SamplerFactory(SamplingParams(regex="[ab]{3}"), tokenizer, []).sampler(0, [])
    logits = np.zeros(tokenizer.vocab_size, dtype=np.float32)
    text = ""
    while not sampler.finished:
        text += tokenizer.decode([sampler.choose(logits.copy())])
    assert re.fullmatch("[ab]{3}", text)


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 0.9, "seed": 3}])
def test_every_text_of_a_batch_with_completions_and_guesses_keeps_the_form(export_folder, sampling):
    asked = {"regex": r"(ab|ção|[0-9]){6}\.", "n": 2, "max_new_tokens": 60, **sampling}
    with Model(export_folder) as model:
        plain = model.generate(["O rio", "A casa da rua"], **asked)
        guessed = model.generate(["O rio", "A casa da rua"], lookahead=4, **asked)
        details = model.generate_detailed("O rio", regex="[0-9]{30}", max_new_tokens=4)
    assert len(plain) == 4
    assert all(re.fullmatch(asked["regex"], text) for text in plain)
    assert guessed == plain
    assert details.finish_reason == "length" and re.fullmatch("[0-9]{4,29}", details.text)


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 0.9, "seed": 3}])
def test_what_a_form_forces_is_drafted_and_every_draft_is_right(export_folder, sampling):
    asked = {"regex": "(Era uma vez|Havia outrora) um (rei|rio) no sertão [0-9]", **sampling}
    with Model(export_folder) as model:
        plain = model.generate_detailed("O rio", **asked)
        drafted = model.generate_detailed("O rio", lookahead=8, **asked)
    assert drafted.text == plain.text
    assert 4 <= drafted.accepted == drafted.drafted < len(drafted.tokens)


def test_a_fulfilled_form_ends_with_eos_and_streams_whole(export_folder):
    with Model(export_folder) as model:
        chunks = list(model.stream("O rio", regex="a{5}ç", max_new_tokens=30))
    assert "".join(chunk.text for chunk in chunks) == "aaaaaç" == chunks[-1].result.text
    assert chunks[-1].finish_reason == "eos"


def test_a_form_that_outgrows_its_limits_ends_only_its_own_text(export_folder):
    schema = {
        "$defs": {"n": {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}, "required": ["c"]}}
    }
    with Model(export_folder) as model:
        with pytest.raises(SlmError, match="Too many items"):
            model.generate("O rio", json_schema={**schema, "$ref": "#/$defs/n"})
        assert len(model.generate_detailed("O rio", max_new_tokens=3).tokens) == 3


def test_a_closed_model_s_vocabulary_is_not_kept(texts):
    tokenizer = Tokenizer.train(texts, 300)
    view, alive = SamplerFactory(SamplingParams(regex="ação"), tokenizer, [EOS]), weakref.ref(tokenizer)
    del tokenizer, view
    gc.collect()
    assert alive() is None


def test_without_llguidance_the_error_says_what_to_install(tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(SlmError, match="llguidance") as error:
        SamplerFactory(SamplingParams(regex="a"), tokenizer, [EOS])
    assert error.value.code == "E_DEPENDENCY"
    assert "ptbr-slm[constrain]" in error.value.hint


def test_sampling_without_a_form_does_not_load_llguidance():
    code = "import ptbr_slm.runtime.sampling.sampler, sys; sys.exit('llguidance' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
