"""An export folder that is damaged, hostile or something else gets an answer, and ORT never sees its file."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.onnx.engine import OnnxEngine
from ptbr_slm.runtime.engines.onnx.export_folder import check_graph_file
from ptbr_slm.runtime.load import open_engine
from ptbr_slm.runtime.model import Model
from ptbr_slm.storage.manifest import write_manifest

DATA = "model.onnx.data"


@pytest.fixture
def folder(export_folder, tmp_path):
    """A copy to damage, two levels deep."""
    return shutil.copytree(export_folder, tmp_path / "a" / "export")


@pytest.fixture
def no_session(monkeypatch):
    """Fails the test if the graph reaches ONNX Runtime."""

    def refuse(*_, **__):
        raise AssertionError("ONNX Runtime saw the file")

    monkeypatch.setattr(OnnxEngine, "_open", refuse)


def seal(folder):
    """A manifest that agrees with whatever the folder holds now: a forger writes one too."""
    (folder / "manifest.json").unlink()
    write_manifest(folder, "export", target="cpu", precision="fp32")


def refused(folder, device="auto"):
    with pytest.raises(SlmError) as error:
        open_engine(folder, device)
    assert error.value.hint
    return error.value


def relocate(folder, **entries):
    """Rewrite where the graph says its weights are."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = str(entries.get(entry.key, entry.value))
    onnx.save(model, folder / "model.onnx")
    seal(folder)


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../fora.data",
        "a/../../fora.data",
        "C:\\fora.data",
        "\\\\server\\x",
        "..\\fora.data",
        "",
    ],
)
def test_weights_outside_the_folder_are_refused(folder, location):
    (folder.parent / "fora.data").write_bytes((folder / DATA).read_bytes())
    relocate(folder, location=location)
    assert refused(folder).code == "E_MODEL_INVALID"


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("name", [DATA, "model.onnx"])
def test_a_link_out_of_the_folder_is_refused(folder, name):
    outside = folder.parent / "fora"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    error = refused(folder)
    assert error.code == "E_MODEL_INVALID"
    assert "atalho" in error.message


def test_the_folder_itself_may_be_a_link(folder):
    link = folder.parent / "atalho"
    link.symlink_to(folder)
    open_engine(link).close()


@pytest.mark.usefixtures("no_session")
def test_a_missing_weight_file_is_named(folder):
    relocate(folder, location="outro.data")
    error = refused(folder)
    assert (error.code, "outro.data" in error.message) == ("E_MODEL_INVALID", True)


@pytest.mark.usefixtures("no_session")
def test_truncated_weights_are_refused_with_and_without_an_honest_manifest(folder):
    content = (folder / DATA).read_bytes()
    (folder / DATA).write_bytes(content[: len(content) // 2])
    assert refused(folder).code == "E_MANIFEST"
    seal(folder)
    error = refused(folder)
    assert (error.code, "truncado" in error.message) == ("E_MODEL_INVALID", True)


@pytest.mark.parametrize("name", [DATA, "model.onnx", "tokenizer.json", "config.json"])
def test_one_flipped_bit_is_found(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 4
    (folder / name).write_bytes(content)
    error = refused(folder)
    assert (error.code, name in error.message) == ("E_MANIFEST", True)


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"isto nao e onnx" * 50, bytes(range(256)) * 40])
def test_a_file_that_is_no_graph_is_refused(folder, content):
    (folder / "model.onnx").write_bytes(content)
    seal(folder)
    assert refused(folder).code == "E_MODEL_INVALID"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6), st.floats(0, 1)
)
def test_a_mangled_graph_never_ends_in_anything_but_an_answer(folder, export_folder, flips, length):
    content = bytearray((export_folder / "model.onnx").read_bytes())
    for where, mask in flips:
        content[int(where * len(content))] ^= mask
    (folder / "model.onnx").write_bytes(content[: int(length * len(content))])
    try:
        check_graph_file(folder / "model.onnx")
    except SlmError as error:
        assert error.code == "E_MODEL_INVALID"


def test_a_graph_with_other_inputs_is_refused(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for node in model.graph.node:
        node.input[:] = ["seq" if name == "seqlens_k" else name for name in node.input]
    next(value for value in model.graph.input if value.name == "seqlens_k").name = "seq"
    onnx.save(model, folder / "model.onnx")
    seal(folder)
    error = refused(folder)
    assert (error.code, "seqlens_k" in error.message) == ("E_MODEL_INVALID", True)


def test_a_graph_of_another_shape_than_config_json_is_refused(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"num_key_value_heads": 2', '"num_key_value_heads": 4'))
    seal(folder)
    assert refused(folder).code == "E_MODEL_INVALID"


def test_a_graph_that_the_runtime_rejects_is_an_answer_too(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.graph.node[0].op_type = "NaoExiste"
    onnx.save(model, folder / "model.onnx")
    seal(folder)
    error = refused(folder)
    assert (error.code, "NaoExiste" in error.message) == ("E_MODEL_INVALID", True)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_weights_that_are_no_numbers_are_an_answer(folder, temperature):
    size = (folder / DATA).stat().st_size
    (folder / DATA).write_bytes(np.full(size // 4, np.nan, dtype=np.float32).tobytes() + b"\0" * (size % 4))
    seal(folder)
    with Model(folder) as model, pytest.raises(SlmError, match="não são números") as error:
        model.generate("Era", temperature=temperature)
    assert error.value.code == "E_MODEL_INVALID"


@pytest.mark.usefixtures("no_session")
def test_an_export_without_or_with_another_manifest_is_refused(folder):
    (folder / "manifest.json").unlink()
    assert refused(folder).code == "E_MANIFEST"
    write_manifest(folder, "model")
    assert refused(folder).code == "E_MANIFEST"


@pytest.mark.usefixtures("no_session")
def test_an_export_from_a_newer_version_is_refused(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"schema": 1', '"schema": 99'))
    assert refused(folder).code == "E_SCHEMA"


def test_a_foreign_tokenizer_is_refused(folder, texts):
    from ptbr_slm.tokenizer import Tokenizer

    (folder / "tokenizer.json").write_text(Tokenizer.train(texts * 9, 600).to_json(), encoding="utf-8")
    seal(folder)
    with pytest.raises(SlmError) as error:
        Model(folder)
    assert error.value.code == "E_TOKENIZER_MISMATCH"


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_device_that_is_not_there_is_never_replaced_in_silence(kind, export_folder, model_folder):
    import onnxruntime
    import torch

    if torch.cuda.is_available() or "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has a GPU; the error needs one without")
    path = export_folder if kind == "onnx" else model_folder
    assert refused(path, "cuda").code == "E_PROVIDER"
    assert refused(path, "tpu").code == "E_PROVIDER"
    engine = open_engine(path, "auto")
    assert engine.device == "cpu"
    engine.close()


def test_an_export_for_another_target_is_refused(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"target": "cpu"', '"target": "cuda"'))
    assert refused(folder).code == "E_PROVIDER"


def test_what_is_no_model_is_refused(tmp_path, model_folder):
    (tmp_path / "vazia").mkdir()
    assert refused(tmp_path / "vazia").code == "E_MODEL_INVALID"
    assert refused(tmp_path / "nada").code == "E_NOT_FOUND"
    for name, code in (
        ("modelo.pt", "E_PICKLE"),
        ("pesos.bin", "E_PICKLE"),
        ("texto.txt", "E_MODEL_INVALID"),
    ):
        (tmp_path / name).write_bytes(b"x")
        assert refused(tmp_path / name).code == code
    pickled = shutil.copytree(model_folder, tmp_path / "pickle")
    (pickled / "manifest.json").unlink()
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert refused(pickled).code == "E_PICKLE"


def test_the_folder_of_a_run_names_the_model_inside_it(tmp_path, model_folder):
    shutil.copytree(model_folder, tmp_path / "run" / "final")
    error = refused(tmp_path / "run")
    assert str(tmp_path / "run" / "final") in error.hint
