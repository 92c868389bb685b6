"""`verify` names what is wrong: the weight with its layer, or the part of the graph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from ptbr_slm_export import export_model, verify_export
from ptbr_slm_export.graphs import gqa
from ptbr_slm_export.verification.locate import locate
from ptbr_slm_export.verification.reference import parts
from ptbr_slm_export.verification.stored_weights import StoredWeights, worst_weight

from ptbr_slm.runtime.engines.torch import TorchEngine
from ptbr_slm.storage.manifest import write_manifest
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.storage.weights import WeightReader

PRECISIONS = ("fp32", "int8", "int4")
TOKENS = np.random.default_rng(2).integers(5, 400, 24)


@pytest.fixture(scope="module")
def export(untied, tmp_path_factory):
    """precision -> an export of `untied`, made once."""
    made: dict[str, Path] = {}

    def get(precision: str) -> Path:
        if precision not in made:
            made[precision] = tmp_path_factory.mktemp("locate") / precision
            export_model(untied, made[precision], precision=precision, verify=False)
        return made[precision]

    return get


def worst_part_of(folder: Path):
    config = ModelFolder(folder).config
    tokens = TOKENS % config.vocab_size
    return locate(folder / "model.onnx", config, StoredWeights(folder / "model.onnx", config), tokens)


def edit(folder: Path, change) -> None:
    """Change the graph, its weights staying where they are, under a manifest that agrees."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    change(model.graph)
    onnx.save(model, folder / "model.onnx")
    body = json.loads((folder / "manifest.json").read_text())
    keep = ("target", "flavour", "precision", "method", "kv_dtype", "source_sha256")
    write_manifest(folder, "export", **{k: body[k] for k in keep if k in body})


def node(graph, name: str):
    return next(node for node in graph.node if node.name == name)


@pytest.mark.parametrize("name", ["tied", "untied", "normalised", "foreign"])
def test_the_parts_joined_together_are_pytorchs_model(name, request):
    source = request.getfixturevalue(name)
    config, reader = ModelFolder(source).config, WeightReader(source)
    stored = StoredWeights.__new__(StoredWeights)  # only for the shapes
    stored.config = config

    def read(weight: str) -> np.ndarray:
        if weight == "lm_head.weight" and config.tie_embeddings:
            weight = "model.embed_tokens.weight"
        return reader.read(weight, stored.shape(weight))

    engine = TorchEngine(ModelFolder(source))
    logits = engine.logits(TOKENS.tolist())
    engine.close()
    (head,) = parts(config, read, TOKENS, {"logits": logits})
    assert head.name == "head" and head.largest < 1e-4


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["untied", "normalised", "foreign"])
def test_every_part_of_a_sound_export_is_looked_at_and_passes(name, precision, request, tmp_path):
    source = request.getfixturevalue(name)
    export_model(source, tmp_path / "e", precision=precision, verify=False)
    worst = worst_part_of(tmp_path / "e")
    outside = 4 if precision == "int4" else 3  # whose best logits are computed twice
    assert worst.passed and worst.compared == outside + 11 * ModelFolder(source).config.num_layers
    exact = 0.1 if precision != "fp32" else 1e-4
    assert worst.part.relative < exact / 3  # with room for a larger model


@pytest.mark.parametrize(
    ("target", "precision"), [("cuda", "fp16"), ("cuda", "int4"), ("tensorrt", "fp16"), ("tensorrt", "fp32")]
)
def test_exports_for_a_gpu_are_looked_into_on_the_cpu_and_their_faults_named(
    untied, tmp_path, target, precision
):
    folder = tmp_path / "e"
    export_model(untied, folder, target=target, precision=precision, verify=False)
    sound = worst_part_of(folder)
    assert sound.passed and sound.compared == 3 + 11 * 2
    assert sound.part.relative < (1e-4 if precision == "fp32" else 1e-2) / 5
    edit(folder, _wrong_eps)
    worst = worst_part_of(folder)
    assert not worst.passed and (worst.part.layer, worst.part.name) == (0, "attention_norm")
    report = verify_export(folder, untied)
    assert not report.passed and "camada 0, attention_norm" in report.culprit


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("fault", ["rope", "eps", "gain", "scale", "swap", "silu"])
def test_a_graph_that_computes_something_else_is_told_by_layer_and_part(
    export, untied, copy_of, fault, precision, monkeypatch, tmp_path
):
    expected = {
        "rope": (0, "attention"), "eps": (0, "attention_norm"), "gain": (1, "feed_forward_norm"),
        "scale": (1, "attention"), "swap": (1, "down"), "silu": (0, "silu"),
    }[fault]  # fmt: skip
    if fault == "rope":
        right = gqa.rope_tables
        monkeypatch.setattr(gqa, "rope_tables", lambda config: (right(config)[0], -right(config)[1]))
        damaged = tmp_path / "e"
        export_model(untied, damaged, precision=precision, verify=False)
    else:
        damaged = copy_of(export(precision))
        edit(damaged, GRAPH_FAULTS[fault])
    worst = worst_part_of(damaged)
    assert not worst.passed and (worst.part.layer, worst.part.name) == expected
    assert f"camada {expected[0]}, {expected[1]}" in str(worst)
    report = verify_export(damaged, untied)
    assert report.weight.passed and f"camada {expected[0]}, {expected[1]}" in report.culprit
    assert f"camada {expected[0]}, {expected[1]}" in str(report.failure(damaged))


@pytest.mark.parametrize("fault", ["smallest", "few", "rows"])
def test_best_logits_that_are_not_scored_again_as_they_should_are_told(export, untied, copy_of, fault):
    def smallest(graph) -> None:
        """Those that are scored again are not the best."""
        next(a for a in node(graph, "head.best.coarse").attribute if a.name == "largest").i = 0

    def few(graph) -> None:
        """The rows of the wrong tokens: all are token 7."""
        graph.initializer.append(numpy_helper.from_array(np.array(7, dtype=np.int64), "sete"))
        graph.initializer.append(numpy_helper.from_array(np.array(0, dtype=np.int64), "nada"))
        lookup = node(graph, "head.best.rows.blocks")
        at = list(graph.node).index(lookup)
        graph.node.insert(at, onnx.helper.make_node("Mul", [lookup.input[1], "nada"], ["zeros"], name="m"))
        graph.node.insert(at + 1, onnx.helper.make_node("Add", ["zeros", "sete"], ["setes"], name="s"))
        lookup.input[1] = "setes"

    def rows(graph) -> None:
        """Rows of the embedding, which this model does not tie to its head."""
        node(graph, "head.best.rows.blocks").input[0] = "embedding.codes"

    damaged = copy_of(export("int4"))
    edit(damaged, {"smallest": smallest, "few": few, "rows": rows}[fault])
    worst = worst_part_of(damaged)
    assert not worst.passed and worst.part.name == "head_best"
    assert "melhores logits recalculados" in verify_export(damaged, untied).culprit


def _wrong_eps(graph) -> None:
    attribute = next(a for a in node(graph, "layers.0.attention_norm").attribute if a.name == "epsilon")
    attribute.f *= 100


def _missing_gain(graph) -> None:
    norm = node(graph, "layers.1.feed_forward_norm")
    width = next(t for t in graph.initializer if t.name == norm.input[2]).dims[0]
    graph.initializer.append(numpy_helper.from_array(np.full(width, 1.01, dtype=np.float32), "um"))
    norm.input[2] = "um"


def _unscaled_attention(graph) -> None:
    node(graph, "layers.1.attention").attribute.append(onnx.helper.make_attribute("scale", 0.3))


def _swapped_matrices(graph) -> None:
    """Layer 1 multiplies with layer 0's matrix, under a name that says otherwise."""
    here, there = node(graph, "layers.1.down"), node(graph, "layers.0.down")
    here.input[1:] = there.input[1:]


def _relu_for_silu(graph) -> None:
    wrong = node(graph, "layers.0.silu")
    wrong.op_type, wrong.domain = "Relu", ""
    del wrong.attribute[:]


GRAPH_FAULTS = {
    "eps": _wrong_eps,
    "gain": _missing_gain,
    "scale": _unscaled_attention,
    "swap": _swapped_matrices,
    "silu": _relu_for_silu,
}


def test_a_cache_that_is_not_read_is_told_as_a_fault_of_later_tokens(export, copy_of):
    damaged = copy_of(export("fp32"))

    def forget(graph) -> None:
        """Layer 1 reads an empty cache whatever it is given."""
        past = node(graph, "layers.1.attention").input
        graph.initializer.append(numpy_helper.from_array(np.zeros(1, dtype=np.float32), "zero"))
        for index, name in ((3, "sem.chaves"), (4, "sem.valores")):
            graph.node.insert(0, onnx.helper.make_node("Mul", [past[index], "zero"], [name], name=name))
            past[index] = name

    edit(damaged, forget)
    worst = worst_part_of(damaged)
    assert not worst.passed and worst.with_past
    assert (worst.part.layer, worst.part.name) == (1, "attention")
    assert "depois dos outros" in str(worst)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_weight_half_as_large_again_is_named_with_layer_row_column_and_values(
    untied, export, copy_of, precision
):
    """In int8 and int4 the scale of one block of 32 weights: there is nothing smaller to perturb by half."""
    damaged = copy_of(export(precision))
    tensor = "layers.1.up." + ("weight" if precision == "fp32" else "scales")
    scale_first(damaged, tensor, 1.5)
    config = ModelFolder(untied).config
    worst = worst_weight(StoredWeights(damaged / "model.onnx", config), WeightReader(untied))
    name = "model.layers.1.mlp.up_proj.weight"
    assert not worst.passed and (worst.name, worst.layer, worst.row, worst.others) == (name, 1, 0, ())
    assert str(worst).startswith(f"camada 1, {name}[0, {worst.column}]: ")
    assert worst.stored == pytest.approx(
        1.5 * worst.original, rel={"fp32": 1e-6, "int8": 0.03, "int4": 0.3}[precision]
    )
    assert worst.column == 0 or precision != "fp32"


def test_a_weight_that_is_no_number_is_named(untied, export, copy_of):
    damaged = copy_of(export("fp32"))
    scale_first(damaged, "layers.0.gate.weight", np.nan)
    edit(damaged, lambda graph: None)
    report = verify_export(damaged, untied)
    assert "camada 0, model.layers.0.mlp.gate_proj.weight[0, 0]: nan" in report.culprit
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["culprit"]["weight"]["layer"] == 0


def scale_first(folder: Path, tensor: str, factor: float) -> None:
    """Multiply the first number of an initializer, wherever it lies."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    entry = next(t for t in model.graph.initializer if t.name == tensor)
    if not entry.external_data:
        numbers = numpy_helper.to_array(entry).copy()
        numbers.reshape(-1)[0] *= factor
        entry.CopyFrom(numpy_helper.from_array(numbers, tensor))
        onnx.save(model, folder / "model.onnx")
        return
    offset = int({e.key: e.value for e in entry.external_data}.get("offset", 0))
    np.memmap(folder / "model.onnx.data", np.float32, "r+", offset=offset, shape=(1,))[0] *= factor


def test_another_tokenizer_or_shape_in_the_export_is_found(untied, export, copy_of, texts):
    from ptbr_slm.errors import SlmError
    from ptbr_slm.storage.atomic import write_json
    from ptbr_slm.tokenizer import Tokenizer

    swapped = copy_of(export("fp32"))
    (swapped / "tokenizer.json").write_text(Tokenizer.train(texts[:3] * 4, 400).to_json(), encoding="utf-8")
    edit(swapped, lambda graph: None)
    with pytest.raises(SlmError, match=r"tokenizer\.json") as error:
        verify_export(swapped, untied)
    assert error.value.exit_code == 4
    (swapped / "tokenizer.json").write_bytes((untied / "tokenizer.json").read_bytes())
    config = replace(ModelFolder(swapped).config, rope_theta=20_000.0)
    write_json(swapped / "config.json", config.to_hf())
    edit(swapped, lambda graph: None)
    with pytest.raises(SlmError, match=r"config\.json"):
        verify_export(swapped, untied)


def test_verify_on_the_command_line_says_where_and_in_json_too(cli, untied, export, copy_of):
    damaged = copy_of(export("int4"))
    edit(damaged, _missing_gain)
    done = cli("verify", damaged, "--against", untied, "--json")
    assert done.returncode == 4
    body = json.loads(done.stdout)
    assert body["passed"] is False
    assert (body["culprit"]["part"]["layer"], body["culprit"]["part"]["part"]) == (1, "feed_forward_norm")
    assert body["culprit"]["part"]["largest_difference"] > 0
    assert "Erro [E_VERIFY]" in done.stderr and "camada 1, feed_forward_norm" in done.stderr
