"""The Python API: `Model`, and the package's own functions."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from near_ties import assert_same_but_for_near_ties

import ptbr_slm
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime import model as model_module
from ptbr_slm.runtime.batch import BatchLimits
from ptbr_slm.runtime.model import Model
from ptbr_slm.runtime.prompt import TokenPrompt

PROMPTS = ["O rio corre devagar", "Maria", "As crianças brincavam no quintal enquanto o avô", "Ninguém sabia"]


@pytest.fixture(scope="module")
def onnx_model(export_folder):
    with Model(export_folder) as model:
        yield model


@pytest.fixture(scope="module")
def torch_model(model_folder):
    with Model(model_folder) as model:
        yield model


@pytest.fixture(params=["onnx", "torch"])
def model(request, onnx_model, torch_model):
    return onnx_model if request.param == "onnx" else torch_model


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"seed": 11}, {"seed": 4, "repetition_penalty": 1.2}]
)
def test_a_prompt_gives_the_same_text_in_a_batch_and_alone(model, options):
    batch = model.generate_detailed(PROMPTS, max_new_tokens=40, **options)
    for prompt, result in zip(PROMPTS, batch, strict=True):
        alone = model.generate_detailed(prompt, max_new_tokens=40, **options)
        assert_same_but_for_near_ties(model, prompt, result, alone, **options)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_same_call_on_a_model_opened_again_gives_the_same_text_to_the_last_bit(
    model_folder, export_folder, tmp_path, precision
):
    path = export_folder
    if precision == "int8":
        from ptbr_slm_export import export_model

        path = tmp_path / "int8"
        export_model(model_folder, path, precision="int8", verify=False)
    texts = []
    for _ in range(2):
        with Model(path) as model:
            results = model.generate_detailed(PROMPTS, max_new_tokens=40, seed=5, logprobs=2)
        texts.append([(result.tokens, result.text, result.logprobs) for result in results])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"seed": 2, "top_k": 50}, {"seed": 3, "min_p": 0.1}]
)
def test_the_export_writes_what_pytorch_writes(onnx_model, torch_model, options):
    models = (onnx_model, torch_model)
    ours, reference = (m.generate_detailed(PROMPTS, max_new_tokens=64, **options) for m in models)
    for texts in zip(PROMPTS, ours, reference, strict=True):
        assert_same_but_for_near_ties(torch_model, *texts, within=1e-4, **options)


def test_more_prompts_than_slots_wait_for_one(export_folder, onnx_model, monkeypatch):
    together = []
    with Model(export_folder, limits=BatchLimits(slots=2)) as model:
        decode = model.engine.decode

        def counted(slots, ids, **options):
            together.append(len(slots))
            return decode(slots, ids, **options)

        monkeypatch.setattr(model.engine, "decode", counted)
        found = model.generate_detailed(PROMPTS * 3, max_new_tokens=8, seed=1)
    wanted = onnx_model.generate_detailed(PROMPTS, max_new_tokens=8, seed=1) * 3
    for texts in zip(PROMPTS * 3, found, wanted, strict=True):
        assert_same_but_for_near_ties(onnx_model, *texts, seed=1)
    assert set(together) <= {1, 2}
    assert together.count(2) > 6


def test_the_result_tells_what_happened(model):
    result = model.generate_detailed(PROMPTS[0], max_new_tokens=12, seed=5, temperature=0.5)
    assert 1 <= len(result.tokens) <= 12
    assert result.finish_reason in ("length", "eos")
    assert result.prompt_tokens == len(model.engine.tokenizer.encode(PROMPTS[0]))
    assert result.seed == 5
    assert result.time_to_first_token_s > 0
    assert result.tokens_per_second > 0


def test_a_fresh_seed_is_named_and_gives_the_text_again(model):
    first = model.generate_detailed(PROMPTS[1], max_new_tokens=20)
    again = model.generate_detailed(PROMPTS[1], max_new_tokens=20, seed=first.seed)
    assert_same_but_for_near_ties(model, PROMPTS[1], again, first)
    assert model.generate_detailed(PROMPTS[1], max_new_tokens=1).seed != first.seed


def test_a_prompt_of_token_ids_is_continued_as_its_text_and_without_a_bos_of_its_own(model):
    ids = model.engine.tokenizer.encode("A menina viu")
    as_ids, as_text = TokenPrompt(tuple(ids)), "A menina viu"
    options = {"temperature": 0.0, "max_new_tokens": 8}
    assert model.generate(as_ids, **options) == model.generate(as_text, **options)
    assert model.generate([as_text, as_ids], **options) == [model.generate(as_text, **options)] * 2
    assert model.generate_detailed(TokenPrompt(tuple(ids[1:])), **options).prompt_tokens == len(ids) - 1


@pytest.mark.parametrize(
    ("ids", "code"), [((), "E_PROMPT"), ((10**6,), "E_PROMPT"), ((3,) * 700, "E_PROMPT_TOO_LONG")]
)
def test_token_ids_that_are_no_prompt_are_refused(onnx_model, ids, code):
    with pytest.raises(SlmError) as error:
        onnx_model.generate(TokenPrompt(ids))
    assert error.value.code == code


def test_streamed_chunks_concatenate_to_the_generated_text(model):
    options = {"max_new_tokens": 30, "seed": 8, "stop": ["a "]}
    texts = [""] * len(PROMPTS)
    finished = {}
    for chunk in model.stream(PROMPTS, **options):
        assert chunk.row not in finished
        texts[chunk.row] += chunk.text
        if chunk.finish_reason:
            finished[chunk.row] = chunk.result
    assert [finished[row].text for row in range(len(PROMPTS))] == texts
    for row, whole in enumerate(model.generate_detailed(PROMPTS, **options)):
        assert_same_but_for_near_ties(model, PROMPTS[row], finished[row], whole, **options)


def test_a_chunk_tells_when_it_was_made_however_late_it_is_read(onnx_model):
    before = time.perf_counter()
    with onnx_model.submit(PROMPTS[0], max_new_tokens=8, seed=1) as call:
        chunks = [call.next_chunk() for _ in range(8)]
    made = [chunk.at for chunk in chunks]
    assert made == sorted(made) and before < made[0] and made[-1] < time.perf_counter()


def test_text_ends_before_a_stop_string(onnx_model):
    onnx_model.forget()  # each time, so that the same runs give the same text to the last bit
    whole = onnx_model.generate(PROMPTS[0], max_new_tokens=60, seed=1)
    onnx_model.forget()
    stop = whole[20:23]
    result = onnx_model.generate_detailed(PROMPTS[0], max_new_tokens=60, seed=1, stop=stop)
    assert result.finish_reason == "stop"
    assert result.text == whole[: whole.index(stop)]
    onnx_model.forget()
    assert onnx_model.generate(PROMPTS[0], max_new_tokens=60, seed=1, stop=["zzz", stop]) == result.text


def test_the_end_token_ends_the_text_and_is_no_part_of_it(onnx_model):
    end = onnx_model.engine.config.eos_token_ids[0]
    results = onnx_model.generate_detailed(["A"] * 40, max_new_tokens=600, temperature=100.0, top_p=1.0)
    ended = [result for result in results if result.finish_reason == "eos"]
    assert ended
    for result in ended:
        assert result.tokens[-1] == end
        assert end not in result.tokens[:-1]
        assert "<|eos|>" not in result.text


def test_a_full_context_ends_the_text_and_says_so(model):
    config = model.engine.config
    prompt = _prompt_of(model, config.max_seq_len - 5)
    result = model.generate_detailed(prompt, max_new_tokens=50, seed=1, temperature=0.3)
    assert (result.finish_reason, len(result.tokens)) == ("context", 5)
    assert (
        model.generate_detailed(prompt, max_new_tokens=5, seed=1, temperature=0.3).finish_reason == "length"
    )
    longest = _prompt_of(model, config.max_seq_len - 1)
    assert len(model.generate_detailed(longest, max_new_tokens=50, seed=1).tokens) == 1


def _prompt_of(model, tokens: int) -> str:
    """A text of exactly so many ids."""
    text = ""
    while len(model.engine.tokenizer.encode(text + "7 ")) <= tokens:
        text += "7 "
    text += "7" * (tokens - len(model.engine.tokenizer.encode(text)))
    assert len(model.engine.tokenizer.encode(text)) == tokens
    return text


def test_closing_a_stream_frees_its_slots(onnx_model):
    stream = onnx_model.stream(PROMPTS, max_new_tokens=50, temperature=0.0)
    for _ in range(9):
        next(stream)
    stream.close()
    onnx_model.forget()
    slot = onnx_model.engine.open_slot()
    assert slot == 0
    assert onnx_model.engine.length(slot) == 0
    onnx_model.engine.close_slot(slot)


def test_a_stream_left_unread_blocks_nobody(onnx_model):
    options = {"max_new_tokens": 20, "seed": 6}
    alone = [onnx_model.generate_detailed(prompt, **options) for prompt in PROMPTS[:2]]
    stream = onnx_model.stream(PROMPTS[0], **options)
    chunks = [next(stream)]
    beside = onnx_model.generate_detailed(PROMPTS[1], **options)
    chunks += stream
    result = chunks[-1].result
    assert "".join(chunk.text for chunk in chunks) == result.text
    assert_same_but_for_near_ties(onnx_model, PROMPTS[0], result, alone[0], **options)
    assert_same_but_for_near_ties(onnx_model, PROMPTS[1], beside, alone[1], **options)


def test_threads_share_one_model(onnx_model):
    options = {"max_new_tokens": 25, "seed": 9}
    expected = [onnx_model.generate_detailed(prompt, **options) for prompt in PROMPTS]
    found = [[] for _ in PROMPTS]

    def work(index):
        for _ in range(3):
            found[index].append(onnx_model.generate_detailed(PROMPTS[index], **options))

    threads = [threading.Thread(target=work, args=[index]) for index in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for prompt, results, wanted in zip(PROMPTS, found, expected, strict=True):
        assert len(results) == 3
        for result in results:
            assert_same_but_for_near_ties(onnx_model, prompt, result, wanted, **options)


def test_logits_come_back_as_float32(model):
    logits = model.logits([5, 9, 7])
    assert logits.shape == (3, model.engine.config.vocab_size)
    assert logits.dtype == np.float32


def test_describe_has_the_facts_that_a_page_shows(model):
    facts = model.describe()
    assert facts["parameters"] == model.engine.config.num_parameters
    assert facts["context"] == 640
    assert facts["file_bytes"] > 4 * facts["parameters"] * 0.9
    assert facts["device"] == "cpu"
    assert facts["engine"] in ("onnx", "torch")
    assert facts["bits_per_byte"] == (2.5 if facts["engine"] == "torch" else None)  # exported unverified


@pytest.mark.parametrize(
    ("prompt", "code", "words"),
    [
        ("", "E_PROMPT", "vazio"),
        (["Era", ""], "E_PROMPT", "vazio"),
        (None, "E_PROMPT", "NoneType"),
        (b"bytes", "E_PROMPT", "bytes"),
        (["Era", None], "E_PROMPT", "NoneType"),
        (5, "E_PROMPT", "int"),
        ("meio \ud83d caractere", "E_PROMPT", "Unicode"),
        ("palavra " * 1000, "E_PROMPT_TOO_LONG", "640"),
        ("ação e reação, " * 140_000, "E_PROMPT_TOO_LONG", "640"),
        ("a" * 2_000_000, "E_PROMPT_TOO_LONG", "640"),
        (" " * 2_000_000, "E_PROMPT_TOO_LONG", "640"),
    ],
    ids=[
        "empty",
        "empty-in-list",
        "none",
        "bytes",
        "none-in-list",
        "number",
        "surrogate",
        "long",
        "2MB",
        "2MB-word",
        "2MB-spaces",
    ],
)
def test_a_prompt_that_cannot_be_continued_is_refused_before_anything_runs(onnx_model, prompt, code, words):
    started = time.monotonic()
    with pytest.raises(SlmError, match=words) as error:
        onnx_model.stream(prompt)
    assert error.value.code == code
    assert error.value.hint
    assert time.monotonic() - started < 10


def test_a_prompt_too_long_says_both_numbers(onnx_model):
    text = "palavra " * 1000
    count = len(onnx_model.engine.tokenizer.encode(text))
    with pytest.raises(SlmError, match=rf"tem {count} tokens; o contexto do modelo é de 640"):
        onnx_model.generate(text)


def test_no_prompts_give_no_texts(onnx_model):
    assert onnx_model.generate([]) == []


def test_an_unknown_sampling_option_is_refused(onnx_model):
    with pytest.raises(SlmError, match="temperatura") as error:
        onnx_model.generate("Era", temperatura=0.5)
    assert error.value.code == "E_SAMPLING"


def test_a_closed_model_says_so(export_folder):
    model = Model(export_folder)
    never_ends = dict.fromkeys(model.engine.config.eos_token_ids, -100.0)
    stream = model.stream("Era", max_new_tokens=600, temperature=0.0, logit_bias=never_ends)
    next(stream)
    model.close()  # in mid-text: the engine's thread has not run 600 steps meanwhile
    model.close()
    for call in (lambda: model.generate("Era"), lambda: model.logits([5]), lambda: list(stream)):
        with pytest.raises(SlmError) as error:
            call()
        assert error.value.code == "E_CLOSED"


def test_repeated_calls_open_a_model_once(export_folder, monkeypatch):
    opened = []
    monkeypatch.setattr(model_module, "Model", lambda *args: opened.append(args) or Model(*args))
    options = {"model": export_folder, "max_new_tokens": 4, "seed": 1}
    text = ptbr_slm.generate("Era", **options)
    assert ptbr_slm.generate(["Era"], **options) == [text]
    assert "".join(chunk.text for chunk in ptbr_slm.stream("Era", **options)) == text
    assert len(opened) == 1
    manifest = export_folder / "manifest.json"
    os.utime(manifest, ns=(manifest.stat().st_atime_ns, manifest.stat().st_mtime_ns + 10**9))
    ptbr_slm.generate("Era", **options)
    assert len(opened) == 2


def test_the_package_offers_its_names_lazily():
    for name in ptbr_slm.__all__:
        assert getattr(ptbr_slm, name) is not None
    assert set(ptbr_slm.__all__) <= set(dir(ptbr_slm))
    with pytest.raises(AttributeError, match="nada"):
        ptbr_slm.nada  # noqa: B018
