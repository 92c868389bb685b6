"""Chooses tokens in the device's memory: 8 bytes a row come back instead of 128 KB of logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.onnx.gpu.captures import Captures
from ptbr_slm.runtime.onnx.gpu.device_memory import DeviceArray, DeviceMemory
from ptbr_slm.runtime.onnx.gpu.sampling_graph import NEAREST, drawing_graph, greedy_graph
from ptbr_slm.runtime.onnx.memory import Mirror
from ptbr_slm.runtime.sampling.draws import Draw

Ids = npt.NDArray[np.int64]


class DeviceSampler:
    """The sampling graphs over one model's logits, each opened when it is first needed.

    Where steps are captured, choices are too: the drawing graph is some fifty small kernels, which take
    longer to launch than to run.
    """

    def __init__(self, memory: DeviceMemory, width: int, vocab_size: int) -> None:
        """width: of the logits. vocab_size: of the tokenizer, which may be less."""
        self.memory, self._width, self._vocab_size = memory, width, vocab_size
        self._bindings: dict[tuple[bool, int, int], _Choice] = {}
        self._captures = Captures(), Captures()

    def suits(self, draw: Draw) -> bool:
        """Whether a draw of these options is one for the device; it may still turn out incomplete."""
        narrowed = draw.top_k > 0 or draw.top_p < 1 or draw.min_p > 0
        return draw.temperature == 0 or (draw.top_k < NEAREST and (narrowed or self._vocab_size <= NEAREST))

    def choose(self, logits: DeviceArray, tokens: DeviceArray, draws: Sequence[Draw]) -> Ids:
        """A token for each row of logits (B, 1, width), (B, 1), left in `tokens` as well.

        -1 where the host must choose from the logits.
        """
        greedy = all(draw.temperature == 0 for draw in draws)
        key = (greedy, logits.pointer, tokens.pointer)
        choice = self._bindings.get(key)
        if choice is None:
            session = self._greedy if greedy else self._drawing
            options = self._captures[greedy].next()[0] if self.memory.captures else None
            choice = _Choice(session, options, self.memory, logits, tokens, greedy=greedy)
            self._bindings[key] = choice
        return choice.run(draws)

    @cached_property
    def _greedy(self) -> Any:
        return self.memory.open(greedy_graph(self._width, self._vocab_size), capturing=True)

    @cached_property
    def _drawing(self) -> Any:
        return self.memory.open(drawing_graph(self._width, self._vocab_size), capturing=True)


class _Choice:
    """The IO binding of one graph over one step's logits and tokens."""

    def __init__(
        self,
        session: Any,
        options: Any,
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
        self._mirrors: list[Mirror] = []
        self._settings: dict[str, npt.NDArray[Any]] = {}
        if not greedy:
            self._settings = {name: np.ones(rows, kind) for name, kind in _SETTINGS.items()}
        for name, array in self._settings.items():
            mirror = memory.mirror(array)
            self._io.bind_input(name, memory.device, 0, array.dtype.type, rows, mirror.pointer)
            self._mirrors.append(mirror)

    def run(self, draws: Sequence[Draw]) -> Ids:
        """See `DeviceSampler.choose`."""
        if self._settings:
            _write(self._settings, draws)
        for mirror in self._mirrors:
            mirror.upload()
        self._session.run_with_iobinding(self._io, self._options)
        return self._tokens.read()

    def _bind(self, bind: Any, name: str, array: DeviceArray) -> None:
        bind(name, self._memory.device, 0, array.dtype.type, array.shape, array.pointer)


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


def _write(settings: dict[str, npt.NDArray[Any]], draws: Sequence[Draw]) -> None:
    draws = [_FIRST if draw.temperature == 0 else draw for draw in draws]
    for name in ("temperature", "top_p", "uniform"):
        settings[name][:, 0] = [getattr(draw, name) for draw in draws]
    settings["use_top_k"][:, 0] = [draw.top_k > 0 for draw in draws]
    settings["top_k"][:, 0] = [draw.top_k or 1 for draw in draws]
    settings["min_p"][:, 0] = [np.float32(draw.min_p) for draw in draws]  # weights are float32
