"""Round trips of any text, and special tokens that stay text."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.sequence import TextStream
from ptbr_slm.tokenizer import MIN_VOCAB_SIZE, SPECIAL_TOKENS, Tokenizer


@pytest.fixture(scope="module")
def tokenizer(texts):
    return Tokenizer.train(texts * 3, 400)


any_text = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=200)


@settings(max_examples=300, deadline=None)
@given(text=any_text)
def test_any_text_round_trips_up_to_nfc(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_streamed_pieces_join_to_the_decoded_text_and_never_split_a_character(tokenizer, text):
    ids = tokenizer.encode(text, special=False)
    decoder = tokenizer.stream_decoder()
    pieces = [decoder.push(i) for i in ids] + [decoder.finish()]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_random_ids_stream_without_stalling(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    decoder = tokenizer.stream_decoder()
    assert "".join([decoder.push(i) for i in ids] + [decoder.finish()]) == tokenizer.decode(ids)


@settings(max_examples=100, deadline=None)
@given(text=any_text)
def test_byte_lengths_add_up_to_the_utf8_size(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.byte_lengths[ids].sum() == len(unicodedata.normalize("NFC", text).encode())


@pytest.mark.parametrize("special", SPECIAL_TOKENS)
def test_a_special_token_typed_by_a_user_stays_text(tokenizer, special):
    ids = tokenizer.encode(f"a {special} b", special=False)
    assert not set(ids) & tokenizer.special_ids
    assert tokenizer.decode(ids) == f"a {special} b"


def test_special_ids_are_the_first_and_all_different(tokenizer):
    assert [tokenizer.token_id(t) for t in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.encode("oi")[0] == tokenizer.bos_id


def test_saved_and_loaded_it_is_the_same_tokenizer(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    loaded = Tokenizer.load(tmp_path)
    assert loaded.sha256 == tokenizer.sha256
    assert loaded.encode("coração") == tokenizer.encode("coração")


def test_lone_surrogates_are_refused(tokenizer):
    with pytest.raises(SlmError) as caught:
        tokenizer.encode("a\ud800b")
    assert caught.value.code == "E_PROMPT"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "E_TOKENIZER_INVALID"),
        (b"{}", "E_TOKENIZER_INVALID"),
        (b"\xff\xfe\x00", "E_TOKENIZER_INVALID"),
        (None, "E_TOKENIZER_MISSING"),
    ],
)
def test_a_bad_tokenizer_file_is_an_answer(tmp_path, content, code):
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SlmError) as caught:
        Tokenizer.load(file)
    assert caught.value.code == code


def test_a_malicious_regex_is_an_answer_not_a_panic(tokenizer, tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(tokenizer.to_json().replace("(?i:", "(?i:((((("))
    with pytest.raises(SlmError) as caught:
        Tokenizer.load(file)
    assert caught.value.code == "E_TOKENIZER_INVALID"


def test_a_regex_that_gives_up_on_a_text_is_an_answer_not_a_panic(tokenizer, tmp_path):
    """Oniguruma stops after ten million retries, and the tokenizers library then panics within `encode`."""
    body = json.loads(tokenizer.to_json())
    body["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": "(a+)+$"}
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(body), encoding="utf-8")
    loaded = Tokenizer.load(file)
    for encode in (loaded.encode, lambda text: loaded.encode_batch([text])):
        with pytest.raises(SlmError, match="retry-limit") as caught:
            encode("a" * 40 + "b")
        assert caught.value.code == "E_TOKENIZER_INVALID"
    assert loaded.encode("ab") == tokenizer.encode("ab")  # and goes on


@pytest.fixture(scope="module")
def with_added_tokens(tokenizer, tmp_path_factory):
    """The same tokenizer with tokens that a user added as plain text."""
    body = json.loads(tokenizer.to_json())
    for number, content in enumerate(["não", "£", "pão de queijo"]):
        flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized", "special"], False)
        body["added_tokens"].append({"id": tokenizer.vocab_size + number, "content": content, **flags})
    file = tmp_path_factory.mktemp("added") / "tokenizer.json"
    file.write_text(json.dumps(body), encoding="utf-8")
    return Tokenizer.load(file)


@pytest.mark.parametrize("text", ["eu não sei", "custa £ 3", "um pão de queijo, não dois", "ação"])
def test_an_added_token_with_an_accent_prints_its_own_letters(with_added_tokens, text):
    ids = with_added_tokens.encode(text, special=False)
    decoder = with_added_tokens.stream_decoder()
    assert "".join([*map(decoder.push, ids), decoder.finish()]) == text
    assert with_added_tokens.decode(ids) == "".join(with_added_tokens.tokens(ids)) == text
    assert with_added_tokens.byte_lengths[ids].sum() == len(text.encode())


def test_a_stop_string_matches_an_added_token_with_an_accent(with_added_tokens):
    stream = TextStream(with_added_tokens, ["não"])
    ids = with_added_tokens.encode("eu não sei", special=False)
    assert "".join(map(stream.push, ids)) == "eu " and stream.stopped


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_stop_string_fires_in_whatever_normal_form_it_is_typed(tokenizer, form):
    stream = TextStream(tokenizer, [unicodedata.normalize(form, "não é")])
    ids = tokenizer.encode("hoje não é domingo", special=False)
    assert "".join(map(stream.push, ids)) == "hoje " and stream.stopped


def test_a_tokenizer_json_that_begins_with_a_bom_is_the_same_tokenizer(tokenizer, tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(tokenizer.to_json(), encoding="utf-8-sig")
    assert Tokenizer.load(file).sha256 == tokenizer.sha256


@pytest.mark.parametrize(("texts_", "size", "code"), [([], 400, "E_DATA_EMPTY"), (["oi"], 10, "E_CONFIG")])
def test_training_on_nothing_or_for_too_few_tokens_is_refused(texts_, size, code):
    with pytest.raises(SlmError) as caught:
        Tokenizer.train(texts_, size)
    assert caught.value.code == code
    assert MIN_VOCAB_SIZE > 256


def test_the_command_line_trains_and_inspects(cli, texts, tmp_path):
    (tmp_path / "t.txt").write_text("\n\n".join(texts))
    done = cli("tokenizer", "train", "t.txt", "-o", "tokenizer.json", "--vocab-size", "300", "--json")
    assert done.returncode == 0, done.stderr
    shown = cli("tokenizer", "inspect", "manhã", "--tokenizer", "tokenizer.json")
    assert "tokens por palavra" in shown.stdout
    missing = cli("tokenizer", "inspect", "manhã", "--tokenizer", "nada.json")
    assert missing.returncode == 1 and missing.stderr.startswith("Erro [E_TOKENIZER_MISSING]")
    assert len(missing.stderr.strip().splitlines()) == 3


def test_a_stream_decoder_tells_the_bytes_of_an_unfinished_character(tokenizer):
    decoder = tokenizer.stream_decoder()
    token_of = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}
    first, *rest = (token_of[bytes([byte])] for byte in "😀".encode())
    assert decoder.push(first) == "" and decoder.pending == "😀".encode()[:1]
    assert "".join(map(decoder.push, rest)) == "😀" and decoder.pending == b""
