"""Chooses tokens where the logits are, by ONNX graphs: 8 bytes a slot come back instead of 128 KB of logits.

Greedy choice, or temperature, top-k, top-p, min-p and draw: the same steps in the same order and precision as
`ptbr_slm.runtime.sampling`, whose uniform numbers they take. For the same logits and one number both choose
one token, unless the number, or the share of top-p or min-p, lies within a rounding of exp of a border. exp
is float32 in both; NumPy's is right to 2.4 units in the last place and ONNX Runtime's to 1.2 (tested for 4),
all else is exact or float64.

They look at the `NEAREST` most probable tokens only. Where the choice might lie beyond (a flat distribution),
or a logit is no number, the token is -1: the host chooses.

Logits out of fp16 products often tie, and nothing says in which order CUDA's TopK gives equal values. The
graph does not depend on it: equal values are kept or dropped together, but for those at the border of top-p,
of which the lowest ids stay, as in NumPy's stable sort. ArgMax gives the first of equal values (ONNX,
`select_last_index` = 0; so does the kernel of onnxruntime#32092 for wide rows, which 1.31.1 has).

No ReduceMax or ReduceMin: ONNX Runtime's CUDA kernels need cuDNN for them, and for nothing else here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.engines.onnx.providers.device_memory import DeviceArray, DeviceMemory
from ptbr_slm.runtime.engines.onnx.providers.memory import InputBuffer
from ptbr_slm.runtime.engines.onnx.providers.onnx_writer import Node, Tensor, model_bytes
from ptbr_slm.runtime.engines.onnx.providers.session import CudaGraphIds, RunOptions, Session
from ptbr_slm.runtime.sampling.params import Draw

Ids = npt.NDArray[np.int64]

NEAREST = 512
"""Tokens that are sorted. A trained model's nucleus of 95 % mostly has fewer."""

_OUTPUTS = [Tensor("token", "int64", ("batch", 1))]

_SETTINGS = {
    "temperature": np.float32,
    "use_top_k": np.bool_,
    "top_k": np.int64,
    "top_p": np.float64,
    "min_p": np.float64,
    "uniform": np.float64,
}
"""Inputs of the drawing graph, (B, 1) each."""


_FIRST = Draw(temperature=1.0, top_k=1, top_p=1.0, min_p=0.0, uniform=0.0)
"""The greedy choice as a draw: the first, by id, of those that tie with the largest."""


class DeviceSampler:
    """The sampling graphs over one model's logits, each loaded when it is first needed.

    Where steps are captured, choices are too: the drawing graph is some fifty small kernels, which take
    longer to launch than to run.
    """

    def __init__(self, memory: DeviceMemory, width: int, vocab_size: int) -> None:
        """width: of the logits. vocab_size: of the tokenizer, which may be less."""
        self.memory, self._width, self._vocab_size = memory, width, vocab_size
        self._bindings: dict[tuple[bool, int, int], _Choice] = {}
        self._graph_ids = CudaGraphIds(), CudaGraphIds()

    def suits(self, draw: Draw) -> bool:
        """Whether the device can make a draw with these options; it may still turn out incomplete."""
        narrowed = draw.top_k > 0 or draw.top_p < 1 or draw.min_p > 0
        return draw.temperature == 0 or (draw.top_k < NEAREST and (narrowed or self._vocab_size <= NEAREST))

    def choose(self, logits: DeviceArray, tokens: DeviceArray, draws: Sequence[Draw]) -> Ids:
        """A token for each of logits (B, 1, width): (B, 1), left in `tokens` as well.

        -1 where the host must choose from the logits.
        """
        greedy = all(draw.temperature == 0 for draw in draws)
        key = (greedy, logits.pointer, tokens.pointer)
        choice = self._bindings.get(key)
        if choice is None:
            session = self._greedy if greedy else self._drawing
            options = self._graph_ids[greedy].next()[0] if self.memory.captures else None
            choice = _Choice(session, options, self.memory, logits, tokens, greedy=greedy)
            self._bindings[key] = choice
        return choice.run(draws)

    @cached_property
    def _greedy(self) -> Session:
        return self.memory.open(greedy_graph(self._width, self._vocab_size), capturing=True)

    @cached_property
    def _drawing(self) -> Session:
        return self.memory.open(drawing_graph(self._width, self._vocab_size), capturing=True)


class _Choice:
    """The IO binding of one graph over one step's logits and tokens."""

    def __init__(
        self,
        session: Session,
        options: RunOptions | None,
        memory: DeviceMemory,
        logits: DeviceArray,
        tokens: DeviceArray,
        *,
        greedy: bool,
    ) -> None:
        self._session, self._options, self._memory, self._tokens = session, options, memory, tokens
        self._io = session.io_binding()
        rows = (logits.shape[0], 1)
        self._bind(self._io.bind_input, "logits", logits)
        self._bind(self._io.bind_output, "token", tokens)
        self._inputs: list[InputBuffer] = []
        self._settings: dict[str, npt.NDArray[Any]] = {}
        if not greedy:
            self._settings = {name: np.ones(rows, kind) for name, kind in _SETTINGS.items()}
        for name, array in self._settings.items():
            buffer = memory.input_buffer(array)
            self._io.bind_input(name, memory.device, 0, array.dtype.type, rows, buffer.pointer)
            self._inputs.append(buffer)

    def run(self, draws: Sequence[Draw]) -> Ids:
        """See `DeviceSampler.choose`."""
        if self._settings:
            _write(self._settings, draws)
        for buffer in self._inputs:
            buffer.upload()
        self._session.run_with_iobinding(self._io, self._options)
        return self._tokens.read()

    def _bind(self, bind: Callable[..., None], name: str, array: DeviceArray) -> None:
        bind(name, self._memory.device, 0, array.dtype.type, array.shape, array.pointer)


def _write(settings: dict[str, npt.NDArray[Any]], draws: Sequence[Draw]) -> None:
    draws = [_FIRST if draw.temperature == 0 else draw for draw in draws]
    settings["temperature"][:, 0] = [draw.temperature for draw in draws]
    settings["top_p"][:, 0] = [draw.top_p for draw in draws]
    settings["uniform"][:, 0] = [draw.uniform for draw in draws]
    settings["use_top_k"][:, 0] = [draw.top_k > 0 for draw in draws]
    settings["top_k"][:, 0] = [draw.top_k or 1 for draw in draws]
    settings["min_p"][:, 0] = [np.float32(draw.min_p) for draw in draws]  # weights are float32


def greedy_graph(width: int, vocab_size: int) -> bytes:
    """logits (B, 1, width) -> token (B, 1), the first of the largest of `vocab_size` logits, or -1."""
    nodes = [
        *_scores(width, vocab_size),
        Node("ArgMax", ["scores"], ["best"], {"axis": 1, "keepdims": 1}),
        # NaN and infinity make the sum one of them.
        Node("ReduceSum", ["scores", "one"], ["sum"], {"keepdims": 1}),
        Node("Abs", ["sum"], ["size"]),
        Node("Less", ["size", "infinity"], ["complete"]),
        Node("Where", ["complete", "best", "none"], ["token"]),
    ]
    constants: dict[str, npt.NDArray[Any]] = {
        **_bounds(vocab_size),
        "infinity": np.array(np.inf, dtype=np.float32),
    }
    return model_bytes("greedy", nodes, [_logits(width)], _OUTPUTS, constants)


def drawing_graph(width: int, vocab_size: int) -> bytes:
    """logits (B, 1, width) and, (B, 1) each, temperature (above 0), use_top_k, top_k (from 1 below
    `NEAREST`), top_p, min_p (a float32's value) and uniform -> token, as in `greedy_graph`.
    """
    nearest = min(NEAREST, vocab_size)
    nodes = [
        *_scores(width, vocab_size),
        Node("TopK", ["scores", "nearest"], ["top", "ids"], {"axis": 1}),  # (B, K), falling
        Node("Slice", ["top", "first", "one", "one"], ["peak"]),
        *_weights(),
        *_reached(),
        *_kept(),
        *_drawn(),
        *_complete(whole=nearest == vocab_size),
        Node("Where", ["complete", "drawn", "none"], ["token"]),
    ]
    inputs = [
        _logits(width),
        Tensor("temperature", "float32", ("batch", 1)),
        Tensor("use_top_k", "bool", ("batch", 1)),
        Tensor("top_k", "int64", ("batch", 1)),
        Tensor("top_p", "float64", ("batch", 1)),
        Tensor("min_p", "float64", ("batch", 1)),
        Tensor("uniform", "float64", ("batch", 1)),
    ]
    constants: dict[str, npt.NDArray[Any]] = {
        **_bounds(vocab_size),
        "nearest": np.array([nearest], dtype=np.int64),
        "axis": np.array(1, dtype=np.int64),
        "unit": np.array(1, dtype=np.int64),
        "last": np.array([nearest - 1], dtype=np.int64),
        "end": np.array([nearest], dtype=np.int64),
        "nothing": np.array(0, dtype=np.float64),
        "everything": np.array(1, dtype=np.float64),
    }
    return model_bytes("draw", nodes, inputs, _OUTPUTS, constants)


def _logits(width: int) -> Tensor:
    return Tensor("logits", "float32", ("batch", 1, width))


def _bounds(vocab_size: int) -> dict[str, npt.NDArray[np.int64]]:
    return {
        "one": np.array([1], dtype=np.int64),
        "first": np.array([0], dtype=np.int64),
        "size_of_vocabulary": np.array([vocab_size], dtype=np.int64),
        "none": np.array(-1, dtype=np.int64),
    }


def _scores(width: int, vocab_size: int) -> list[Node]:
    """scores (B, V): a model may have more columns than its tokenizer has tokens."""
    if width == vocab_size:
        return [Node("Squeeze", ["logits", "one"], ["scores"])]
    return [
        Node("Squeeze", ["logits", "one"], ["rows"]),
        Node("Slice", ["rows", "first", "size_of_vocabulary", "one"], ["scores"]),
    ]


def _weights() -> list[Node]:
    """near (B, K) scaled scores and mass (B, K) float64 of the nearest; all_mass (B, 1) of the vocabulary."""
    return [
        Node("Sub", ["scores", "peak"], ["all_centred"]),
        Node("Div", ["all_centred", "temperature"], ["all_scaled"]),
        Node("Exp", ["all_scaled"], ["all_weights"]),
        Node("Cast", ["all_weights"], ["all_double"], {"to": 11}),
        Node("ReduceSum", ["all_double", "one"], ["all_mass"], {"keepdims": 1}),
        Node("Sub", ["top", "peak"], ["centred"]),
        Node("Div", ["centred", "temperature"], ["near"]),
        Node("Exp", ["near"], ["weights"]),
        Node("Cast", ["weights"], ["mass"], {"to": 11}),
    ]


def _reached() -> list[Node]:
    """reached (B, 1): how many of the nearest top-k, then top-p of what it leaves, take; edge: the least."""
    return [
        Node("Sub", ["top_k", "unit"], ["at"]),
        Node("GatherElements", ["near", "at"], ["kth"], {"axis": 1}),
        Node("GreaterOrEqual", ["near", "kth"], ["as_large"]),
        Node("Not", ["use_top_k"], ["any_rank"]),
        Node("Or", ["as_large", "any_rank"], ["in_top_k"]),
        Node("Where", ["in_top_k", "mass", "nothing"], ["left"]),
        Node("ReduceSum", ["left", "one"], ["left_mass"], {"keepdims": 1}),
        Node("Where", ["use_top_k", "left_mass", "all_mass"], ["whole_mass"]),
        Node("Mul", ["top_p", "whole_mass"], ["wanted"]),
        Node("CumSum", ["left", "axis"], ["before"], {"exclusive": 1}),
        Node("Less", ["before", "wanted"], ["reaching"]),
        Node("GreaterOrEqual", ["top_p", "everything"], ["any_share"]),
        Node("Or", ["reaching", "any_share"], ["in_top_p"]),
        Node("And", ["in_top_k", "in_top_p"], ["in_both"]),
        Node("Cast", ["in_both"], ["taken"], {"to": 7}),
        Node("ReduceSum", ["taken", "one"], ["reached"], {"keepdims": 1}),
        Node("Sub", ["reached", "unit"], ["edge_at"]),
        Node("GatherElements", ["near", "edge_at"], ["edge"], {"axis": 1}),
    ]


def _kept() -> list[Node]:
    """rising (B, K): the ids in their order; weight (B, K): their mass, 0 where they are dropped.

    Above the edge all stay; of those at it as many as were reached, the lowest ids first; then min-p.
    """
    return [
        Node("TopK", ["ids", "nearest"], ["rising", "order"], {"axis": 1, "largest": 0}),
        Node("GatherElements", ["near", "order"], ["score"], {"axis": 1}),
        Node("GatherElements", ["mass", "order"], ["share"], {"axis": 1}),
        Node("Greater", ["score", "edge"], ["above"]),
        Node("Cast", ["above"], ["above_one"], {"to": 7}),
        Node("ReduceSum", ["above_one", "one"], ["above_count"], {"keepdims": 1}),
        Node("Sub", ["reached", "above_count"], ["room"]),
        Node("Equal", ["score", "edge"], ["at_edge"]),
        Node("Cast", ["at_edge"], ["at_edge_one"], {"to": 7}),
        Node("CumSum", ["at_edge_one", "axis"], ["rank"]),
        Node("LessOrEqual", ["rank", "room"], ["early"]),
        Node("And", ["at_edge", "early"], ["stays"]),
        Node("Or", ["above", "stays"], ["in_nucleus"]),
        Node("GreaterOrEqual", ["share", "min_p"], ["in_min_p"]),
        Node("And", ["in_nucleus", "in_min_p"], ["kept"]),
        Node("Where", ["kept", "share", "nothing"], ["weight"]),
    ]


def _drawn() -> list[Node]:
    """drawn (B, 1): where the running sum of the kept weights, in the order of ids, passes `uniform`."""
    return [
        Node("CumSum", ["weight", "axis"], ["sums"]),
        Node("Slice", ["sums", "last", "end", "one"], ["total"]),
        Node("Mul", ["uniform", "total"], ["target"]),
        Node("LessOrEqual", ["sums", "target"], ["behind"]),
        Node("Cast", ["behind"], ["steps"], {"to": 7}),
        Node("ReduceSum", ["steps", "one"], ["count"], {"keepdims": 1}),
        Node("Min", ["count", "last"], ["index"]),
        Node("GatherElements", ["rising", "index"], ["drawn"], {"axis": 1}),
    ]


def _complete(*, whole: bool) -> list[Node]:
    """complete (B, 1): the draw is sound, and the least token looked at is less than any that was kept.

    Nor does it tie with the last of the top k: the share of top-p would be one of tokens never looked at.
    whole: whether all tokens were looked at.
    """
    inside = "passed" if whole else "inside"
    return [
        Node("LessOrEqual", ["count", "last"], ["passed"]),
        Node("Slice", ["near", "last", "end", "one"], ["least"]),
        Node("Slice", ["mass", "last", "end", "one"], ["least_mass"]),
        Node("Less", ["least", "edge"], ["below_edge"]),
        Node("Less", ["least_mass", "min_p"], ["below_min_p"]),
        Node("Or", ["below_edge", "below_min_p"], ["dropped"]),
        Node("Slice", ["in_top_k", "last", "end", "one"], ["last_in_top_k"]),
        Node("And", ["last_in_top_k", "use_top_k"], ["tied"]),
        Node("Not", ["tied"], ["untied"]),
        Node("And", ["dropped", "untied"], ["bounded"]),
        Node("And", ["passed", "bounded"], ["inside"]),
        Node("GreaterOrEqual", ["all_mass", "everything"], ["sound"]),  # false for NaN
        Node("And", [inside, "sound"], ["complete"]),
    ]
