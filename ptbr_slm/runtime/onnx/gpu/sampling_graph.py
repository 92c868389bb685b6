"""Greedy choice and temperature, top-k, top-p, min-p and draw as ONNX graphs, to run where the logits are.

The same steps in the same order and precision as `ptbr_slm.runtime.sampling`, whose uniform numbers they
take: for one number both choose one token. They look at the `NEAREST` most probable tokens only. Where the
choice might lie beyond (a flat distribution), or a logit is no number, `complete` is false: the host chooses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.onnx.tiny_graph import Node, Tensor, model_bytes

NEAREST = 512
"""Tokens that are sorted. A trained model's nucleus of 95 % mostly has fewer."""

_OUTPUTS = [Tensor("token", "int64", ("batch", 1)), Tensor("complete", "bool", ("batch", 1))]


def greedy_graph(width: int, vocab_size: int) -> bytes:
    """logits (B, 1, width) -> token (B, 1), the largest of `vocab_size` logits, and complete (B, 1)."""
    nodes = [
        *_scores(),
        Node("ArgMax", ["scores"], ["token"], {"axis": 1, "keepdims": 1}),
        # NaN and infinity make the sum one of them.
        Node("ReduceSum", ["scores", "one"], ["sum"], {"keepdims": 1}),
        Node("Abs", ["sum"], ["size"]),
        Node("Less", ["size", "infinity"], ["complete"]),
    ]
    constants: dict[str, npt.NDArray[Any]] = {
        **_bounds(vocab_size),
        "infinity": np.array(np.inf, dtype=np.float32),
    }
    return model_bytes("greedy", nodes, [_logits(width)], _OUTPUTS, constants)


def drawing_graph(width: int, vocab_size: int) -> bytes:
    """logits (B, 1, width) and, (B, 1) each, greedy, temperature (above 0), use_top_k, top_k (from 1 below
    `NEAREST`), top_p, min_p and uniform -> token and complete, as in `greedy_graph`.
    """
    nearest = min(NEAREST, vocab_size)
    nodes = [
        *_scores(),
        Node("ArgMax", ["scores"], ["best"], {"axis": 1, "keepdims": 1}),
        Node("ReduceMax", ["scores", "one"], ["peak"], {"keepdims": 1}),
        Node("Sub", ["scores", "peak"], ["centred"]),
        Node("Div", ["centred", "temperature"], ["scaled"]),
        Node("TopK", ["scaled", "nearest"], ["near", "ids"], {"axis": 1}),  # (B, K), falling
        *_weights(),
        *_kept(),
        *_drawn(),
        Node("Where", ["greedy", "best", "drawn"], ["token"]),
        *_complete(whole=nearest == vocab_size),
    ]
    inputs = [
        _logits(width),
        Tensor("greedy", "bool", ("batch", 1)),
        Tensor("temperature", "float32", ("batch", 1)),
        Tensor("use_top_k", "bool", ("batch", 1)),
        Tensor("top_k", "int64", ("batch", 1)),
        Tensor("top_p", "float64", ("batch", 1)),
        Tensor("min_p", "float32", ("batch", 1)),
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
    }


def _scores() -> list[Node]:
    """scores (B, V): a model may have more columns than its tokenizer has tokens."""
    return [
        Node("Squeeze", ["logits", "one"], ["rows"]),
        Node("Slice", ["rows", "first", "size_of_vocabulary", "one"], ["scores"]),
    ]


def _weights() -> list[Node]:
    """weights (B, K) float32, mass the same in float64, all_mass (B, 1) of the whole vocabulary."""
    return [
        Node("Exp", ["scaled"], ["all_weights"]),
        Node("Cast", ["all_weights"], ["all_double"], {"to": 11}),
        Node("ReduceSum", ["all_double", "one"], ["all_mass"], {"keepdims": 1}),
        Node("Exp", ["near"], ["weights"]),
        Node("Cast", ["weights"], ["mass"], {"to": 11}),
    ]


def _kept() -> list[Node]:
    """kept (B, K) bool: within top-k and its ties, then within top-p of what is left, then above min-p."""
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
        Node("GreaterOrEqual", ["weights", "min_p"], ["in_min_p"]),
        Node("And", ["in_top_k", "in_top_p"], ["in_both"]),
        Node("And", ["in_both", "in_min_p"], ["kept"]),
    ]


def _drawn() -> list[Node]:
    """drawn (B, 1): where the running sum of the kept weights, in the order of ids, passes `uniform`."""
    return [
        Node("Where", ["kept", "mass", "nothing"], ["kept_mass"]),
        Node("TopK", ["ids", "nearest"], ["rising", "order"], {"axis": 1, "largest": 0}),
        Node("GatherElements", ["kept_mass", "order"], ["by_id"], {"axis": 1}),
        Node("CumSum", ["by_id", "axis"], ["sums"]),
        Node("Slice", ["sums", "last", "end", "one"], ["total"]),
        Node("Mul", ["uniform", "total"], ["target"]),
        Node("LessOrEqual", ["sums", "target"], ["behind"]),
        Node("Cast", ["behind"], ["steps"], {"to": 7}),
        Node("ReduceSum", ["steps", "one"], ["count"], {"keepdims": 1}),
        Node("Min", ["count", "last"], ["index"]),
        Node("GatherElements", ["rising", "index"], ["drawn"], {"axis": 1}),
    ]


def _complete(*, whole: bool) -> list[Node]:
    """complete (B, 1): the draw is sound, and the least token looked at was dropped, so all below it were.

    Nor does it tie with the last of the top k: the share of top-p would be one of tokens never looked at.
    whole: whether all tokens were looked at.
    """
    inside = "passed" if whole else "inside"
    return [
        Node("LessOrEqual", ["count", "last"], ["passed"]),
        Node("Slice", ["kept", "last", "end", "one"], ["last_kept"]),
        Node("Not", ["last_kept"], ["dropped"]),
        Node("Slice", ["in_top_k", "last", "end", "one"], ["last_in_top_k"]),
        Node("And", ["last_in_top_k", "use_top_k"], ["tied"]),
        Node("Not", ["tied"], ["untied"]),
        Node("And", ["dropped", "untied"], ["bounded"]),
        Node("And", ["passed", "bounded"], ["inside"]),
        Node("GreaterOrEqual", ["all_mass", "everything"], ["sound"]),  # false for NaN
        Node("Or", ["greedy", inside], ["decided"]),
        Node("And", ["decided", "sound"], ["complete"]),
    ]
