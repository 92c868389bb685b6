"""An ONNX Runtime session on the CPU provider, and how many threads it takes."""

from __future__ import annotations

import os

import onnxruntime as ort

from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.onnx.providers.session import (
    ERROR_SEVERITY,
    ProviderSession,
    SessionRequest,
    new_session,
)
from ptbr_slm.system import physical_cores

PROVIDER = "CPUExecutionProvider"


def open_cpu(request: SessionRequest) -> ProviderSession:
    """A session whose caches and logits are NumPy arrays.

    threads: of the matrix products; None takes PTBR_SLM_THREADS, OMP_NUM_THREADS or the physical cores.
    spinning: whether idle threads burn cycles to answer sooner; None takes PTBR_SLM_SPINNING (0, 1), or yes.
    Raises E_MODEL_INVALID or E_MEMORY.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = request.threads or thread_count()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = ERROR_SEVERITY
    spinning = request.spinning
    if spinning is None:
        spinning = os.environ.get("PTBR_SLM_SPINNING", "1") != "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return ProviderSession(new_session(request.graph, options, [PROVIDER]), facts={"provider": PROVIDER})


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
