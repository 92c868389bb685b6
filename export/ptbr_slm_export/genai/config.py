"""What onnxruntime-genai reads beside the graph: genai_config.json, the padding id, and the tokenizer."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.storage.atomic import write_json, write_text
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer
from ptbr_slm_export.genai.graph import build_genai_graph
from ptbr_slm_export.graphs.projections import projections_for
from ptbr_slm_export.llama import LlamaWeights
from ptbr_slm_export.tokenizer_compat import incompatibility

PROBES = (
    "O rio corre devagar entre as pedras",
    "A manhã de domingo: 1.500 vezes, não é?",
    "— Café!\n\n\tdois  espaços   e 12345",
    "☃ gelo 🎉",
    "BRASIL, ÁGUA e Ação (R$ 1.234,56); x_y-z/w",
    "don't I'll “aspas” d'água",
    "dois\n\nparágrafos\r\n",
)
"""What a tokenizer is asked: accents, numbers, punctuation, spaces, what is in no vocabulary. None begins
with a space, which Hugging Face's `Metaspace` drops and nobody else does."""
_PADDING = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>")
"""Tokens that no text has."""


def check_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Refuse a tokenizer of which onnxruntime-genai would make other tokens. Raises E_MODEL_INVALID.

    By rule; and a SentencePiece-style one by its own answers, since genai cuts words before it joins pieces,
    which agrees with the vocabularies of Llama 2 and not with every other. Raises E_DEPENDENCY where it is
    not installed to be asked.
    """
    fault = incompatibility(tokenizer)
    if not fault and tokenizer.is_metaspace:
        if importlib.util.find_spec("onnxruntime_genai") is None:
            raise SlmError(
                "E_DEPENDENCY",
                "só o onnxruntime-genai diz se segue este tokenizador, do tipo SentencePiece; e falta ele.",
                where=folder / "tokenizer.json",
                hint="Instale com:  pip install onnxruntime-genai",
            )
        text = _differing(tokenizer)
        fault = f"{text!r} sai diferente lá" if text is not None else ""
    if fault:
        raise SlmError(
            "E_MODEL_INVALID",
            "o tokenizador deste modelo não pode ir para o onnxruntime-genai, que veria outros tokens: "
            f"{fault}.",
            where=folder / "tokenizer.json",
            hint="Exporte para o ptbr-slm:  ptbr-slm export MODELO -o PASTA --target cpu",
        )


def _differing(tokenizer: Tokenizer) -> str | None:
    """The first of `PROBES` that genai cuts into other tokens; None where all agree."""
    genai: Any = importlib.import_module("onnxruntime_genai")

    config = ModelConfig(
        vocab_size=8, hidden_size=16, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=16,
        intermediate_size=16, max_seq_len=16,
    )  # fmt: skip
    with TemporaryDirectory() as temporary:  # it opens a tokenizer beside a graph only: the smallest there is
        folder = Path(temporary)
        weights = LlamaWeights(config, lambda name, shape: np.zeros(shape, dtype=np.float32))
        graph = build_genai_graph(config, weights, projections_for(weights, "fp32", None, ir.DataType.FLOAT))
        ir.save(graph, folder / "model.onnx")
        write_json(folder / "genai_config.json", genai_config(config, 3))
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
        write_text(folder / "tokenizer.json", tokenizer.to_json())
        theirs = genai.Tokenizer(genai.Model(str(folder)))
        for text in PROBES:
            ids = tokenizer.encode(text, special=False)
            if [int(i) for i in theirs.encode(text)][-len(ids) :] != ids:
                return text
    return None


def write_companions(folder: Path, model: ModelFolder) -> None:
    """Write genai_config.json, and tokenizer_config.json where the model came without it or its template.

    onnxruntime-genai 0.18 prefers a template in tokenizer_config.json to chat_template.jinja; transformers
    does the opposite, and rules. genai does not know `{% generation %}`, and trims nothing around
    blocks. Raises E_MODEL_INVALID where no id can serve as padding.
    """
    from ptbr_slm.chat.template import trimmed, without_generation_marks  # brings jinja2

    config, tokenizer = model.config, model.tokenizer
    write_json(folder / "genai_config.json", genai_config(config, padding_id(config, tokenizer, folder)))
    settings = model.read("tokenizer_config.json")
    eos = config.eos_token_ids
    body = (
        json.loads(settings)
        if settings is not None
        else tokenizer.hf_config(
            config.max_seq_len, bos=config.bos_token_id, eos=eos[0] if eos else None, pad=None
        )
    )
    template = body.get("chat_template") if model.chat_template is None else model.chat_template
    if isinstance(template, str):
        body["chat_template"] = trimmed(without_generation_marks(template))
    if settings is None or body != json.loads(settings):
        write_json(folder / "tokenizer_config.json", body)


def genai_config(config: ModelConfig, pad: int) -> dict[str, Any]:
    """The settings of a decoder for a CPU (onnxruntime-genai 0.18, src/config.h)."""
    return {
        "model": {
            "type": "llama",
            **({} if config.bos_token_id is None else {"bos_token_id": config.bos_token_id}),
            "eos_token_id": list(config.eos_token_ids),
            "pad_token_id": pad,
            "vocab_size": config.vocab_size,
            "context_length": config.max_seq_len,
            "decoder": {
                "filename": "model.onnx",
                "head_size": config.head_dim,
                "hidden_size": config.hidden_size,
                "num_attention_heads": config.num_heads,
                "num_hidden_layers": config.num_layers,
                "num_key_value_heads": config.num_kv_heads,
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": config.max_seq_len,
            "min_length": 0,
            "num_beams": 1,
            "past_present_share_buffer": True,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
            "repetition_penalty": 1.0,
        },
    }


def padding_id(config: ModelConfig, tokenizer: Tokenizer, where: Path) -> int:
    """An id that no prompt holds: genai finds a row's last token by scanning for the padding.

    The model's own where it is a token of its own, else a token for it, else what the vocabulary leaves free,
    else an `<unk>` that byte tokens make needless. Raises E_MODEL_INVALID.
    """
    taken = {config.bos_token_id, *config.eos_token_ids}
    named = [tokenizer.token_id(name) for name in _PADDING]
    free = [tokenizer.vocab_size] if tokenizer.vocab_size < config.vocab_size else []
    unknown = [_needless_unknown(tokenizer)]
    for candidate in (config.pad_token_id, *named, *free, *unknown):
        if candidate is not None and 0 <= candidate < config.vocab_size and candidate not in taken:
            return candidate
    raise SlmError(
        "E_MODEL_INVALID",
        "o onnxruntime-genai precisa de um token só para preencher linhas, e este modelo não tem nenhum.",
        where=where,
        hint="Exporte para o ptbr-slm:  ptbr-slm export MODELO -o PASTA --target cpu",
    )


def _needless_unknown(tokenizer: Tokenizer) -> int | None:
    model = json.loads(tokenizer.to_json())["model"]
    name = model.get("unk_token")
    return tokenizer.token_id(name) if name and model.get("byte_fallback") else None
