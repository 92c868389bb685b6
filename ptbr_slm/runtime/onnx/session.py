"""An ONNX Runtime session over an export: options, the provider that was asked for, the expected graph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.onnx.cores import physical_cores

_ERROR_SEVERITY = 3
"""ORT's log level: warnings about our own graphs are of no use to whoever reads stderr."""


def open_session(graph: Path, config: ModelConfig, *, threads: int | None, spinning: bool | None) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU whose inputs and outputs are those of the gqa graph.

    threads: of the matrix products; None takes PTBR_SLM_THREADS, OMP_NUM_THREADS or the physical cores.
    spinning: whether idle threads burn cycles to answer sooner; None takes PTBR_SLM_SPINNING (0, 1), or yes.
    Raises E_MODEL_INVALID or E_MEMORY.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or thread_count()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERROR_SEVERITY
    if spinning is None:
        spinning = os.environ.get("PTBR_SLM_SPINNING", "1") != "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    try:
        session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ORT's exceptions share no base class but Exception
        raise _load_error(error, graph) from error
    _check_signature(session, config, graph)
    return session


def choose_device(asked: str, target: str) -> str:
    """The device for an export made for `target`: only what runs it whole. Raises E_PROVIDER."""
    if target != "cpu":
        raise SlmError(
            "E_PROVIDER",
            f"este export foi feito para {target}; esta versão executa exports de CPU.",
            where="manifest.json: target",
            hint="Exporte para CPU:  ptbr-slm export MODELO -o PASTA --target cpu",
        )
    if asked == "cuda":
        available = "CUDAExecutionProvider" in ort.get_available_providers()
        # GroupQueryAttention has no fp32 CUDA kernel: ORT would quietly run it on the CPU, with copies.
        why = "este export é para CPU e não roda na GPU" if available else "este onnxruntime não tem CUDA"
        raise SlmError(
            "E_PROVIDER",
            f"foi pedido device=cuda, mas {why}.",
            where="--device cuda",
            hint="Use --device cpu, ou veja o que falta com:  ptbr-slm doctor",
        )
    return "cpu"


def thread_count() -> int:
    """Threads asked for in the environment, or the physical cores this process may use. Raises E_CONFIG."""
    for name in ("PTBR_SLM_THREADS", "OMP_NUM_THREADS"):
        asked = os.environ.get(name, "").split(",")[0].strip()
        if asked.isdecimal() and int(asked) > 0:
            return int(asked)
        if asked and name == "PTBR_SLM_THREADS":
            raise SlmError(
                "E_CONFIG", f"{name}={asked} não é um número de threads.", where=name, hint=f"Use {name}=2."
            )
    return physical_cores()


def _check_signature(session: Any, config: ModelConfig, graph: Path) -> None:
    """Names and types must be those of the gqa graph: a foreign one fails here, not at the first token."""
    inputs = {
        "input_ids": "tensor(int64)",
        "seqlens_k": "tensor(int32)",
        "total_sequence_length": "tensor(int32)",
        "logits_index": "tensor(int64)",
    }
    outputs = {"logits": "tensor(float)"}
    for layer in range(config.num_layers):
        for side in ("key", "value"):
            inputs[f"past_key_values.{layer}.{side}"] = "tensor(float)"
            outputs[f"present.{layer}.{side}"] = "tensor(float)"
    found = {value.name: value.type for value in session.get_inputs()}
    found_outputs = {value.name: value.type for value in session.get_outputs()}
    cache = [None, config.num_kv_heads, None, config.head_dim]
    for expected, actual in ((inputs, found), (outputs, found_outputs)):
        if expected != actual:
            names = sorted(
                name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name)
            )
            raise _foreign(f"entradas ou saídas diferentes: {', '.join(names[:4])}", graph)
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else None for size in value.shape]
        if value.name.startswith("past_") and shape != cache:
            raise _foreign(f"{value.name} tem forma {value.shape}; config.json pede {cache}", graph)
    vocab = session.get_outputs()[[v.name for v in session.get_outputs()].index("logits")].shape[-1]
    if vocab != config.vocab_size:
        raise _foreign(f"logits tem {vocab} colunas; config.json diz vocab_size {config.vocab_size}", graph)


def _foreign(detail: str, graph: Path) -> SlmError:
    return SlmError(
        "E_MODEL_INVALID",
        f"o grafo não é um export do ptbr-slm ({detail}).",
        where=graph,
        hint="Exporte o modelo com:  ptbr-slm export MODELO -o PASTA",
    )


def _load_error(error: Exception, graph: Path) -> SlmError:
    detail = str(error).partition("failed:")[2] or str(error)  # "Load model from PATH failed:..."
    if isinstance(error, MemoryError) or "llocat" in detail or "bad_alloc" in detail:
        return SlmError(
            "E_MEMORY",
            "a memória não foi suficiente para abrir o modelo.",
            where=graph,
            hint="Feche outros programas, ou exporte com --precision int8 ou int4.",
        )
    return SlmError(
        "E_MODEL_INVALID",
        f"o ONNX Runtime não abriu o modelo ({' '.join(detail.split())[:240]}).",
        where=graph,
        hint="Use uma cópia íntegra do export, ou exporte de novo:  ptbr-slm export MODELO -o PASTA",
    )
