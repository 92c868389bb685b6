"""The status line and the model card are Portuguese and say only what is known."""

import pytest

from ptbr_slm.app.errors import sentence, shown_on_the_page
from ptbr_slm.app.figures import ENDINGS, Progress, card_lines, model_card, short_count
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.sampling.params import SamplingParams


def progress(*times: float) -> Progress:
    made = Progress(started=10.0, prompt_tokens=3, context=512, seed=42)
    for time in times:
        made.token(time, None)
    return made


def test_the_status_line_counts_tokens_speed_latency_context_and_seed():
    made = progress(10.034, *(10.034 + step / 37 for step in range(1, 54)))
    assert made.line() == "54 tokens · 37 tokens/s · primeiro token 34 ms · contexto 57/512 · semente 42"


def test_one_token_has_no_speed_yet():
    assert progress(10.2).line() == "1 token · primeiro token 200 ms · contexto 4/512 · semente 42"


def test_slow_speeds_have_a_decimal_comma():
    assert "4,2 tokens/s" in progress(11.0, 11.0 + 1 / 4.2).line()


@pytest.mark.parametrize("reason", ENDINGS)
def test_every_way_to_end_is_told(reason):
    made = progress(10.1)
    made.token(10.2, reason)
    assert made.line().endswith(ENDINGS[reason][0])


def test_in_english_the_line_is_english():
    made = progress(11.0, 11.0 + 1 / 4.2)
    made.language = "en"
    made.token(12.0, "length")
    assert "first token" in made.line() and made.line().endswith("token limit") and "," not in made.line()


def test_the_card_shows_what_is_known_in_portuguese_and_leaves_out_the_rest():
    facts = {"parameters": 87_500_000, "engine": "onnx", "precision": "int4", "file_bytes": 61_240_000,
             "device": "cpu", "context": 1024, "vocab_size": 32_000, "bits_per_byte": 1.234}  # fmt: skip
    assert card_lines(facts) == [
        ("Parâmetros", "87,5 milhões"),
        ("Formato", "ONNX int4"),
        ("Tamanho", "61,2 MB"),
        ("Dispositivo", "CPU"),
        ("Contexto", "1.024 tokens"),
        ("Vocabulário", "32.000 tokens"),
        ("Bits por byte", "1,23"),
    ]
    assert "Bits por byte" not in model_card({**facts, "bits_per_byte": None})


def test_counts_use_the_singular_below_two():
    assert [short_count(n) for n in (999, 185_800, 1_000_000, 1_900_000, 1_980_000, 1_300_000_000)] == [
        "999", "185,8 mil", "1 milhão", "1,9 milhão", "2 milhões", "1,3 bilhão"]  # fmt: skip


def test_nothing_in_the_card_becomes_markup():
    assert "<b>" not in model_card({"engine": "<b>", "precision": "<b>", "device": "<b>"})


@pytest.mark.parametrize(
    "field", ["temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens", "seed"]
)
def test_an_error_names_the_control_as_the_page_does(field):
    with pytest.raises(SlmError) as caught:
        SamplingParams(**{field: "<img src=x>"})
    shown = sentence(caught.value, "pt")
    assert field not in shown and shown[0].isupper() and shown.endswith("Corrija o valor em Amostragem.")
    assert sentence(caught.value, "en").endswith("Correct it under Sampling.")


def test_what_gradio_shows_of_an_error_is_no_markup(gradio):
    with pytest.raises(gradio.Error) as caught, shown_on_the_page():
        SamplingParams(temperature="<img src=x>")
    assert "&lt;img" in caught.value.message and "<img" not in caught.value.message
