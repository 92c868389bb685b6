"""`--target genai`, run by onnxruntime-genai: the same 64 greedy tokens, alone and in a ragged batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from ptbr_slm_export import export_model, verify_export
from ptbr_slm_export.genai.config import padding_id
from ptbr_slm_export.genai.graph import check_mask, gqa_copy

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.load import open_engine
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer

genai = pytest.importorskip(
    "onnxruntime_genai", reason="abre o export no onnxruntime-genai: pip install 'ptbr-slm[dev]'"
)

PROMPTS = ["O rio corre devagar entre as pedras", "A manhã", "Maria abriu a janela, olhou a rua"]
COUNT = 64


@pytest.fixture(scope="module")
def model(make_model) -> Path:
    return make_model(max_seq_len=192)


@pytest.fixture(scope="module")
def export(model, tmp_path_factory):
    """The genai export in each precision, made once."""
    made: dict[str, Path] = {}

    def make(precision: str) -> Path:
        if precision not in made:
            made[precision] = tmp_path_factory.mktemp("genai") / precision
            export_model(model, made[precision], target="genai", precision=precision, verify=False)
        return made[precision]

    return make


def greedy_of_genai(folder: Path, prompts: list[list[int]], count: int = COUNT) -> list[list[int]]:
    """Their own loop, which stops a row at its end token; all rows padded on the right."""
    opened = genai.Model(str(folder))
    params = genai.GeneratorParams(opened)
    longest = max(map(len, prompts))
    params.set_search_options(max_length=longest + count, batch_size=len(prompts), do_sample=False)
    generator = genai.Generator(opened, params)
    pad = json.loads((folder / "genai_config.json").read_text())["model"]["pad_token_id"]
    rows = [[*ids, *[pad] * (longest - len(ids))] for ids in prompts]
    generator.append_tokens(np.array(rows, dtype=np.int32))
    found: list[list[int]] = [[] for _ in prompts]
    for _ in range(count):
        if generator.is_done():
            break
        generator.generate_next_token()
        for row, token in zip(found, generator.get_next_tokens(), strict=True):
            row.append(int(token))
    return found


def greedy_of_ours(
    folder: Path, ids: list[int], ends: frozenset[int], count: int = COUNT
) -> tuple[list[int], list[float]]:
    """The tokens, and before each how far the best logit was ahead, in standard deviations."""
    engine = open_engine(folder, "cpu")
    engine.reset(1, len(ids) + count)
    row = engine.prefill(0, ids)
    tokens: list[int] = []
    leads: list[float] = []
    while True:
        second, best = np.sort(row)[-2:]
        leads.append(float((best - second) / row.std()))
        tokens.append(int(row.argmax()))
        if len(tokens) == count or tokens[-1] in ends:
            engine.close()
            return tokens, leads
        row = engine.decode([0], tokens[-1:])[0]


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_genai_writes_our_64_greedy_tokens_alone_and_in_a_ragged_batch(export, model, precision):
    """Exact alone, and in fp32 together. int8 and int4 rows together may part where two logits almost tie,
    as in our own engine's batches (docs/decisions/0040-other-tools.md).
    """
    folder = export(precision)
    tokenizer, config = Tokenizer.load(model), ModelFolder(model).config
    prompts = [tokenizer.encode(text) for text in PROMPTS]
    ends = frozenset(config.eos_token_ids)
    with gqa_copy(folder) as copy:
        wanted = [greedy_of_ours(copy, ids, ends) for ids in prompts]
    texts = [tokens for tokens, _ in wanted]
    if precision == "fp32":
        assert texts == [greedy_of_ours(model, ids, ends)[0] for ids in prompts]
    assert max(map(len, texts)) == COUNT
    for ids, alone in zip(prompts, texts, strict=True):
        assert greedy_of_genai(folder, [ids]) == [alone]
    for row, (alone, leads) in zip(greedy_of_genai(folder, prompts), wanted, strict=True):
        parting = next((at for at, (x, y) in enumerate(zip(row, alone, strict=False)) if x != y), None)
        assert parting is None or (precision != "fp32" and leads[parting] < 0.1)


def test_genai_makes_our_tokens_and_text(export, model):
    theirs = genai.Tokenizer(genai.Model(str(export("fp32"))))
    ours = Tokenizer.load(model)
    for text in [*PROMPTS, "— Café?\n\n\tdois  espaços e 12345", "☃ gelo"]:
        ids = ours.encode(text, special=False)
        assert list(theirs.encode(text))[-len(ids) :] == ids
        assert theirs.decode(np.array(ids, dtype=np.int32)) == text


def test_the_export_is_verified_before_it_is_accepted_and_again_later(model, tmp_path):
    report = export_model(model, tmp_path / "genai", target="genai", precision="fp32").verification
    assert report is not None and report.passed
    assert verify_export(tmp_path / "genai", model).passed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["genai"]


def test_a_mask_that_is_counted_wrongly_is_found(export, tmp_path):
    """Shape in place of ReduceSum, which only a padded row shows (mobius#260)."""
    folder = export("fp32")
    with gqa_copy(folder) as copy:
        assert check_mask(folder, copy) < 1e-5
        model = ir.load(folder / "model.onnx")
        total = next(node for node in model.graph if node.outputs[0].name == "mask.total")
        summed = next(node for node in model.graph if node.outputs[0].name == "mask.sum")
        ir.convenience.replace_all_uses_with(summed.outputs[0], total.outputs[0])
        ir.save(model, copy / "wrong.onnx")
        broken = tmp_path / "broken"
        broken.mkdir()
        for file in copy.iterdir():
            (broken / file.name).write_bytes(file.read_bytes())
        (broken / "wrong.onnx").replace(broken / "model.onnx")
        with pytest.raises(Exception):  # noqa: B017 - one length for three rows: ORT refuses, or the logits differ
            assert check_mask(broken, copy) < 1e-5


def test_the_padding_is_never_a_token_that_ends_or_begins(model, sentencepiece, make_foreign, tmp_path):
    ours = Tokenizer.load(model)
    assert padding_id(ModelFolder(model).config, ours, model) == ours.pad_id
    foreign = sentencepiece()
    folder = make_foreign(foreign, pad_token_id=2)
    assert padding_id(ModelFolder(folder).config, foreign, folder) == foreign.token_id("<unk>")
    wider = make_foreign(foreign, pad_token_id=2, vocab_size=foreign.vocab_size + 12)
    assert padding_id(ModelFolder(wider).config, foreign, wider) == foreign.vocab_size


def test_a_model_without_a_padding_of_its_own_is_refused(model, copy_of, tmp_path):
    copy = copy_of(model)
    (copy / "manifest.json").unlink()
    (copy / "tokenizer.json").write_text(
        (copy / "tokenizer.json").read_text().replace("<|pad|>", "<|outro|>")
    )
    body = json.loads((copy / "config.json").read_text()) | {"pad_token_id": 1}
    (copy / "config.json").write_text(json.dumps(body))
    with pytest.raises(SlmError, match="preencher"):
        export_model(copy, tmp_path / "out", target="genai", precision="fp32", verify=False)
    assert not (tmp_path / "out").exists()


def test_our_runtime_says_whose_export_it_is(export, cli):
    done = cli("generate", "-m", export("fp32"), "O rio", "-n", "2")
    assert done.returncode == 1 and "genai" in done.stderr and "--target cpu" in done.stderr
