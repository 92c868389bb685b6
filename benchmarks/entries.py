"""Every entrant's file, made from one model folder: the same weights for all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf_llama
import onnx
from contest import Entry
from contestants import Genai, LlamaCpp, PtbrSlm, Transformers
from ptbr_slm_export import Precision, export_model
from ptbr_slm_export.gguf.file import export_gguf
from ptbr_slm_export.quantization.recipe import recipe_for

from ptbr_slm.bench.synthetic import write_random_model
from ptbr_slm.config import model_config
from ptbr_slm.storage.atomic import atomic_folder

_OURS: dict[str, tuple[Precision, dict[str, str]]] = {
    "int4": ("int4", {}),
    "int4, int8 head": ("int4", {"head": "int8"}),
    "int8": ("int8", {}),
    "fp32": ("fp32", {}),
}
"""Name -> precision, and what of its recipe differs from the default."""


def make_entries(
    size: str, folder: Path, progress: Callable[[str], None], *, keep: bool = False
) -> tuple[Path, list[Entry]]:
    """The model folder of random weights and the entrants made from it, below `folder`.

    The peers' files are kept from one run to the next; ours are exported anew, unless `keep`.
    """
    model = folder / "model"
    if not model.exists():
        progress(f"drawing a random {size}")
        write_random_model(model, model_config(size))
    entries = []
    for name, (precision, changes) in _OURS.items():
        out = folder / name.replace(", ", "-").replace(" ", "-")
        if not (keep and out.exists()):
            progress(f"exporting {name}")
            recipe = recipe_for(precision, **changes)
            export_model(model, out, precision=precision, recipe=recipe, verify=False)
        entries.append(Entry("ptbr-slm", name, PtbrSlm, out))
    genai = folder / "genai-int4"
    if not genai.exists():
        progress("building onnxruntime-genai's int4")
        _build_genai(model, genai)
    return model, [
        *entries,
        Entry("onnxruntime-genai", "int4", Genai, genai),
        *_llama_cpp(model, folder, progress),
        Entry("transformers", "fp32", Transformers, model),
    ]


def bytes_per_token(entry: Entry) -> int:
    """Bytes of weights that one token of decode reads, computed from the file: all that is multiplied with.

    The embedding counts only where the head shares it, since a token looks up one row.
    """
    if entry.kind is Transformers:
        return sum(path.stat().st_size for path in entry.path.glob("*.safetensors"))
    if entry.kind is LlamaCpp:
        return gguf_llama.tensor_bytes(entry.path)
    graph = onnx.load(entry.path / "model.onnx", load_external_data=False).graph
    lookups = {"Gather", "GatherBlockQuantized"}
    multiplied = {name for node in graph.node if node.op_type not in lookups for name in node.input}
    tables = {
        name for node in graph.node if node.op_type == "GroupQueryAttention" for name in node.input[7:9]
    }
    return sum(_nbytes(tensor) for tensor in graph.initializer if tensor.name in multiplied - tables)


def _llama_cpp(model: Path, folder: Path, progress: Callable[[str], None]) -> list[Entry]:
    gguf_llama.silence()
    full = folder / "F16.gguf"
    if not full.exists():
        progress("writing GGUF F16")
        export_gguf(model, full, "fp16")
    for kind in gguf_llama.QUANTISATIONS:
        path = folder / f"{kind}.gguf"
        if not path.exists():
            progress(f"quantising to {kind}")
            gguf_llama.quantise(full, path, kind)
    return [
        Entry("llama.cpp", kind, LlamaCpp, folder / f"{kind}.gguf")
        for kind in [*gguf_llama.QUANTISATIONS, "F16"]
    ]


def _build_genai(model: Path, out: Path) -> None:
    """onnxruntime-genai's model builder at its best for a CPU: int8 activations, blocks of 32, and logits of
    the last token only, which prefills 1.3 times faster than its default (85m, one thread).
    """
    with atomic_folder(out) as building:
        command = [
            sys.executable, "-m", "onnxruntime_genai.models.builder",
            "-i", str(model.resolve()), "-o", str(building.resolve()),
            "-p", "int4", "-e", "cpu", "-c", str(out.parent.resolve() / "cache"),
            "--extra_options", "accuracy_level=4", "block_size=32", "prune_lm_head=true",
        ]  # fmt: skip
        # Elsewhere: with -m the working folder comes first, and the builder has modules named like ours.
        done = subprocess.run(command, cwd=building, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def _nbytes(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return int(count * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
