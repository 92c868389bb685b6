"""The IO bindings of the gqa graph: made once over a range of places of the KV caches, run many times.

Past and present are bound to the same memory, so a step writes its keys and values in place and copies
nothing. The small inputs are arrays whose content changes while their address stays; a device reads them
through mirrors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.onnx.gpu.device_memory import DeviceArray, DeviceMirror
from ptbr_slm.runtime.onnx.kv_cache import KVCaches
from ptbr_slm.runtime.onnx.memory import Memory, Mirror, Result
from ptbr_slm.runtime.onnx.opened import Opened
from ptbr_slm.runtime.sampling.draws import Draw
from ptbr_slm.runtime.types import Floats

if TYPE_CHECKING:
    from ptbr_slm.runtime.onnx.gpu.device_sampling import DeviceSampler

Array = npt.NDArray[Any]


class Binding:
    """Binds the caches of `count` places from `first` on, and the inputs a subclass adds."""

    def __init__(self, opened: Opened, caches: KVCaches, first: int, count: int) -> None:
        self._opened, self._session, self._memory = opened, opened.session, opened.memory
        self._io = self._session.io_binding()
        for index, buffer in enumerate(caches.arrays):
            _, heads, capacity, width = buffer.shape
            pointer = self._memory.pointer(buffer) + first * (buffer.nbytes // buffer.shape[0])
            name = f"{index // 2}.{'value' if index % 2 else 'key'}"
            where = (self._memory.device, 0, caches.dtype, (count, heads, capacity, width), pointer)
            self._io.bind_input(f"past_key_values.{name}", *where)
            self._io.bind_output(f"present.{name}", *where)

    def _input(self, name: str, array: Array) -> None:
        """Bind a host array. A device's session copies it at this moment, unless it reads it on the host."""
        self._io.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _run_on_copies(self, options: Any) -> None:
        """Run once over inputs that were bound from the host, of which a device has copies."""
        if not self._memory.shared:
            # They travel in a stream of their own unless steps are captured; the run does not wait for them:
            # "should Run() call io_binding.SynchronizeInputs()?" (onnxruntime, inference_session.cc).
            self._io.synchronize_inputs()
        self._session.run_with_iobinding(self._io, options)

    def _output(self, name: str, array: Array) -> None:
        self._io.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


class Step:
    """What the decode bindings of all flavours share: the ids that they feed, the logits that they leave in
    the session's memory, and tokens drawn there.
    """

    ids: npt.NDArray[np.int64]
    """(count, 1)."""
    lengths: npt.NDArray[np.int32]
    """(count,), a view of the caches' lengths."""
    logits: Result
    _ids: Mirror
    _memory: Memory

    def _launch(self) -> None:
        """Feed `ids`, leaving the logits where the session wrote them."""
        raise NotImplementedError

    def step(self) -> None:
        """Feed `ids`, leaving the logits where the session wrote them. Advances the lengths."""
        self._memory.together(self._launch)
        self.lengths += 1

    def run(self) -> Floats:
        """As `step`, with the (count, V) logits, which the next run may overwrite."""
        self.step()
        logits: Floats = self.logits.read()[:, 0]
        return logits

    def run_drawn(self, sampler: DeviceSampler, draws: Sequence[Draw]) -> tuple[list[int], list[bool]]:
        """As `run`, with a token for each row by its draw, and whether it counts (see `DeviceSampler`)."""
        ids, logits = self._ids, self.logits
        assert isinstance(ids, DeviceMirror) and isinstance(logits, DeviceArray)

        def work() -> Array:
            self._launch()
            ids.holds(None)
            tokens = sampler.choose(logits, ids.copy, draws)
            ids.holds(tokens)  # a token that is taken lies already where the next step reads it
            return tokens

        tokens = self._memory.together(work)
        self.lengths += 1
        return tokens[:, 0].tolist(), (tokens[:, 0] >= 0).tolist()


class DecodeBinding(Binding, Step):
    """One token for each of `count` rows."""

    def __init__(self, opened: Opened, caches: KVCaches, first: int, count: int, vocab_size: int) -> None:
        super().__init__(opened, caches, first, count)
        buffers = opened.step_buffers(count, vocab_size)
        self.ids, self._ids, self.logits = buffers.ids, buffers.ids_mirror, buffers.logits
        # seqlens_k is the total minus 1, which is just what each row held before this token.
        self.lengths = caches.lengths[first : first + count]
        # A captured graph keeps the value of its capture: the capacity is right for every length below it.
        self._total = np.array(caches.capacity, dtype=np.int32)
        self._fixed = opened.captures
        self._options, self._graph = opened.captured_run()
        self._input("total_sequence_length", self._total)  # GroupQueryAttention reads it on the host
        self._seqlens = self._memory.mirror(self.lengths)
        self._read("input_ids", np.int64, (count, 1), buffers.ids_mirror)
        self._read("logits_index", np.int64, (count, 1), buffers.index_mirror)
        self._read("seqlens_k", np.int32, (count,), self._seqlens)
        self._io.bind_output(
            "logits", self._memory.device, 0, np.float32, (count, 1, vocab_size), self.logits.pointer
        )

    def _launch(self) -> None:
        if not self._fixed:
            self._total[...] = self.lengths.max() + 1
        if not self._memory.shared:
            self._seqlens.upload()
            self._ids.upload()
        self._session.run_with_iobinding(self._io, self._options)

    def release(self) -> None:
        """Forget what the provider captured of this binding."""
        self._opened.release(self._graph)

    def _read(self, name: str, dtype: type[np.generic], shape: tuple[int, ...], mirror: Mirror) -> None:
        self._io.bind_input(name, self._memory.device, 0, dtype, shape, mirror.pointer)


class PrefillBinding(Binding):
    """Any number of tokens for the row at one place."""

    def __init__(self, opened: Opened, caches: KVCaches, place: int) -> None:
        super().__init__(opened, caches, place, 1)
        self._length = caches.lengths[place : place + 1]
        self._total = np.zeros((), dtype=np.int32)
        self._seqlens = np.zeros(1, dtype=np.int32)
        self._options = opened.free_run()

    def run(self, tokens: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64], logits: Floats) -> None:
        """Append tokens (S,); the logits at the positions `wanted` (K,) of the chunk go to logits (K, V)."""
        self._total[...] = self._length[0] + len(tokens)
        self._seqlens[0] = self._total - 1
        self._input("input_ids", tokens[None])
        self._input("seqlens_k", self._seqlens)
        self._input("total_sequence_length", self._total)
        self._input("logits_index", wanted[None])
        self._output("logits", logits[None])
        self._run_on_copies(self._options)
        self._length += len(tokens)
