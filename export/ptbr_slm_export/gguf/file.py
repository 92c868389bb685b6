"""`export_gguf`: a Llama folder in, one GGUF file for llama.cpp out, read back before it is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quant_shape_to_byte_shape, quantize

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError, os_errors
from ptbr_slm.storage.atomic import atomic_file
from ptbr_slm.storage.model_folder import ModelFolder, check_vocabulary
from ptbr_slm.text import quoted
from ptbr_slm_export.gguf.tensors import Tensor, architecture, tensors
from ptbr_slm_export.gguf.tokenizer import add_tokenizer, check_tokenizer
from ptbr_slm_export.llama import Floats, LlamaWeights

PRECISIONS: Mapping[str, tuple[str, Type, gguf.LlamaFileType]] = {
    "fp32": ("F32", Type.F32, gguf.LlamaFileType.ALL_F32),
    "fp16": ("F16", Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "int8": ("Q8_0", Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
"""Our word for a precision -> llama.cpp's, for the matrices; norms stay in f32."""
DEFAULT = "fp16"
_WORST = {Type.F32: 0.0, Type.F16: 1e-3, Type.Q8_0: 0.02}
"""Largest relative error of a row. f16 rounds to 2^-11; Q8_0 to 1/254 of a block's largest weight, which a
row of mostly small weights feels several times over."""
_ELEMENTS = {Type.F32: np.float32, Type.F16: np.float16}
"""What is not a block of bytes."""
_MAGIC = b"GGUF"


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufReport:
    """What was written."""

    file: Path
    precision: str
    kind: str
    """llama.cpp's word for the precision."""
    bytes: int
    source_sha256: str
    """Identity of the model folder that it was made from."""
    worst_row: float
    """Largest relative error of a matrix row, read back from the file."""
    seconds: float


def export_gguf(
    source: Path | ModelFolder,
    out: Path,
    precision: str | None = None,
    *,
    on_step: Callable[[str], None] = lambda step: None,
) -> GgufReport:
    """Write the model folder `source` as the file `out`, replacing an earlier GGUF there.

    precision: `fp32`, `fp16` (the default) or `int8`. Raises E_USAGE for another, E_EXISTS where `out` is
    something else, E_MODEL_INVALID for what llama.cpp cannot take, E_VERIFY where the file does not hold the
    weights; nothing is left behind then.
    """
    started = time.monotonic()
    precision = precision or DEFAULT
    if precision not in PRECISIONS:
        raise _no_precision(out, precision)
    model = ModelFolder.of(source)
    model.check()
    _check_output(out)
    config = model.config
    check_vocabulary(config, model.tokenizer, model.path)
    check_tokenizer(model.tokenizer, config, model.path)
    kind, dtype, file_type = PRECISIONS[precision]
    _check_shape(config, dtype, model.path)
    weights = LlamaWeights(config, model.weights.read)
    with atomic_file(out) as temporary:
        on_step("escrevendo o GGUF")
        writer = gguf.GGUFWriter(temporary, architecture(config))
        try:
            _add_shape(writer, model, file_type)
            add_tokenizer(writer, model)
            _write(writer, config, weights, dtype)
        finally:
            writer.close()
        on_step("comparando os pesos")
        worst = _compare(temporary, config, weights, model.path)
    return GgufReport(
        file=out,
        precision=precision,
        kind=kind,
        bytes=out.stat().st_size,
        source_sha256=model.sha256,
        worst_row=worst,
        seconds=time.monotonic() - started,
    )


def _add_shape(writer: gguf.GGUFWriter, model: ModelFolder, file_type: gguf.LlamaFileType) -> None:
    config = model.config
    writer.add_name(model.path.resolve().name)
    writer.add_string("ptbr_slm.source_sha256", model.sha256)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)


def _write(writer: gguf.GGUFWriter, config: ModelConfig, weights: LlamaWeights, dtype: Type) -> None:
    """Names and shapes first, then the weights, one matrix in memory at a time."""
    for tensor in tensors(config, weights):
        stored = _stored(tensor, dtype)
        element = np.dtype(_ELEMENTS.get(stored, np.uint8))
        shape = tensor.shape if stored in _ELEMENTS else quant_shape_to_byte_shape(tensor.shape, stored)
        size = int(np.prod(shape)) * element.itemsize
        writer.add_tensor_info(tensor.name, shape, element, size, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors(config, weights):
        array = _read(tensor)
        stored = _stored(tensor, dtype)
        if stored is Type.F16 and np.abs(array).max() > np.finfo(np.float16).max:
            raise SlmError(
                "E_MODEL_INVALID",
                f"{tensor.name} tem pesos grandes demais para fp16.",
                where="--precision fp16",
                hint="Use --precision fp32.",
            )
        writer.write_tensor_data(np.ascontiguousarray(quantize(array, stored)))


def _stored(tensor: Tensor, dtype: Type) -> Type:
    return dtype if len(tensor.shape) == 2 else Type.F32


def _read(tensor: Tensor) -> Floats:
    array = tensor.read()
    assert array.shape == tensor.shape, (tensor.name, array.shape, tensor.shape)
    return array


def _compare(file: Path, config: ModelConfig, weights: LlamaWeights, source: Path) -> float:
    """The largest relative error of a row of the file just written. Raises E_VERIFY beyond its rounding."""
    with os_errors(file):
        found = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    worst = 0.0
    for tensor in tensors(config, weights):
        original, stored = np.atleast_2d(_read(tensor)), found[tensor.name]
        restored = dequantize(stored.data, stored.tensor_type).reshape(original.shape)
        norms = np.linalg.norm(original, axis=1)
        errors = np.linalg.norm(restored - original, axis=1) / np.where(norms > 0, norms, 1.0)
        error = float(np.nan_to_num(errors, nan=np.inf).max())
        if error > _WORST[stored.tensor_type]:
            raise SlmError(
                "E_VERIFY",
                f"{tensor.name} não voltou do arquivo como foi: erro {error:.3g}.",
                where=source,
                hint="Exporte de novo; se repetir, é um defeito nosso ou do disco.",
            )
        worst = max(worst, error)
    return worst


def _check_shape(config: ModelConfig, dtype: Type, source: Path) -> None:
    block = gguf.GGML_QUANT_SIZES[dtype][0]
    widths = (config.hidden_size, config.q_size, config.intermediate_size)
    if any(width % block for width in widths):
        raise SlmError(
            "E_MODEL_INVALID",
            f"as larguras {widths} não são todas múltiplas de {block}, o bloco de {dtype.name}.",
            where=source,
            hint="Use --precision fp16.",
        )


def _check_output(out: Path) -> None:
    """Only nothing or an earlier GGUF may be replaced."""
    with os_errors(out):
        if not out.exists():
            return
        if out.is_file():
            with out.open("rb") as file:
                if file.read(4) == _MAGIC:
                    return
    other = out / "modelo.gguf" if out.is_dir() else out.resolve().with_suffix(".gguf")
    raise SlmError(
        "E_EXISTS",
        "o destino já existe e não é um arquivo GGUF: não vamos apagá-lo.",
        where=out,
        hint=f"Escolha um arquivo:  -o {quoted(other)}",
    )


def _no_precision(out: Path, precision: str) -> SlmError:
    smaller = out.resolve().with_name(out.stem + "-Q4_K_M.gguf")
    return SlmError(
        "E_USAGE",
        f"um GGUF sai em {', '.join(PRECISIONS)}; {precision} é o próprio llama.cpp que faz, de um fp16.",
        where=f"--format gguf --precision {precision}",
        hint=f"Use --precision fp16 e depois:  llama-quantize {quoted(out)} {quoted(smaller)} Q4_K_M",
    )
