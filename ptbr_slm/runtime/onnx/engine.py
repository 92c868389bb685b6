"""The engine of exports: ONNX Runtime, shared KV buffers, ragged batches. No torch in the process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.config import ModelConfig
from ptbr_slm.runtime.onnx.binding import Step
from ptbr_slm.runtime.onnx.devices import Request, choose_place, open_session
from ptbr_slm.runtime.onnx.flavours import Decode, Prefill, flavour_of
from ptbr_slm.runtime.onnx.folder import ExportFolder
from ptbr_slm.runtime.onnx.kv_cache import KVCaches
from ptbr_slm.runtime.onnx.memory import Memory, run_errors
from ptbr_slm.runtime.onnx.opened import Opened
from ptbr_slm.runtime.onnx.warm_up import warm_up
from ptbr_slm.runtime.sampling.draws import GREEDY, Draw
from ptbr_slm.runtime.slots import PREFILL_CHUNK, check_capacity, check_ids, check_room, closed_error
from ptbr_slm.runtime.types import Floats
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ptbr_slm.runtime.onnx.gpu.device_sampling import DeviceSampler

_KEEP_CAPTURED = 1 << 30
"""Bytes of keys and values kept between texts where steps are captured: new buffers need new captures, and
the CUDA provider of ONNX Runtime 1.31.1 keeps the old ones until the session ends (`release_captured_graph`
does nothing there)."""


class OnnxEngine:
    """`Engine` over an export folder. Its flavour tells the graph's inputs and outputs (see `flavours`)."""

    name = "onnx"
    _opened: Opened | None
    _caches: KVCaches
    _sampler: DeviceSampler | None
    _decodes: dict[tuple[int, int], Decode]

    def __init__(
        self,
        folder: Path,
        device: str = "auto",
        *,
        threads: int | None = None,
        spinning: bool | None = None,
        cuda_graph: bool | None = None,
        oracle: bool = False,
    ) -> None:
        """Open an export. device: `auto`, `cpu` or `cuda`; threads and spinning: see `open_cpu`; cuda_graph:
        see `Request`; oracle: run an export for a GPU on the CPU, slowly, to check its answers.

        Raises E_PROVIDER, E_MANIFEST, E_SCHEMA, E_MODEL_INVALID, E_TOKENIZER_INVALID.
        """
        export = ExportFolder(folder)
        facts = export.facts
        place = choose_place(device, str(facts.get("target", "cpu")), oracle=oracle)
        self.device = place.device
        self.precision = str(facts.get("precision", "fp32"))
        self.config = ModelFolder(folder).config
        self._export = export
        self._flavour = flavour_of(str(facts.get("flavour", "gqa")), folder)
        kv_dtype = str(facts.get("kv_dtype", "float32"))
        request = Request(
            graph=export.graph,
            config=self.config,
            flavour=self._flavour,
            precision=self.precision,
            kv_dtype=kv_dtype,
            threads=threads,
            spinning=spinning,
            cuda_graph=cuda_graph,
        )
        # Hashing, packing the weights and parsing the vocabulary take about as long: side by side.
        with export.weights_checked(), ThreadPoolExecutor(1) as pool:
            opening = pool.submit(open_session, place, request)
            self.tokenizer = Tokenizer.load(folder)
            opened = opening.result()
        self._start(opened, np.dtype(kv_dtype).type)

    def reset(self, rows: int, capacity: int) -> None:
        """See `Engine.reset`."""
        check_capacity(self.config, capacity)
        self._refresh()
        self._plans.clear()
        self._caches.reset(rows, capacity)

    def open_slot(self) -> int:
        """See `Engine.open_slot`."""
        self._refresh()
        self._plans.clear()  # a name that was closed may come back at another place
        return self._caches.open()

    def close_slot(self, row: int) -> None:
        """See `Engine.close_slot`."""
        self._caches.close(row)

    def length(self, row: int) -> int:
        """See `Engine.length`."""
        return int(self._caches.lengths[self._caches.place(row)])

    def truncate(self, row: int, length: int) -> None:
        """See `Engine.truncate`."""
        self._caches.truncate(row, length)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """See `Engine.copy_prefix`."""
        self._caches.copy_prefix(source, target, length)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the key and value buffers now."""
        return self._caches.nbytes

    def prefill(self, row: int, tokens: Sequence[int]) -> Floats:
        """See `Engine.prefill`."""
        self._refresh()
        check_ids(self.config, tokens)
        total = self.length(row) + len(tokens)
        check_room(total, self._caches.limit)
        self._caches.ensure(total)
        logits = np.empty((1, self.config.vocab_size), dtype=np.float32)
        for start in range(0, len(tokens), PREFILL_CHUNK):
            chunk = tokens[start : start + PREFILL_CHUNK]
            self._append(row, chunk, np.array([len(chunk) - 1]), logits)
        last: Floats = logits[0]
        return last

    def extend(self, row: int, tokens: Sequence[int]) -> Floats:
        """See `Engine.extend`."""
        self._refresh()
        check_ids(self.config, tokens)
        total = self.length(row) + len(tokens)
        check_room(total, self._caches.limit)
        return self._all_logits(row, tokens)

    def decode(self, rows: Sequence[int], tokens: Sequence[int]) -> Floats:
        """See `Engine.decode`."""
        binding, order = self._fed(rows, tokens)
        with run_errors():
            logits: Floats = binding.run()[order]  # a copy, in the caller's order
        return logits

    @property
    def draws_tokens(self) -> bool:
        """Whether `decode_drawn` chooses where the logits are; elsewhere NumPy is as near to them."""
        return self._sampler is not None

    def choose_on_host(self) -> None:
        """Choose no more tokens on the device."""
        self._sampler = None

    def decode_drawn(
        self, rows: Sequence[int], tokens: Sequence[int], draws: Sequence[Draw | None]
    ) -> Sequence[int | Floats]:
        """See `DrawingEngine.decode_drawn`."""
        binding, order = self._fed(rows, tokens)
        sampler = self._sampler
        ours = [draw is not None and sampler is not None and sampler.suits(draw) for draw in draws]
        if sampler is None or not isinstance(binding, Step) or not any(ours):
            with run_errors():
                return list(binding.run()[order])
        placed = [draws[row] or GREEDY for row in np.argsort(order)]  # in the order of the binding's rows
        with run_errors():
            chosen, complete = binding.run_drawn(sampler, placed)
        settled = [mine and complete[at] for mine, at in zip(ours, order, strict=True)]
        if all(settled):
            return [chosen[at] for at in order]
        logits = binding.logits.read()[:, 0]
        return [chosen[at] if done else logits[at].copy() for done, at in zip(settled, order, strict=True)]

    def _fed(self, rows: Sequence[int], tokens: Sequence[int]) -> tuple[Decode, npt.NDArray[np.intp]]:
        """The binding over `rows`, with room and `tokens` in it, and each row's offset in it."""
        self._refresh()
        binding, order = self._plan(tuple(rows))
        check_ids(self.config, tokens)
        total = int(binding.lengths.max()) + 1
        if total > self._caches.capacity:
            check_room(total, self._caches.limit)
            self._caches.ensure(total)
            self._refresh()
            binding, order = self._plan(tuple(rows))
        check_room(total, self._caches.limit)
        binding.ids[order, 0] = tokens
        return binding, order

    def logits(self, tokens: Sequence[int]) -> Floats:
        """See `Engine.logits`."""
        check_ids(self.config, tokens)
        check_room(len(tokens), self.config.max_seq_len)
        row = self.open_slot()
        try:
            return self._all_logits(row, tokens)
        finally:
            self.close_slot(row)

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        facts = self._export.facts
        return {
            "file_bytes": self._export.file_bytes,
            "bits_per_byte": facts.get("bits_per_byte"),
            "target": facts.get("target", "cpu"),
            **_card(self.device),
            **self._session.facts,
        }

    def close(self) -> None:
        """See `Engine.close`."""
        if self._opened is not None:
            self._forget_bindings()
        self._opened = None
        self._caches.release()

    def _start(self, opened: Opened, dtype: type[np.generic]) -> None:
        """Caches and bindings over a session, warmed up where it has to prove itself."""
        self._opened = opened
        memory = opened.memory
        self._caches = KVCaches(
            self.config,
            memory,
            dtype,
            whole=opened.whole_caches,
            keep_bytes=_KEEP_CAPTURED if opened.captures else None,
        )
        self._sampler = None if memory.shared else _device_sampler(memory, self.config, self.tokenizer)
        self._decodes = {}
        self._planned_version = -1
        self._forget_bindings()
        if opened.check is None:
            return
        try:
            warm_up(self, opened.check)
        except BaseException as error:
            self.close()
            other = opened.instead(error) if opened.instead is not None else None
            if other is None:
                raise
        else:
            return
        self._start(other, dtype)

    def _all_logits(self, row: int, tokens: Sequence[int]) -> Floats:
        """Append tokens to a slot, chunk by chunk; (T, V) logits."""
        self._caches.ensure(self.length(row) + len(tokens))
        logits = np.empty((len(tokens), self.config.vocab_size), dtype=np.float32)
        for start in range(0, len(tokens), PREFILL_CHUNK):
            chunk = tokens[start : start + PREFILL_CHUNK]
            self._append(row, chunk, np.arange(len(chunk)), logits[start : start + len(chunk)])
        return logits

    def _append(self, row: int, tokens: Sequence[int], wanted: npt.NDArray[np.int64], logits: Floats) -> None:
        """Run one chunk on a slot with room for it; the logits at `wanted` (K,) go into logits (K, V)."""
        self._refresh()
        place = self._caches.place(row)
        binding = self._prefills.get(place)
        if binding is None:
            binding = self._prefills[place] = self._flavour.prefill(self._session, self._caches, place)
        with run_errors():
            binding.run(np.array(tokens, dtype=np.int64), wanted, logits)

    def _plan(self, rows: tuple[int, ...]) -> tuple[Decode, npt.NDArray[np.intp]]:
        """The binding that covers `rows`, and each row's offset in it; moves rows together if need be."""
        plan = self._plans.get(rows)
        if plan is None:
            first, order = self._caches.gather(rows)
            self._refresh()
            binding = self._decodes.get((first, len(rows)))
            if binding is None:
                binding = self._flavour.decode(
                    self._session, self._caches, first, len(rows), self.config.vocab_size
                )
                self._decodes[first, len(rows)] = binding
            plan = self._plans[rows] = (binding, np.array(order))
        return plan

    @property
    def _session(self) -> Opened:
        """Raises E_CLOSED after `close`."""
        if self._opened is None:
            raise closed_error()
        return self._opened

    def _refresh(self) -> None:
        """Forget the bindings of buffers that were replaced, and the plans of rows that moved.

        Raises E_CLOSED after `close`.
        """
        if self._opened is None:
            raise closed_error()
        if self._caches.version != self._planned_version:
            if self._caches.allocation != self._bound_allocation:
                self._forget_bindings()
            self._plans.clear()
            self._planned_version = self._caches.version

    def _forget_bindings(self) -> None:
        for binding in self._decodes.values():
            binding.release()
        self._prefills: dict[int, Prefill] = {}
        self._decodes = {}
        self._plans: dict[tuple[int, ...], tuple[Decode, npt.NDArray[np.intp]]] = {}
        self._bound_allocation, self._planned_version = self._caches.allocation, self._caches.version


def _card(device: str) -> dict[str, str | None]:
    """The name of the GPU that is used, where one is."""
    if device != "cuda":
        return {}
    from ptbr_slm.runtime.onnx.gpu.cuda import card_name

    return {"device_name": card_name()}


def _device_sampler(memory: Memory, config: ModelConfig, tokenizer: Tokenizer) -> DeviceSampler | None:
    from ptbr_slm.runtime.onnx.gpu.device_memory import DeviceMemory
    from ptbr_slm.runtime.onnx.gpu.device_sampling import DeviceSampler

    if not isinstance(memory, DeviceMemory):
        return None
    return DeviceSampler(memory, config.vocab_size, min(tokenizer.vocab_size, config.vocab_size))
