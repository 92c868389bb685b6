"""The engine of exports: ONNX Runtime, shared KV buffers, ragged batches. No torch in the process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptbr_slm.runtime.drafting.layer import DraftScores
from ptbr_slm.runtime.engines.onnx.bindings import Binding, DecodeBinding, PrefillBinding
from ptbr_slm.runtime.engines.onnx.device_sampling import DeviceSampler
from ptbr_slm.runtime.engines.onnx.draft import OnnxDraft
from ptbr_slm.runtime.engines.onnx.export_folder import ExportFolder
from ptbr_slm.runtime.engines.onnx.flavours import check_signature, flavour_of
from ptbr_slm.runtime.engines.onnx.kv_cache import KVCaches
from ptbr_slm.runtime.engines.onnx.providers.device_memory import DeviceMemory
from ptbr_slm.runtime.engines.onnx.providers.memory import run_errors
from ptbr_slm.runtime.engines.onnx.providers.registry import Provider, choose_provider
from ptbr_slm.runtime.engines.onnx.providers.session import ProviderSession, SessionRequest
from ptbr_slm.runtime.engines.onnx.scoring import OnnxScoring
from ptbr_slm.runtime.protocol import (
    PREFILL_CHUNK,
    Floats,
    check_capacity,
    check_ids,
    check_length,
    closed_error,
)
from ptbr_slm.runtime.sampling.params import GREEDY, Draw
from ptbr_slm.storage.model_folder import ModelFolder
from ptbr_slm.tokenizer import Tokenizer

_IDLE_BYTES_CAPTURED = 1 << 30
"""Bytes of keys and values that stay allocated between texts where steps are captured: new buffers need new
captures, and the CUDA provider of ONNX Runtime 1.31.1 stores the old ones until the session ends
(`release_captured_graph` does nothing there)."""

_WARM_UP_CHUNKS = tuple(size for size in (16, 32, 64, 128, 256, 512) if size <= PREFILL_CHUNK)
"""Weight-only products choose a kernel for each power of two, from 16 on without one that takes any size
(onnxruntime#29691)."""

_MOST_LENT = 33
"""Rows of logits that stay allocated for drafts: the longest draft, and the token before it."""

_log = logging.getLogger(__name__)


class OnnxEngine:
    """`Engine` over an export folder. Its flavour tells the graph's inputs and outputs (see `flavours`)."""

    name = "onnx"
    _provider: ProviderSession | None
    _caches: KVCaches
    _sampler: DeviceSampler | None
    _decodes: dict[tuple[int, int], DecodeBinding]

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
        see `SessionRequest`; oracle: run an export for a GPU on the CPU, slowly, to check its answers.

        Raises E_PROVIDER, E_MANIFEST, E_SCHEMA, E_MODEL_INVALID, E_TOKENIZER_INVALID.
        """
        export = ExportFolder(folder)
        facts = export.facts
        provider = choose_provider(device, str(facts.get("target", "cpu")), oracle=oracle)
        self.device = provider.device
        self.precision = str(facts.get("precision", "fp32"))
        self.config = ModelFolder(folder).config
        self._export = export
        self._flavour = flavour_of(str(facts.get("flavour", "gqa")), folder)
        kv_dtype = str(facts.get("kv_dtype", "float32"))
        request = SessionRequest(
            graph=export.graph,
            config=self.config,
            precision=self.precision,
            threads=threads,
            spinning=spinning,
            cuda_graph=cuda_graph,
        )
        # Hashing, packing the weights and parsing the vocabulary take about as long: side by side.
        with export.weights_checked(), ThreadPoolExecutor(1) as pool:
            opening = pool.submit(self._open, provider, request, kv_dtype)
            self.tokenizer = Tokenizer.load(folder)
            session = opening.result()
            self._draft = None if export.draft_graph is None else OnnxDraft(export.draft_graph, self.config)
        self._lent = np.empty((0, self.config.vocab_size), dtype=np.float32)
        self._step_states = np.zeros((1, 1, self.config.hidden_size), dtype=np.float32)
        self._start(session, np.dtype(kv_dtype).type)

    def reset(self, slots: int, capacity: int) -> None:
        """See `Engine.reset`."""
        check_capacity(self.config, capacity)
        self._refresh()
        self._plans.clear()
        self._forget_states()
        self._caches.reset(slots, capacity)

    def open_slot(self) -> int:
        """See `Engine.open_slot`."""
        self._refresh()
        self._plans.clear()  # a slot that was closed may come back at another index
        self._forget_states()
        return self._caches.open()

    def close_slot(self, slot: int) -> None:
        """See `Engine.close_slot`."""
        self._caches.close(slot)

    def length(self, slot: int) -> int:
        """See `Engine.length`."""
        return int(self._caches.lengths[self._caches.index(slot)])

    def truncate(self, slot: int, length: int) -> None:
        """See `Engine.truncate`."""
        self._caches.truncate(slot, length)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """See `Engine.copy_prefix`."""
        self._forget_states()
        self._caches.copy_prefix(source, target, length)

    @property
    def draft_acceptance(self) -> float | None:
        """See `Engine.draft_acceptance`."""
        return None if self._draft is None else self._export.draft_acceptance

    @property
    def kv_bytes(self) -> int:
        """See `Engine.kv_bytes`."""
        return self._caches.nbytes

    def prefill(self, slot: int, tokens: Sequence[int]) -> Floats:
        """See `Engine.prefill`."""
        self._refresh()
        check_ids(self.config, tokens)
        total = self.length(slot) + len(tokens)
        check_length(total, self._caches.limit)
        self._caches.ensure(total)
        logits = np.empty((1, self.config.vocab_size), dtype=np.float32)
        for start in range(0, len(tokens), PREFILL_CHUNK):
            chunk = tokens[start : start + PREFILL_CHUNK]
            self._append(slot, chunk, np.array([len(chunk) - 1]), logits)
        last: Floats = logits[0]
        return last

    def extend(self, slot: int, tokens: Sequence[int], *, lent: bool = False) -> Floats:
        """See `Engine.extend`."""
        self._refresh()
        check_ids(self.config, tokens)
        total = self.length(slot) + len(tokens)
        check_length(total, self._caches.limit)
        return self._all_logits(slot, tokens, self._lent_rows(len(tokens)) if lent else None)

    def decode(self, slots: Sequence[int], tokens: Sequence[int], *, lent: bool = False) -> Floats:
        """See `Engine.decode`."""
        binding, order = self._prepare(slots, tokens)
        with run_errors():
            logits = binding.run()
        if not lent or len(slots) > 1:
            logits = logits[order]  # a copy, in the caller's order
        if self._draft is not None and len(slots) == 1:
            self._draft.hold(slots[0], self.length(slots[0]), self._step_states[0])
        return logits

    @property
    def draws_tokens(self) -> bool:
        """See `Engine.draws_tokens`: on a device. In host memory NumPy chooses as fast."""
        return self._sampler is not None

    def decode_drawn(
        self, slots: Sequence[int], tokens: Sequence[int], draws: Sequence[Draw | None]
    ) -> Sequence[int | Floats]:
        """See `Engine.decode_drawn`."""
        binding, order = self._prepare(slots, tokens)
        sampler = self._sampler
        suited = [draw is not None and sampler is not None and sampler.suits(draw) for draw in draws]
        if sampler is None or not any(suited):
            with run_errors():
                return list(binding.run()[order])
        ordered = [draws[slot] or GREEDY for slot in np.argsort(order)]  # in the order of the binding
        with run_errors():
            chosen, complete = binding.run_drawn(sampler, ordered)
        drawn = [suits and complete[at] for suits, at in zip(suited, order, strict=True)]
        if all(drawn):
            return [chosen[at] for at in order]
        logits = binding.logits.read()[:, 0]
        return [chosen[at] if done else logits[at].copy() for done, at in zip(drawn, order, strict=True)]

    def _prepare(
        self, slots: Sequence[int], tokens: Sequence[int]
    ) -> tuple[DecodeBinding, npt.NDArray[np.intp]]:
        """The binding over `slots`, with capacity and `tokens` in it, and each slot's offset in it."""
        self._refresh()
        binding, order = self._plan(tuple(slots))
        check_ids(self.config, tokens)
        total = int(binding.lengths.max()) + 1
        if total > self._caches.capacity:
            check_length(total, self._caches.limit)
            self._caches.ensure(total)
            self._refresh()
            binding, order = self._plan(tuple(slots))
        check_length(total, self._caches.limit)
        binding.ids[order, 0] = tokens
        return binding, order

    def draft(self, slot: int, token: int) -> DraftScores | None:
        """See `Engine.draft`."""
        if self._draft is None:
            return None
        check_ids(self.config, [token])
        return self._draft.guess(slot, self.length(slot), token)

    def logits(self, tokens: Sequence[int]) -> Floats:
        """See `Engine.logits`."""
        check_ids(self.config, tokens)
        check_length(len(tokens), self.config.max_seq_len)
        slot = self.open_slot()
        try:
            return self._all_logits(slot, tokens)
        finally:
            self.close_slot(slot)

    def scoring(self) -> OnnxScoring:
        """See `Engine.scoring`."""
        in_pairs = self.precision in ("int8", "int4")
        return OnnxScoring(self._session, self._flavour, self.config, self._caches.dtype, in_pairs=in_pairs)

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        facts = self._export.facts
        return {
            "file_bytes": self._export.file_bytes,
            "bits_per_byte": facts.get("bits_per_byte"),
            "target": facts.get("target", "cpu"),
            **_gpu_name(self.device),
            **self._session.facts,
        }

    def close(self) -> None:
        """See `Engine.close`."""
        if self._provider is not None:
            self._forget_bindings()
        self._provider = None
        self._caches.release()

    def _open(self, provider: Provider, request: SessionRequest, kv_dtype: str) -> ProviderSession:
        """A session whose graph is what the manifest says.

        Raises E_MODEL_INVALID, E_MEMORY, E_PROVIDER where the provider does not start or would not run the
        whole graph.
        """
        session = provider.open(request)
        signature = self._flavour.signature(self.config, kv_dtype)
        states = self._export.draft_graph is not None
        check_signature(session.session, self.config, signature, request.graph, states=states)
        return session

    def _start(self, session: ProviderSession, dtype: type[np.generic]) -> None:
        """Caches and bindings over a session, warmed up where its first run has to be checked."""
        self._provider = session
        memory = session.memory
        self._caches = KVCaches(
            self.config,
            memory,
            dtype,
            full_context=session.full_context_caches,
            idle_bytes=_IDLE_BYTES_CAPTURED if session.captures else None,
        )
        vocab_size = self.config.vocab_size
        self._sampler = (
            DeviceSampler(memory, vocab_size, min(self.tokenizer.vocab_size, vocab_size))
            if isinstance(memory, DeviceMemory)
            else None
        )
        self._decodes = {}
        self._planned_version = -1
        self._forget_bindings()
        if session.check_first_run is None:
            return
        try:
            self._warm_up(session.check_first_run)
        except BaseException as error:
            self.close()
            other = session.fallback(error) if session.fallback is not None else None
            if other is None:
                raise
        else:
            return
        self._start(other, dtype)

    def _warm_up(self, check: Callable[[], None]) -> None:
        """Run every kind of call once, so that what would fail or cost time later does so now.

        Kernels are loaded (onnxruntime#21541) and steps captured: a single token, chunks up to a whole one, a
        choice of each kind. check: called once, after the first run. Where choosing tokens on the device
        fails, the host chooses them from then on.
        """
        slot = self.open_slot()
        self.prefill(slot, [0])
        check()
        for tokens in _WARM_UP_CHUNKS:
            self.truncate(slot, 0)
            self.prefill(slot, [0] * min(tokens, self.config.max_seq_len - 1))
        self.truncate(slot, 1)
        self.decode([slot], [0])
        drawn = Draw(temperature=1.0, top_k=1, top_p=1.0, min_p=0.0, uniform=0.5)
        for draw in (GREEDY, drawn) if self.draws_tokens else ():
            self.truncate(slot, 1)
            try:
                self.decode_drawn([slot], [0], [draw])
            except Exception as error:
                cause = " ".join(str(error.__cause__ or error).split())[:160]
                _log.warning("A placa não escolhe os tokens (%s): o processador os escolhe.", cause)
                self._sampler = None
                break
        self.close_slot(slot)

    def _lent_rows(self, rows: int) -> Floats | None:
        """(rows, V) for logits that their reader does not keep; None where they are too many to be kept here.

        A new array for each draft of an 85m took 0.18 ms, mostly page faults: a twelfth of an int4 step.
        """
        if rows > _MOST_LENT:
            return None
        if len(self._lent) < rows:
            self._lent = np.empty((rows, self.config.vocab_size), dtype=np.float32)
        return self._lent[:rows]

    def _all_logits(self, slot: int, tokens: Sequence[int], logits: Floats | None = None) -> Floats:
        """Append tokens to a slot, chunk by chunk; (T, V) logits, in the array given or in a new one."""
        self._caches.ensure(self.length(slot) + len(tokens))
        if logits is None:
            logits = np.empty((len(tokens), self.config.vocab_size), dtype=np.float32)
        for start in range(0, len(tokens), PREFILL_CHUNK):
            chunk = tokens[start : start + PREFILL_CHUNK]
            self._append(slot, chunk, np.arange(len(chunk)), logits[start : start + len(chunk)])
        return logits

    def _append(
        self, slot: int, tokens: Sequence[int], wanted: npt.NDArray[np.int64], logits: Floats
    ) -> None:
        """Run one chunk on a slot that has the capacity; the logits at `wanted` (K,) go to logits (K, V)."""
        self._refresh()
        index = self._caches.index(slot)
        binding = self._prefills.get(index)
        if binding is None:
            binding = self._prefills[index] = self._flavour.prefill(self._session, self._caches, index)
        states = None
        if self._draft is not None and isinstance(binding, Binding):
            states = np.empty((1, len(wanted), self.config.hidden_size), dtype=np.float32)
            binding.bind_states(states)
        with run_errors():
            binding.run(np.array(tokens, dtype=np.int64), wanted, logits)
        if self._draft is not None and states is not None:
            self._draft.hold(slot, self.length(slot), states[0])

    def _plan(self, slots: tuple[int, ...]) -> tuple[DecodeBinding, npt.NDArray[np.intp]]:
        """The binding that covers `slots`, and each slot's offset in it; moves slots together if need be."""
        plan = self._plans.get(slots)
        if plan is None:
            first, order = self._caches.gather(slots)
            self._refresh()
            binding = self._decodes.get((first, len(slots)))
            if binding is None:
                binding = self._flavour.decode(
                    self._session, self._caches, first, len(slots), self.config.vocab_size
                )
                if self._draft is not None and len(slots) == 1 and isinstance(binding, Binding):
                    binding.bind_states(self._step_states)
                self._decodes[first, len(slots)] = binding
            plan = self._plans[slots] = (binding, np.array(order))
        return plan

    @property
    def _session(self) -> ProviderSession:
        """Raises E_CLOSED after `close`."""
        if self._provider is None:
            raise closed_error()
        return self._provider

    def _refresh(self) -> None:
        """Forget the bindings of buffers that were replaced, and the plans of slots that moved.

        Raises E_CLOSED after `close`.
        """
        if self._provider is None:
            raise closed_error()
        if self._caches.version != self._planned_version:
            if self._caches.allocation != self._bound_allocation:
                self._forget_bindings()
            self._plans.clear()
            self._planned_version = self._caches.version

    def _forget_states(self) -> None:
        """A slot's number may mean another text from now on."""
        if self._draft is not None:
            self._draft.forget()

    def _forget_bindings(self) -> None:
        for binding in self._decodes.values():
            binding.release()
        self._prefills: dict[int, PrefillBinding] = {}
        self._decodes = {}
        self._plans: dict[tuple[int, ...], tuple[DecodeBinding, npt.NDArray[np.intp]]] = {}
        self._bound_allocation, self._planned_version = self._caches.allocation, self._caches.version


def _gpu_name(device: str) -> dict[str, str | None]:
    """The name of the GPU that is used, where one is."""
    if device != "cuda":
        return {}
    from ptbr_slm.runtime.engines.onnx.providers.cuda import card_name

    return {"device_name": card_name()}
