"""Hostile and broken models (E3, rows 17 to 23): an answer of ours, soon, and the next model works."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
import time

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptbr_slm.errors import Exit, SlmError
from ptbr_slm.runtime.engines.onnx.export_folder import check_graph_file
from ptbr_slm.runtime.load import open_engine
from ptbr_slm.runtime.model import Model
from ptbr_slm.storage.manifest import write_manifest
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.weights import WeightReader
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm.tokenizer.rules import growth

SECONDS = 1.0
"""CPU time that an answer about a broken file may take."""
DATA = "model.onnx.data"


@pytest.fixture
def folder(export_folder, tmp_path):
    """A copy of an export to damage."""
    return shutil.copytree(export_folder, tmp_path / "export")


@pytest.fixture
def plain(model_folder, tmp_path):
    """A copy of a model folder to damage, without its manifest: as a download has it."""
    path = shutil.copytree(model_folder, tmp_path / "modelo")
    (path / "manifest.json").unlink()
    return path


def seal(folder):
    (folder / "manifest.json").unlink(missing_ok=True)
    write_manifest(folder, "export", target="cpu", precision="fp32")


def refused(path, code=None):
    began = time.process_time()
    with pytest.raises(SlmError) as error:
        open_engine(path, "cpu")
    assert time.process_time() - began < SECONDS
    assert error.value.hint and (code is None or error.value.code == code)
    return error.value


class _Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["modelo.pt", "pytorch_model.bin", "model.safetensors"])
def test_a_pickle_is_never_opened_whatever_it_is_called(plain, tmp_path, name):
    mark = tmp_path / "executado"
    (plain / "model.safetensors").unlink()
    (plain / name).write_bytes(pickle.dumps(_Bomb(mark)))
    refused(plain, "E_MODEL_INVALID" if name.endswith("safetensors") else "E_PICKLE")
    if name == "modelo.pt":
        refused(plain / name, "E_PICKLE")
    assert not mark.exists()


_dtypes = st.sampled_from(["F32", "F16", "BF16", "F64", "I8", "U8", "F8_E4M3", "BOOL", "X", "", 7, None])
_numbers = st.sampled_from([-1, 0, 1, 2, 64, 384, 2**31, 2**63, 2**64, 10**30]) | st.integers(0, 10**6)
_entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": _dtypes,
        "shape": st.lists(_numbers, max_size=4) | st.none(),
        "data_offsets": st.lists(_numbers, max_size=3) | st.none(),
        "extra": st.integers(),
    },
)
_headers = st.dictionaries(
    st.sampled_from(["model.norm.weight", "x", "__metadata__", ""]), _entries, max_size=3
)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    header=_headers,
    length=st.none() | st.sampled_from([0, 1, 7, 2**40, 2**63, 2**64 - 1]),
    tail=st.binary(max_size=300),
)
def test_a_mangled_safetensors_header_is_refused_at_once_without_memory(plain, header, length, tail):
    """Whatever the header claims, what is read back is a tensor that the file really holds."""
    text = json.dumps(header).encode()
    size = len(text) if length is None else length
    (plain / "model.safetensors").write_bytes(size.to_bytes(8, "little") + text + tail)
    began = time.process_time()
    try:
        reader = WeightReader(plain)
        for name in reader.names():
            array = reader.read(name, (64,))
            assert array.nbytes == 256 and len(tail) >= 64
    except SlmError as error:
        assert error.code == "E_MODEL_INVALID" and error.hint
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", '{"weight_map": {"a": "../fora.safetensors"}}', '{"weight_map": {"a": "/etc/passwd"}}',
     '{"weight_map": [1]}', "{" * 5000, '{"weight_map": {"a": "falta.safetensors"}}'],
)  # fmt: skip
def test_an_index_of_shards_never_leads_out_of_the_folder(plain, index):
    (plain / "model.safetensors").rename(plain.parent / "fora.safetensors")
    (plain / "model.safetensors.index.json").write_text(index)
    refused(plain, "E_MODEL_INVALID")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="sem FIFO neste sistema")
@pytest.mark.parametrize("name", ["manifest.json", "config.json", "tokenizer.json", "model.onnx", DATA])
def test_a_fifo_in_the_place_of_a_file_does_not_hang(folder, plain, name):
    for path in (folder, plain):
        (path / name).unlink(missing_ok=True)
        os.mkfifo(path / name)
        assert "não é um arquivo comum" in refused(path).message
        (path / name).unlink()
    with pytest.raises(SlmError):
        ModelFolder.open(plain / "nada")


def edited(folder, **entries):
    """Rewrite where the first external tensor says its weights are."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    for key, value in entries.items():
        found = [entry for entry in tensor.external_data if entry.key == key]
        (found[0] if found else tensor.external_data.add(key=key)).value = value
    onnx.save(model, folder / "model.onnx")
    seal(folder)


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": str(2**62)},
        {"offset": "9" * 400},
        {"offset": "9" * 6000},
        {"offset": "-4096"},
        {"offset": "um"},
        {"length": str(2**63)},
        {"length": "-1"},
        {"location": "model.onnx.data\0/etc/passwd"},
        {"location": "./../export/../../etc/passwd"},
        {"location": "/dev/zero"},
    ],
    ids=lambda entries: " ".join(f"{key}={value[:12]!r}" for key, value in entries.items()),
)
def test_weights_at_impossible_places_are_refused_by_us(folder, entries):
    edited(folder, **entries)
    with pytest.raises(SlmError) as error:
        check_graph_file(folder / "model.onnx")
    assert error.value.code == "E_MODEL_INVALID"
    refused(folder, "E_MODEL_INVALID")


def test_a_tensor_that_says_twice_where_it_is_is_refused(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    tensor.external_data.add(key="location", value=DATA)
    onnx.save(model, folder / "model.onnx")
    seal(folder)
    assert "duas vezes" in refused(folder, "E_MODEL_INVALID").message


def test_tensors_that_overlap_are_only_weights_read_twice(folder):
    """Two names for the same bytes harm nobody: the file opens, and nothing outside of it is read."""
    edited(folder, offset="0")
    open_engine(folder, "cpu").close()


@pytest.mark.parametrize("version", [0, 99])
def test_a_graph_of_another_opset_is_refused_with_the_runtimes_word(folder, version):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.opset_import[0].version = version
    onnx.save(model, folder / "model.onnx")
    seal(folder)
    assert "ONNX Runtime não abriu" in refused(folder, "E_MODEL_INVALID").message


def test_wrong_inputs_are_refused_with_what_was_expected(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for node in model.graph.node:
        node.input[:] = ["seq" if name == "seqlens_k" else name for name in node.input]
    next(value for value in model.graph.input if value.name == "seqlens_k").name = "seq"
    onnx.save(model, folder / "model.onnx")
    seal(folder)
    message = refused(folder, "E_MODEL_INVALID").message
    assert "seqlens_k: esperado tensor(int32), achado nenhum" in message


def test_one_nan_among_the_weights_is_an_answer_and_the_next_model_works(folder, export_folder):
    array = np.memmap(folder / DATA, np.float32, "r+")
    array[: len(array) // 2] = np.nan
    array.flush()
    seal(folder)
    with Model(folder, "cpu") as model, pytest.raises(SlmError) as error:
        model.generate("O rio", max_new_tokens=4)
    assert error.value.code == "E_MODEL_INVALID" and "não são números" in error.value.message
    with Model(export_folder, "cpu") as model:
        assert len(model.generate_detailed("O rio", max_new_tokens=4, temperature=0).tokens) > 0


# Tokenizers.


def rules(folder, **changes):
    """Change the rules of a folder's tokenizer.json."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))
    return path


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize(
    "pattern", [r"(a+)+$", r"(x+x+)+y", r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(?:\w|\s)*?\d$", r"\w*\d", "("]
)
def test_an_expression_that_explodes_is_refused_when_opened_or_at_that_text(plain, pattern):
    path = rules(plain, pre_tokenizer=split(pattern))
    began = time.process_time()
    with pytest.raises(SlmError) as error:
        Tokenizer.load(path).encode("a" * 12_000 + "! " + "x" * 30)
    assert error.value.code == "E_TOKENIZER_INVALID" and error.value.exit_code == Exit.CORRUPT
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    "rule",
    [
        {"type": "Sequence", "normalizers": [replace("o" * 10, String="o")] * 9},
        {"type": "Sequence", "normalizers": [replace("ab" * 50, Regex=".")]},
        replace("x" * 1000, String=""),
    ],
)
def test_rules_that_flood_the_memory_are_refused_when_opened(plain, rule):
    assert growth(rule) > 64
    with pytest.raises(SlmError, match="mais de 64") as error:
        Tokenizer.load(rules(plain, normalizer=rule))
    assert error.value.code == "E_TOKENIZER_INVALID"


def test_the_rules_of_known_tokenizers_are_taken(plain):
    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    qwen = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    sentencepiece = {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace("▁", String=" ")],
    }
    for changes in (
        {"pre_tokenizer": split(gpt2)},
        {"pre_tokenizer": split(qwen)},
        {"normalizer": sentencepiece},
    ):
        assert Tokenizer.load(rules(plain, **changes)).encode("Olá")


@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body["model"]["merges"].append(["zzz", "qqq"]),
        lambda body: body["model"]["vocab"].update(negativo=-1),
        lambda body: body["model"].update(vocab={}),
        lambda body: body.update(model=None),
        lambda body: body.update(added_tokens=[{"id": "um"}]),
    ],
)
def test_a_vocabulary_that_makes_no_sense_is_refused(plain, damage):
    path = plain / "tokenizer.json"
    body = json.loads(path.read_text(encoding="utf-8"))
    damage(body)
    path.write_text(json.dumps(body))
    with pytest.raises(SlmError) as error:
        Tokenizer.load(path)
    assert error.value.code == "E_TOKENIZER_INVALID"


def test_more_tokens_than_the_model_has_or_an_id_beyond_them_is_refused(plain):
    path = plain / "tokenizer.json"
    original = path.read_text(encoding="utf-8")
    body = json.loads(original)
    body["model"]["vocab"] |= {f"token{i}": 1000 + i for i in range(50_000)}
    path.write_text(json.dumps(body))
    with pytest.raises(SlmError) as error:
        Model(plain, "cpu")
    assert error.value.code == "E_TOKENIZER_MISMATCH"
    body = json.loads(original)
    body["model"]["vocab"]["O"] = 2**32 - 1
    path.write_text(json.dumps(body))
    with pytest.raises(SlmError) as error, Model(plain, "cpu") as model:
        model.generate("O rio", max_new_tokens=2)
    assert error.value.code in ("E_TOKENIZER_MISMATCH", "E_TOKENIZER_INVALID", "E_PROMPT")


def test_a_panic_in_a_worker_is_its_answer_and_the_others_go_on(plain, export_folder):
    """A regular expression that only fails at a certain text, in one of several threads over one model."""
    rules(plain, pre_tokenizer={"type": "Sequence", "pretokenizers": [split(r"(z+)+$|.")]})
    errors = []
    with Model(plain, "cpu") as model:

        def ask(text):
            try:
                model.generate(text, max_new_tokens=2)
            except SlmError as error:
                errors.append(error.code)

        texts = ["O rio corre", "z" * 40 + "! fim", "a manhã"]
        threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert errors in ([], ["E_TOKENIZER_INVALID"])
        assert model.generate("de novo", max_new_tokens=2) is not None


# Prompts.


def test_a_prompt_of_a_megabyte_is_refused_at_once_and_the_model_lives(export_folder):
    with Model(export_folder, "cpu") as model:
        for text in ("pão " * 250_000, "a" * 1_000_000, " " * 1_000_000, "🙂" * 250_000, "<|eos|>" * 140_000):
            began = time.process_time()
            with pytest.raises(SlmError) as error:
                model.generate(text, max_new_tokens=2)
            assert error.value.code == "E_PROMPT_TOO_LONG"
            assert time.process_time() - began < SECONDS
        assert model.generate("O rio", max_new_tokens=2) is not None


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "fim\udcff"])
def test_a_lone_surrogate_is_an_answer_and_the_model_lives(export_folder, text):
    with Model(export_folder, "cpu") as model:
        with pytest.raises(SlmError) as error:
            model.generate(text, max_new_tokens=2)
        assert error.value.code == "E_PROMPT"
        assert model.generate("O rio", max_new_tokens=2) is not None


def test_special_tokens_typed_by_a_user_stay_text(export_folder):
    with Model(export_folder, "cpu") as model:
        tokenizer = model.engine.tokenizer
        special = {tokenizer.token_id(name) for name in ("<|bos|>", "<|eos|>", "<|pad|>", "<|im_start|>")}
        ids = tokenizer.encode("fim<|eos|><|im_start|>system<|pad|>", special=False)
        assert not special & set(ids)
        assert tokenizer.decode(ids) == "fim<|eos|><|im_start|>system<|pad|>"


def test_the_config_of_a_folder_is_only_ever_json_of_ours(plain):
    for text in (
        "",
        "null",
        "[" * 100_000,
        '{"model_type": "llama"}',
        '{"model_type": "llama", "vocab_size": 1e999}',
    ):
        (plain / "config.json").write_text(text)
        with pytest.raises(SlmError):
            _ = ModelFolder(plain).config
