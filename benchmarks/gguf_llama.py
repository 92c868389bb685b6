"""A Llama model folder -> GGUF in f16 -> llama.cpp's own quantisations.

llama.cpp's converter refuses byte-level BPE tokenizers it has no hash for, so the file is written here with
its `gguf` library. Two things differ from the folder: names, and the order of the rows of q and k, since
llama.cpp's RoPE for this architecture turns neighbouring pairs where Hugging Face's turns the two halves of a
head.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.storage.atomic import atomic_file
from ptbr_slm.storage.model_folder import WeightReader, read_config

QUANTISATIONS = {
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
}

_IGNORE_LOG = llama_cpp.llama_log_callback(lambda level, text, data: None)
"""Kept here because C holds no reference to it."""

Array = npt.NDArray[np.float32]


def write_f16(folder: Path, out: Path) -> None:
    """Write `folder`'s weights and tokenizer as one GGUF file: matrices in f16, norms in f32."""
    config = read_config(folder)
    with atomic_file(out) as temporary:
        writer = gguf.GGUFWriter(temporary, "llama")
        _add_shape(writer, config)
        _add_tokenizer(writer, folder, config)
        for name, array in _tensors(config, WeightReader(folder)):
            writer.add_tensor(name, array if array.ndim == 1 else array.astype(np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def quantise(source: Path, out: Path, kind: str) -> None:
    """Let llama.cpp quantise an f16 file to one of `QUANTISATIONS`. Raises RuntimeError where it refuses."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = QUANTISATIONS[kind]
    with atomic_file(out) as temporary:
        status = llama_cpp.llama_model_quantize(str(source).encode(), str(temporary).encode(), params)
        if status != 0:
            raise RuntimeError(f"llama_model_quantize to {kind} returned {status}")


def silence() -> None:
    """Keep llama.cpp from writing a page about every file; its errors still come back as codes."""
    llama_cpp.llama_log_set(_IGNORE_LOG, None)


def tensor_bytes(path: Path) -> int:
    """Bytes of every tensor of a GGUF file. With a tied head, one token of decode reads all of them."""
    return sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors)


def _add_shape(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
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
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: ModelConfig) -> None:
    body = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = body["model"]["vocab"]
    special = {token["id"] for token in body["added_tokens"] if token["special"]}
    types = [
        gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for i in range(config.vocab_size)
    ]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in body["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")  # the same split as ours: ptbr_slm.tokenizer.LLAMA_BPE_SPLIT
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_ids[0])


def _tensors(config: ModelConfig, weights: WeightReader) -> Iterator[tuple[str, Array]]:
    hidden, ffn = config.hidden_size, config.intermediate_size
    embedding = (config.vocab_size, hidden)
    yield "token_embd.weight", weights.read("model.embed_tokens.weight", embedding)
    yield "output_norm.weight", weights.read("model.norm.weight", (hidden,))
    if not config.tie_embeddings:
        yield "output.weight", weights.read("lm_head.weight", embedding)
    for layer in range(config.num_layers):
        theirs, llama = f"model.layers.{layer}.", f"blk.{layer}."
        q = weights.read(theirs + "self_attn.q_proj.weight", (config.q_size, hidden))
        k = weights.read(theirs + "self_attn.k_proj.weight", (config.kv_size, hidden))
        yield llama + "attn_q.weight", interleave_halves(q, config.num_heads)
        yield llama + "attn_k.weight", interleave_halves(k, config.num_kv_heads)
        for name, source, shape in [
            ("attn_norm", "input_layernorm", (hidden,)),
            ("attn_v", "self_attn.v_proj", (config.kv_size, hidden)),
            ("attn_output", "self_attn.o_proj", (hidden, config.q_size)),
            ("ffn_norm", "post_attention_layernorm", (hidden,)),
            ("ffn_gate", "mlp.gate_proj", (ffn, hidden)),
            ("ffn_up", "mlp.up_proj", (ffn, hidden)),
            ("ffn_down", "mlp.down_proj", (hidden, ffn)),
        ]:
            yield f"{llama}{name}.weight", weights.read(f"{theirs}{source}.weight", shape)


def interleave_halves(weight: Array, heads: int) -> Array:
    """Rows of each head from (first half, second half) to pairs: row i and row i + D/2 become 2i and 2i + 1.

    weight: (heads * D, C) -> (heads * D, C), as in llama.cpp's `LlamaModel.permute`.
    """
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)  # (heads, 2, D/2, C)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))
