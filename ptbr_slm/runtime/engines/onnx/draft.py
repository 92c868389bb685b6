"""The draft layer of an export: which state each slot is in, and one guess from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.drafting.layer import DraftScores
from ptbr_slm.runtime.engines.onnx.providers.session import ERROR_SEVERITY, new_session
from ptbr_slm.runtime.protocol import Floats

STATES = "states"
"""Output of the model's graph: what its head reads, (B, K, C)."""


class OnnxDraft:
    """A session of its own beside the model's, and the states that its guesses start from."""

    def __init__(self, graph: Path, config: ModelConfig) -> None:
        """Raises E_MODEL_INVALID, E_MEMORY."""
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        # One thread: a second pool would spin on the cores that the model's next step needs.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = ERROR_SEVERITY
        session = new_session(graph, options, ["CPUExecutionProvider"])
        hidden = config.hidden_size
        self._state = np.zeros((1, 1, hidden), dtype=np.float32)
        self._token = np.zeros((1, 1), dtype=np.int64)
        try:
            feeds = {STATES: self._state, "token": self._token}
            scores, self._tokens = session.run(["scores", "tokens"], feeds)
        except Exception as error:  # ORT's exceptions share no base class but Exception
            raise _foreign(graph, " ".join(str(error).split())[:160]) from error
        self._check(graph, scores, config)
        self._scores: Floats = scores
        self._session = session
        self._io = session.io_binding()
        for name, array in ((STATES, self._state), ("token", self._token)):
            self._io.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._io.bind_output("scores", "cpu", 0, np.float32, scores.shape, scores.ctypes.data)
        self._held: tuple[int, int, Floats] | None = None

    def hold(self, slot: int, end: int, states: Floats) -> None:
        """Note the states (n, C) after the last n of a slot's `end` tokens; they are not copied."""
        self._held = slot, end - len(states), states

    def forget(self) -> None:
        """The slots are others from now on. From any thread."""
        self._held = None

    def guess(self, slot: int, length: int, token: int) -> DraftScores | None:
        """What may follow `token`, which was chosen after the slot's `length` tokens.

        None where the state after them is not known: the last run was another slot's, or began later.
        """
        held = self._held
        if held is None or held[0] != slot:
            return None
        _, start, states = held
        row = length - 1 - start
        if not 0 <= row < len(states):
            return None
        self._state[0, 0] = states[row]
        self._token[0, 0] = token
        self._session.run_with_iobinding(self._io)
        return DraftScores(self._tokens, self._scores[0, 0])

    def _check(self, graph: Path, scores: npt.NDArray[np.generic], config: ModelConfig) -> None:
        tokens = self._tokens
        good = (
            scores.dtype == np.float32
            and scores.shape == (1, 1, len(tokens))
            and tokens.dtype == np.int64
            and len(tokens) > 0
            and 0 <= tokens.min() <= tokens.max() < config.vocab_size
        )
        if not good:
            raise _foreign(graph, f"saídas {scores.shape} e {tokens.shape}")


def _foreign(graph: Path, detail: str) -> SlmError:
    return SlmError(
        "E_MODEL_INVALID",
        f"{graph.name} não é uma camada de rascunho deste modelo ({detail}).",
        where=graph,
        hint="Use uma cópia íntegra do export, ou exporte de novo:  ptbr-slm export MODELO -o PASTA",
    )
