"""An ONNX Runtime session over an export on the CPU, and what every session is checked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.onnx.cores import physical_cores
from ptbr_slm.runtime.onnx.flavours import Signature
from ptbr_slm.runtime.onnx.memory import OUT_OF_MEMORY
from ptbr_slm.runtime.onnx.opened import Opened
from ptbr_slm.runtime.onnx.utf8_path import utf8_folder

ERROR_SEVERITY = 3
"""ORT's log level: warnings about our own graphs are of no use to whoever reads stderr."""


def open_cpu(graph: Path, *, threads: int | None, spinning: bool | None) -> Opened:
    """An `onnxruntime.InferenceSession` on the CPU.

    threads: of the matrix products; None takes PTBR_SLM_THREADS, OMP_NUM_THREADS or the physical cores.
    spinning: whether idle threads burn cycles to answer sooner; None takes PTBR_SLM_SPINNING (0, 1), or yes.
    Raises E_MODEL_INVALID or E_MEMORY.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or thread_count()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = ERROR_SEVERITY
    if spinning is None:
        spinning = os.environ.get("PTBR_SLM_SPINNING", "1") != "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return Opened(
        new_session(graph, options, ["CPUExecutionProvider"]), facts={"provider": "CPUExecutionProvider"}
    )


def new_session(graph: Path, options: Any, providers: Sequence[Any]) -> Any:
    """An `onnxruntime.InferenceSession`. Raises E_MODEL_INVALID or E_MEMORY."""
    try:
        # Its own fallback would print to stdout and go on with another provider.
        with utf8_folder(graph.parent) as folder:
            path = str(folder / graph.name)
            return ort.InferenceSession(path, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # ORT's exceptions share no base class but Exception
        raise load_error(error, graph) from error


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


def check_signature(session: Any, config: ModelConfig, signature: Signature, graph: Path) -> None:
    """Names and types must be those of the flavour: a foreign graph fails here, not at the first token."""
    inputs, outputs = signature.inputs, signature.outputs
    found = {value.name: value.type for value in session.get_inputs()}
    found_outputs = {value.name: value.type for value in session.get_outputs()}
    heads, width = config.num_kv_heads, config.head_dim
    caches = ([None, heads, None, width], [None, heads, config.max_seq_len, width])
    for expected, actual in ((inputs, found), (outputs, found_outputs)):
        if expected != actual:
            names = sorted(
                name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name)
            )
            told = "; ".join(
                f"{name}: esperado {expected.get(name, 'nenhum')}, achado {actual.get(name, 'nenhum')}"
                for name in names[:3]
            )
            raise _foreign(f"entradas ou saídas diferentes: {told}", graph)
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else None for size in value.shape]
        if value.name.startswith("past_") and shape not in caches:
            raise _foreign(f"{value.name} tem forma {value.shape}; config.json pede {caches[0]}", graph)
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


def load_error(error: Exception, graph: Path) -> SlmError:
    """What ORT raised while it opened `graph`, as E_MEMORY or E_MODEL_INVALID."""
    detail = str(error).partition("failed:")[2] or str(error)  # "Load model from PATH failed:..."
    if isinstance(error, MemoryError) or any(word in detail for word in OUT_OF_MEMORY):
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
