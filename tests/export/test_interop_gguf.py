"""GGUF files, opened by llama.cpp where it is installed: the same tokens, logits and greedy text.

llama-cpp-python has no wheel on PyPI: `pip install llama-cpp-python` compiles for minutes, so CI goes without
and `benchmarks/interop.py` runs these questions at full size (docs/benchmarks.md).
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from ptbr_slm_export.gguf.file import export_gguf

import ptbr_slm
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer

PROMPT = "O rio corre devagar entre as pedras"
TEXTS = [
    PROMPT,
    "A manhã de domingo: 1.500 vezes, não é?",
    "— Café!\n\n\tdois  espaços   e 12345",
    "☃ gelo 🎉",
]


def field(file, name):
    return gguf.GGUFReader(file).fields[name].contents()


def test_the_file_says_what_the_model_is(tied, tmp_path):
    report = export_gguf(tied, tmp_path / "m.gguf", "fp16")
    assert report.kind == "F16" and 0 < report.worst_row < 1e-3
    file, tokenizer = report.file, Tokenizer.load(tied)
    assert field(file, "general.architecture") == "llama"
    assert field(file, "tokenizer.ggml.model") == "gpt2"
    assert field(file, "tokenizer.ggml.pre") == "llama-bpe"
    for name, token in (("bos", "<|bos|>"), ("eos", "<|eos|>"), ("padding", "<|pad|>")):
        assert field(file, f"tokenizer.ggml.{name}_token_id") == tokenizer.token_id(token)
    assert field(file, "tokenizer.ggml.add_bos_token") is True
    assert field(file, "tokenizer.ggml.add_eos_token") is False
    assert "<|im_start|>" in field(file, "tokenizer.chat_template")
    assert field(file, "ptbr_slm.source_sha256") == report.source_sha256


def test_the_command_writes_one_file_and_says_how_to_use_it(tied, tmp_path, cli):
    done = cli("export", tied, "-o", "m.gguf", "--format", "gguf", "--precision", "int8")
    assert done.returncode == 0, done.stderr
    assert "llama-completion -m m.gguf" in done.stdout and "Q8_0" in done.stdout
    assert (tmp_path / "m.gguf").read_bytes()[:4] == b"GGUF"
    again = cli("export", tied, "-o", "m.gguf", "--format", "gguf", "--json")
    assert again.returncode == 0 and '"precision": "fp16"' in again.stdout


def test_what_is_not_a_gguf_is_not_replaced(tied, tmp_path):
    (tmp_path / "m.gguf").write_text("meu texto")
    with pytest.raises(SlmError) as caught:
        export_gguf(tied, tmp_path / "m.gguf")
    assert caught.value.code == "E_EXISTS" and (tmp_path / "m.gguf").read_text() == "meu texto"
    with pytest.raises(SlmError) as caught:
        export_gguf(tied, tmp_path)
    assert caught.value.code == "E_EXISTS" and "modelo.gguf" in caught.value.hint


def test_int4_is_left_to_llama_cpp_by_name(tied, tmp_path):
    with pytest.raises(SlmError, match="int4") as caught:
        export_gguf(tied, tmp_path / "m.gguf", "int4")
    assert caught.value.code == "E_USAGE" and "llama-quantize" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_width_that_q8_0_cannot_cut_is_refused(make_model, tmp_path):
    odd = make_model(intermediate_size=80)
    with pytest.raises(SlmError, match="múltiplas de 32"):
        export_gguf(odd, tmp_path / "m.gguf", "int8")
    export_gguf(odd, tmp_path / "m.gguf", "fp16")


def test_weights_beyond_fp16_are_refused_and_nothing_is_left(make_model, tied, copy_of, tmp_path):
    import safetensors.numpy

    copy = copy_of(tied)
    (copy / "manifest.json").unlink()
    weights = safetensors.numpy.load_file(copy / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"] = weights["model.layers.1.mlp.up_proj.weight"] * 1e6
    safetensors.numpy.save_file(weights, copy / "model.safetensors")
    with pytest.raises(SlmError, match=r"blk\.1\.ffn_up"):
        export_gguf(copy, tmp_path / "out" / "m.gguf", "fp16")
    assert not list((tmp_path / "out").glob("*"))


def test_a_split_that_llama_cpp_may_not_know_is_refused(tied, copy_of, tmp_path):
    copy = copy_of(tied)
    (copy / "manifest.json").unlink()
    file = copy / "tokenizer.json"
    file.write_text(file.read_text().replace("{1,3}", "{1,2}"))
    with pytest.raises(SlmError, match="separa as palavras"):
        export_gguf(copy, tmp_path / "m.gguf")


@pytest.fixture(scope="module")
def llama_cpp():
    module = pytest.importorskip("llama_cpp", reason="abre o GGUF no llama.cpp: pip install llama-cpp-python")
    silent = module.llama_log_callback(lambda level, text, data: None)
    module.llama_log_set(silent, None)
    yield module
    module.llama_log_set(module.llama_log_callback(lambda *_: None), None)


@pytest.fixture
def opened(llama_cpp, tmp_path):
    """A model folder as a GGUF in llama.cpp."""
    models = []

    def open_(folder, precision="fp32"):
        file = export_gguf(folder, tmp_path / "m.gguf", precision).file
        models.append(
            llama_cpp.Llama(
                str(file), n_ctx=128, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False,
                type_k=0, type_v=0,
            )
        )  # fmt: skip
        return models[-1]

    yield open_
    for model in models:
        model.close()


def greedy(model, ids: list[int], count: int) -> list[int]:
    tokens: list[int] = []
    model.reset()
    model.eval(ids)
    for _ in range(count):
        tokens.append(int(model.scores[model.n_tokens - 1].argmax()))
        model.eval(tokens[-1:])
    return tokens


def check_logits_and_greedy(model, folder, precision: str = "fp32") -> None:
    with ptbr_slm.load(folder, device="cpu") as ours:
        ids = ours.engine.tokenizer.encode(PROMPT)
        wanted = ours.logits(ids)
        model.reset()
        model.eval(ids)
        scores = np.array(model.scores[: len(ids)])
        relative = np.abs(scores - wanted).max() / np.abs(wanted).max()
        assert relative < {"fp32": 1e-4, "fp16": 5e-3, "int8": 5e-2}[precision]
        if precision == "fp32":
            ours.engine.reset(1, 80)
            tokens = [int(ours.engine.prefill(0, ids).argmax())]
            for _ in range(31):
                tokens.append(int(ours.engine.decode([0], tokens[-1:])[0].argmax()))
            assert greedy(model, ids, 32) == tokens


@pytest.mark.parametrize("kind", ["tied", "untied", "normalised", "linear", "llama3"])
def test_llama_cpp_computes_the_same_model(opened, make_model, kind):
    from ptbr_slm.rope import RopeScaling

    changes = {
        "tied": {},
        "untied": {"tie_embeddings": False, "head_dim": 32},
        "normalised": {"qk_norm": True},
        "linear": {"rope_scaling": RopeScaling(kind="linear", factor=2.0)},
        "llama3": {
            "rope_theta": 500.0,
            "rope_scaling": RopeScaling(kind="llama3", factor=8.0, original_max_seq_len=32),
        },
    }[kind]
    folder = make_model(**changes)
    check_logits_and_greedy(opened(folder), folder)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_llama_cpp_computes_the_rounded_model(opened, untied, precision):
    check_logits_and_greedy(opened(untied, precision), untied, precision)


def tokens_of(model, text: str) -> list[int]:
    return model.tokenize(text.encode(), add_bos=True, special=False)


def test_llama_cpp_makes_the_same_tokens_and_text(opened, tied):
    model, tokenizer = opened(tied), Tokenizer.load(tied)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokens_of(model, text) == ids
        assert model.detokenize(ids[1:]).decode() == text


@pytest.mark.parametrize("dialect", ["llama2", "metaspace"])
def test_llama_cpp_makes_the_same_tokens_with_a_sentencepiece_vocabulary(
    opened, make_foreign, sentencepiece, dialect
):
    tokenizer = sentencepiece(dialect)
    folder = make_foreign(tokenizer)
    model = opened(folder)
    assert ModelFolder(folder).config.bos_token_id == 1
    for text in TEXTS:
        assert tokens_of(model, text) == tokenizer.encode(text)
    check_logits_and_greedy(model, folder)


@pytest.mark.parametrize("split", ["gpt-2", "qwen2", "smollm"])
def test_llama_cpp_makes_the_same_tokens_with_the_splits_of_others(opened, make_foreign, texts, split):
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Inner

    from ptbr_slm.tokenizer import LLAMA_BPE_SPLIT

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split != "qwen2")
    regex = Regex(LLAMA_BPE_SPLIT.replace("{1,3}", ""))
    steps = {
        "gpt-2": level,
        "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(regex, "isolated"), level]),
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level]),
    }
    inner = Inner(models.BPE())
    inner.pre_tokenizer, inner.decoder = steps[split], decoders.ByteLevel()
    names = ["<|endoftext|>", "<|a|>", "<|b|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([*texts, *TEXTS], trainer)
    tokenizer = Tokenizer(inner)
    model = opened(make_foreign(tokenizer))
    assert field(model.model_path, "tokenizer.ggml.pre") == split
    for text in TEXTS:
        assert model.tokenize(text.encode(), add_bos=False) == tokenizer.encode(text)
