"""The IO bindings of both graph flavours: made once over a range of the KV caches, run many times.

Past and present are bound to the same memory, so a step writes its keys and values in place and copies
nothing. The small inputs are arrays whose content changes while their address stays; a device has copies of
them (`InputBuffer`). For the graphs see `ptbr_slm_export.graphs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.engines.onnx.device_sampling import DeviceSampler
from ptbr_slm.runtime.engines.onnx.draft import STATES
from ptbr_slm.runtime.engines.onnx.kv_cache import KVCaches
from ptbr_slm.runtime.engines.onnx.providers.device_memory import DeviceArray, DeviceInput
from ptbr_slm.runtime.engines.onnx.providers.memory import InputBuffer, Memory, OutputBuffer
from ptbr_slm.runtime.engines.onnx.providers.session import ProviderSession, RunOptions
from ptbr_slm.runtime.protocol import Floats
from ptbr_slm.runtime.sampling.params import Draw

Array = npt.NDArray[Any]
_INT64_BYTES = 8


class Binding:
    """Binds the caches of the `count` indices from `first` on, and the inputs a subclass adds."""

    def __init__(self, provider: ProviderSession, caches: KVCaches, first: int, count: int) -> None:
        self._provider, self._session, self._memory = provider, provider.session, provider.memory
        self._io = self._session.io_binding()
        for index, buffer in enumerate(caches.arrays):
            _, heads, capacity, width = buffer.shape
            pointer = self._memory.pointer(buffer) + first * (buffer.nbytes // buffer.shape[0])
            name = f"{index // 2}.{'value' if index % 2 else 'key'}"
            tensor = (self._memory.device, 0, caches.dtype, (count, heads, capacity, width), pointer)
            self._io.bind_input(f"past_key_values.{name}", *tensor)
            self._io.bind_output(f"present.{name}", *tensor)

    def bind_states(self, states: Floats) -> None:
        """Let runs write what a draft layer starts from, (count, K, C), beside the logits."""
        self._output(STATES, states)

    def _input(self, name: str, array: Array) -> None:
        """Bind a host array. A device's session copies it at this moment, unless it reads it on the host."""
        self._io.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _run_on_copies(self, options: RunOptions | None) -> None:
        """Run once over inputs that were bound from the host, of which a device has copies."""
        if not self._memory.shared:
            # They travel in a stream of their own unless steps are captured; the run does not wait for them:
            # "should Run() call io_binding.SynchronizeInputs()?" (onnxruntime, inference_session.cc).
            self._io.synchronize_inputs()
        self._session.run_with_iobinding(self._io, options)

    def _output(self, name: str, array: Array) -> None:
        self._io.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


class DecodeBinding(ABC):
    """Appends one token to each of a range of slots: the ids that it runs, the logits that it leaves in the
    session's memory, and tokens drawn there.
    """

    ids: npt.NDArray[np.int64]
    """(count, 1), to be filled before a run."""
    lengths: npt.NDArray[np.int32]
    """(count,), a view of the caches' lengths."""
    logits: OutputBuffer
    _ids: InputBuffer
    _memory: Memory

    @abstractmethod
    def _launch(self) -> None:
        """Run `ids`, leaving the logits where the session wrote them."""

    @abstractmethod
    def release(self) -> None:
        """Forget what the provider captured: the binding will not be run again."""

    def step(self) -> None:
        """Run `ids`, leaving the logits where the session wrote them. Advances the lengths."""
        self._memory.run(self._launch)
        self.lengths += 1

    def run(self) -> Floats:
        """As `step`, with the (count, V) logits, which the next run may overwrite."""
        self.step()
        logits: Floats = self.logits.read()[:, 0]
        return logits

    def run_drawn(self, sampler: DeviceSampler, draws: Sequence[Draw]) -> tuple[list[int], list[bool]]:
        """As `run`, with a token for each slot by its draw, and whether it counts (see `DeviceSampler`)."""
        ids, logits = self._ids, self.logits
        assert isinstance(ids, DeviceInput) and isinstance(logits, DeviceArray)

        def work() -> Array:
            self._launch()
            ids.set_content(None)
            tokens = sampler.choose(logits, ids.copy, draws)
            ids.set_content(tokens)  # a token that is taken lies already where the next step reads it
            return tokens

        tokens = self._memory.run(work)
        self.lengths += 1
        return tokens[:, 0].tolist(), (tokens[:, 0] >= 0).tolist()


class PrefillBinding(ABC):
    """Appends tokens to one slot."""

    @abstractmethod
    def run(self, tokens: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], logits: Floats) -> None:
        """Append tokens (S,); the logits at the positions `wanted` (K,) of the chunk go to logits (K, V)."""


class RowsBinding(ABC):
    """Appends tokens to each of a range of slots: one to each, or to empty slots as many as each has."""

    @abstractmethod
    def run(
        self,
        tokens: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int32],
        wanted: npt.NDArray[np.int64],
        logits: Floats,
    ) -> None:
        """Append the first `counts` (B,) of tokens (B, S), the longest of which has S.

        The logits at the positions `wanted` (B, K) go to logits (B, K, V).
        """


class GqaDecodeBinding(Binding, DecodeBinding):
    """One token for each of `count` slots, by the gqa graph."""

    def __init__(
        self, provider: ProviderSession, caches: KVCaches, first: int, count: int, vocab_size: int
    ) -> None:
        super().__init__(provider, caches, first, count)
        buffers = provider.step_buffers(count, vocab_size)
        self.ids, self._ids, self.logits = buffers.ids, buffers.ids_input, buffers.logits
        # seqlens_k is the total minus 1: the tokens that each slot held before this one.
        self.lengths = caches.lengths[first : first + count]
        # A captured graph keeps the value of its capture: the capacity is right for every length below it.
        self._total = np.array(caches.capacity, dtype=np.int32)
        self._captured = provider.captures
        self._options, self._graph_id = provider.captured_options()
        self._input("total_sequence_length", self._total)  # GroupQueryAttention reads it on the host
        self._seqlens = self._memory.input_buffer(self.lengths)
        self._read("input_ids", np.int64, (count, 1), buffers.ids_input)
        self._read("logits_index", np.int64, (count, 1), buffers.index_input)
        self._read("seqlens_k", np.int32, (count,), self._seqlens)
        self._io.bind_output(
            "logits", self._memory.device, 0, np.float32, (count, 1, vocab_size), self.logits.pointer
        )

    def _launch(self) -> None:
        if not self._captured:
            self._total[...] = self.lengths.max() + 1
        if not self._memory.shared:
            self._seqlens.upload()
            self._ids.upload()
        self._session.run_with_iobinding(self._io, self._options)

    def release(self) -> None:
        """See `DecodeBinding.release`."""
        self._provider.release_graph(self._graph_id)

    def _read(self, name: str, dtype: type[np.generic], shape: tuple[int, ...], buffer: InputBuffer) -> None:
        self._io.bind_input(name, self._memory.device, 0, dtype, shape, buffer.pointer)


class GqaPrefillBinding(Binding, PrefillBinding):
    """Any number of tokens for the slot at one index, by the gqa graph."""

    def __init__(self, provider: ProviderSession, caches: KVCaches, index: int) -> None:
        super().__init__(provider, caches, index, 1)
        self._length = caches.lengths[index : index + 1]
        self._total = np.zeros((), dtype=np.int32)
        self._seqlens = np.zeros(1, dtype=np.int32)
        self._options = provider.uncaptured_options()

    def run(self, tokens: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], logits: Floats) -> None:
        """See `PrefillBinding.run`."""
        self._total[...] = self._length[0] + len(tokens)
        self._seqlens[0] = self._total - 1
        self._input("input_ids", tokens[None])
        self._input("seqlens_k", self._seqlens)
        self._input("total_sequence_length", self._total)
        self._input("logits_index", wanted[None])
        self._output("logits", logits[None])
        self._run_on_copies(self._options)
        self._length += len(tokens)


class GqaRowsBinding(Binding, RowsBinding):
    """`RowsBinding` by the gqa graph, in host memory."""

    def __init__(self, provider: ProviderSession, caches: KVCaches, first: int, count: int) -> None:
        super().__init__(provider, caches, first, count)
        self._lengths = caches.lengths[first : first + count]

    def run(
        self,
        tokens: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int32],
        wanted: npt.NDArray[np.int64],
        logits: Floats,
    ) -> None:
        """See `RowsBinding.run`."""
        # A first run is told from a later one by its total: as long as the chunk.
        total = np.array(self._lengths.max() + tokens.shape[1], dtype=np.int32)
        seqlens = self._lengths + counts - 1
        self._input("input_ids", tokens)
        self._input("seqlens_k", seqlens)
        self._input("total_sequence_length", total)
        self._input("logits_index", wanted)
        self._output("logits", logits)
        self._session.run_with_iobinding(self._io, None)
        self._lengths += counts


class StdDecodeBinding(DecodeBinding):
    """One token for each of `count` slots, by the std graph.

    A provider with shape profiles takes so many slots a call at most: a larger batch is run in parts, over
    neighbouring ranges of the same arrays, so that no shape leaves a profile and makes TensorRT build its
    engine anew.
    """

    def __init__(
        self, provider: ProviderSession, caches: KVCaches, first: int, count: int, vocab_size: int
    ) -> None:
        memory = self._memory = provider.memory
        buffers = provider.step_buffers(count, vocab_size)
        self.ids, self._ids, self.logits = buffers.ids, buffers.ids_input, buffers.logits
        self._index_input = buffers.index_input
        self.lengths = caches.lengths[first : first + count]
        # A new token's position is where it is written: one array, read as (count, 1) and as (count,).
        self._positions = np.zeros((count, 1), dtype=np.int64)
        self._positions_input = memory.input_buffer(self._positions)
        size = provider.profile.max_slots if provider.profile else count
        self._parts = [
            self._part(provider, caches, first, start, min(size, count - start), vocab_size)
            for start in range(0, count, size)
        ]

    def _launch(self) -> None:
        self._positions[:, 0] = self.lengths
        self._positions_input.upload()
        self._ids.upload()
        for part in self._parts:
            part.step()

    def release(self) -> None:
        """See `DecodeBinding.release`."""
        for part in self._parts:
            part.release()

    def _part(
        self, provider: ProviderSession, caches: KVCaches, first: int, start: int, slots: int, vocab_size: int
    ) -> _StdDecodePart:
        """Slots `start` to `start + slots` of the batch, which lies at the indices from `first` on."""
        part = _StdDecodePart(provider, caches, first + start, slots)
        skipped = start * _INT64_BYTES
        part.read("input_ids", (slots, 1), self._ids.pointer + skipped)
        part.read("position_ids", (slots, 1), self._positions_input.pointer + skipped)
        part.read("write_indices", (slots,), self._positions_input.pointer + skipped)
        part.read("logits_index", (slots, 1), self._index_input.pointer + skipped)
        part.write_logits((slots, 1, vocab_size), self.logits.pointer + start * vocab_size * 4)
        return part


class _StdDecodePart(Binding):
    """As many slots of a step as one call may have."""

    def __init__(self, provider: ProviderSession, caches: KVCaches, first: int, slots: int) -> None:
        if provider.profile is not None:
            provider.profile.require(slots, 1, 1)
        super().__init__(provider, caches, first, slots)
        self._options, self._graph_id = provider.captured_options()

    def read(self, name: str, shape: tuple[int, ...], pointer: int) -> None:
        """Bind an int64 input at an address of the session's memory."""
        self._io.bind_input(name, self._memory.device, 0, np.int64, shape, pointer)

    def write_logits(self, shape: tuple[int, ...], pointer: int) -> None:
        """Bind the logits likewise."""
        self._io.bind_output("logits", self._memory.device, 0, np.float32, shape, pointer)

    def step(self) -> None:
        """Run these slots."""
        self._session.run_with_iobinding(self._io, self._options)

    def release(self) -> None:
        """Forget what the provider captured."""
        self._provider.release_graph(self._graph_id)


class StdPrefillBinding(Binding, PrefillBinding):
    """Any number of tokens, up to a prefill chunk, for the slot at one index, by the std graph."""

    def __init__(self, provider: ProviderSession, caches: KVCaches, index: int) -> None:
        super().__init__(provider.prefill or provider, caches, index, 1)
        self._length = caches.lengths[index : index + 1]
        self._options = self._provider.uncaptured_options()

    def run(self, tokens: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], logits: Floats) -> None:
        """See `PrefillBinding.run`."""
        if self._provider.profile is not None:
            self._provider.profile.require(1, len(tokens), len(wanted))
        start = self._length.astype(np.int64)  # (1,)
        positions = start[:, None] + np.arange(len(tokens))  # (1, S)
        self._input("input_ids", tokens[None])
        self._input("position_ids", positions)
        self._input("write_indices", start)
        self._input("logits_index", wanted[None])
        self._output("logits", logits[None])
        self._run_on_copies(self._options)
        self._length += len(tokens)
