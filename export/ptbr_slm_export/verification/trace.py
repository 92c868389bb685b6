"""The inner values of an exported graph on one text, run by ONNX Runtime as they lie in the file.

The graph is copied in memory with every named value as an output; the weights stay where they are. It runs on
the CPU whatever it was made for: what is asked is what it computes, not how fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ptbr_slm.config import ModelConfig
from ptbr_slm.text import utf8_folder
from ptbr_slm_export.graphs.weights import Floats

Array = npt.NDArray[Any]

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_STEP_INPUTS = (
    {"input_ids", "seqlens_k", "total_sequence_length", "logits_index"},
    {"input_ids", "position_ids", "write_indices", "logits_index"},
)
"""Of the gqa and of the std graph."""
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


class GraphTrace:
    """A graph of the gqa or the std kind, opened to look inside."""

    def __init__(self, graph: Path, config: ModelConfig) -> None:
        """Raises whatever onnxruntime raises for a graph it cannot run here."""
        import onnxruntime as ort

        self.config = config
        options = ort.SessionOptions()
        options.log_severity_level = 3
        with utf8_folder(graph.parent) as folder:
            options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
            self._session: Any = ort.InferenceSession(
                _with_inner_outputs(graph), options, providers=["CPUExecutionProvider"]
            )
        self._names = [value.name for value in self._session.get_outputs()]
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._caches = {
            name: _TYPES[value.type] for name, value in self._inputs.items() if name.startswith("past_")
        }

    @property
    def dtype(self) -> str:
        """`float32` or `float16`: what the graph computes in, as its caches tell."""
        return np.dtype(next(iter(self._caches.values()))).name

    @staticmethod
    def can_open(graph: Path) -> bool:
        """Whether the graph takes only inputs that are fed here."""
        inputs = {str(value.name) for value in ir.load(graph).graph.inputs}
        return {name for name in inputs if not name.startswith("past_")} in _STEP_INPUTS

    def whole(self, tokens: npt.NDArray[np.int64]) -> dict[str, Floats]:
        """Value's name -> (T, width), the text (T,) read in one go."""
        return _rows(self._run(tokens, 0, self._empty(len(tokens))))

    def with_past(self, tokens: npt.NDArray[np.int64]) -> dict[str, Floats]:
        """Value's name -> (1, width) of the last token, read after all the others."""
        caches = self._empty(len(tokens))
        before = self._run(tokens[:-1], 0, caches)
        caches = {name: before[name.replace("past_key_values", "present")] for name in caches}
        return _rows(self._run(tokens[-1:], len(tokens) - 1, caches))

    def _empty(self, tokens: int) -> dict[str, Array]:
        """Caches with room for `tokens`, or for what the graph's fixed shape says."""
        caches = {}
        for name, kind in self._caches.items():
            fixed = self._inputs[name].shape[2]
            room = fixed if isinstance(fixed, int) else tokens
            caches[name] = np.zeros((1, self.config.num_kv_heads, room, self.config.head_dim), dtype=kind)
        return caches

    def _run(self, tokens: npt.NDArray[np.int64], past: int, caches: Mapping[str, Array]) -> dict[str, Array]:
        total = past + len(tokens)
        inputs: dict[str, Array] = {
            "input_ids": tokens[None],
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
            "write_indices": np.array([past], dtype=np.int64),
            "seqlens_k": np.array([total - 1], dtype=np.int32),
            "total_sequence_length": np.array(total, dtype=np.int32),
            "logits_index": np.arange(len(tokens), dtype=np.int64)[None],
            **caches,
        }
        feeds = {name: array for name, array in inputs.items() if name in self._inputs}
        return dict(zip(self._names, self._session.run(None, feeds), strict=True))


def _with_inner_outputs(graph: Path) -> bytes:
    """The model as it is, every value a node names an output too."""
    model = ir.load(graph)
    outputs = {value.name for value in model.graph.outputs}
    for node in model.graph:
        model.graph.outputs.extend(
            value for value in node.outputs if value.name and value.name not in outputs
        )
    proto: bytes = ir.to_proto(model).SerializeToString()
    return proto


def _rows(values: Mapping[str, Array]) -> dict[str, Floats]:
    """Only what is (1, T, width), as (T, width) in fp32."""
    return {
        name: value[0].astype(np.float32, copy=False)
        for name, value in values.items()
        if value.ndim == 3 and value.dtype in (np.float16, np.float32)
    }
