"""A session on a provider, with the memory that its tensors lie in: what a binding is made over.

ONNX Runtime's Python package has no types; the protocols here name what is used of it (onnxruntime 1.26 to
1.31).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.runtime.engines.onnx.providers.memory import (
    OUT_OF_MEMORY,
    HostMemory,
    InputBuffer,
    Memory,
    OutputBuffer,
)
from ptbr_slm.text import utf8_folder

ERROR_SEVERITY = 3
"""ORT's log level: warnings about our own graphs are of no use to whoever reads stderr."""

MAX_CUDA_GRAPHS = 512
"""Graphs of one session: some for each range of slots and each size of the buffers."""

_NOT_CAPTURED = "-1"
"""The CUDA provider's id for a run that is neither captured nor replayed."""

_log = logging.getLogger(__name__)


class RunOptions(Protocol):
    """Of `onnxruntime.RunOptions`."""

    def add_run_config_entry(self, key: str, value: str, /) -> None:
        """One setting of a run."""


class IOBinding(Protocol):
    """Of `onnxruntime.IOBinding`: addresses of inputs and outputs."""

    def bind_input(
        self, name: str, device: str, device_id: int, dtype: Any, shape: Sequence[int], pointer: int, /
    ) -> None:
        """Read an input at an address."""

    def bind_output(
        self, name: str, device: str, device_id: int, dtype: Any, shape: Sequence[int], pointer: int, /
    ) -> None:
        """Write an output to an address."""

    def synchronize_inputs(self) -> None:
        """Wait for the copies of inputs that were bound from the host."""


class NodeArg(Protocol):
    """Of `onnxruntime.NodeArg`: an input or output of a graph."""

    name: str
    type: str
    shape: Sequence[int | str | None]


class Session(Protocol):
    """Of `onnxruntime.InferenceSession`."""

    def get_inputs(self) -> Sequence[NodeArg]:
        """The graph's inputs."""

    def get_outputs(self) -> Sequence[NodeArg]:
        """The graph's outputs."""

    def io_binding(self) -> IOBinding:
        """A new binding."""

    def run_with_iobinding(self, io: IOBinding, options: RunOptions | None = None, /) -> None:
        """Run once over a binding."""


class ShapeProfile(Protocol):
    """The shapes that a session was built for."""

    @property
    def max_slots(self) -> int:
        """Slots that one decode call takes at most."""

    def require(self, slots: int, new: int, wanted: int) -> None:
        """Raise E_PROVIDER for a call out of the profile: slots, new tokens a slot, logits wanted a slot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionRequest:
    """What a provider needs to know to open a graph."""

    graph: Path
    config: ModelConfig
    precision: str
    threads: int | None = None
    spinning: bool | None = None
    cuda_graph: bool | None = None
    """Whether decode steps become CUDA graphs; None takes PTBR_SLM_CUDA_GRAPH (0, 1), or yes."""


@dataclass(frozen=True, slots=True)
class ProviderSession:
    """A session with its memory, as a provider's opener returns it."""

    session: Session
    memory: Memory = field(default_factory=HostMemory)
    captures: bool = False
    """Whether decode steps are captured as CUDA graphs and replayed."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For `Engine.describe`: provider, cuda_graph, ..."""
    check_first_run: Callable[[], None] | None = None
    """To be called once, after the first run: raises E_PROVIDER where that did not run as it should."""
    fallback: Callable[[BaseException], ProviderSession | None] | None = None
    """Another session over the same graph, to be tried after this error of the first runs; None for none."""
    prefill: ProviderSession | None = None
    """Another session over the same graph for many tokens at once; None where one session does all."""
    profile: ShapeProfile | None = None
    """The shapes that a call may have; None for any."""
    _graph_ids: CudaGraphIds = field(default_factory=lambda: CudaGraphIds())
    _buffers: dict[tuple[int, int], StepBuffers] = field(default_factory=dict)

    @property
    def full_context_caches(self) -> bool:
        """Whether the graph fixes its caches' capacity to the whole context, as a number in their shape."""
        past = next(value for value in self.session.get_inputs() if value.name.startswith("past_"))
        return isinstance(past.shape[2], int)

    def step_buffers(self, count: int, vocab_size: int) -> StepBuffers:
        """Those of every decode step of `count` slots."""
        key = count, vocab_size
        if key not in self._buffers:
            self._buffers[key] = StepBuffers(self.memory, count, vocab_size)
        return self._buffers[key]

    def uncaptured_options(self) -> RunOptions | None:
        """Options of a run whose shapes vary; None where nothing is captured anyway."""
        return _run_options(_NOT_CAPTURED) if self.captures else None

    def captured_options(self) -> tuple[RunOptions | None, int]:
        """Options of a step that is captured under an id of its own, and that id; (None, 0) as above.

        See `CudaGraphIds.next` for when there are many.
        """
        return self._graph_ids.next() if self.captures else (None, 0)

    def release_graph(self, graph_id: int) -> None:
        """Forget a captured graph, whose buffers are about to go. onnxruntime 1.26 has no call for it."""
        if graph_id and hasattr(self.session, "release_captured_graph"):
            self.session.release_captured_graph(graph_id)


class StepBuffers:
    """What a decode step of `count` slots reads and leaves, wherever its slots lie in the KV caches.

    One step runs at a time, so all ranges of as many slots share these: with logits of their own (128 KB a
    slot) the ranges of up to 16 of 32 slots would take 383 MB. They outlive the caches' buffers, and so does
    what was captured over them.
    """

    def __init__(self, memory: Memory, count: int, vocab_size: int) -> None:
        self.ids: npt.NDArray[np.int64] = np.zeros((count, 1), dtype=np.int64)
        """(count, 1), the tokens to run."""
        self.ids_input: InputBuffer = memory.input_buffer(self.ids)
        self._index = np.zeros((count, 1), dtype=np.int64)
        self.index_input: InputBuffer = memory.input_buffer(self._index)
        """(count, 1), the position in the step whose logits are asked for: the first."""
        self.index_input.upload()
        self.logits: OutputBuffer = memory.output_buffer((count, 1, vocab_size), np.float32)


class CudaGraphIds:
    """Ids of the CUDA graphs that one session captures, and a limit to their number.

    ONNX Runtime's CUDA provider (1.31.1) stores what it captured until the session ends:
    `release_captured_graph` does nothing there. A server whose buffers come and go would fill the GPU's
    memory with graphs of buffers that are gone.
    """

    def __init__(self) -> None:
        self._made = 0

    def next(self) -> tuple[RunOptions, int]:
        """Options of runs that are captured under an id of their own, and the id.

        Once there are `MAX_CUDA_GRAPHS`, those of a run that is not captured, and 0.
        """
        if self._made >= MAX_CUDA_GRAPHS:
            if self._made == MAX_CUDA_GRAPHS:
                self._made += 1
                _log.warning(
                    "Já há %d CUDA graphs gravados: os passos novos rodam sem gravação, um pouco mais "
                    "devagar. Abra o modelo de novo para recomeçar.",
                    MAX_CUDA_GRAPHS,
                )
            return _run_options(_NOT_CAPTURED), 0
        self._made += 1
        return _run_options(str(self._made)), self._made


def _run_options(graph_id: str) -> RunOptions:
    options: RunOptions = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph_id)
    return options


def new_session(graph: Path, options: Any, providers: Sequence[Any]) -> Any:
    """An `onnxruntime.InferenceSession`. Raises E_MODEL_INVALID or E_MEMORY."""
    try:
        # ORT's own fallback would print to stdout and go on with another provider.
        with utf8_folder(graph.parent) as folder:
            path = str(folder / graph.name)
            return ort.InferenceSession(path, options, providers=list(providers), enable_fallback=0)
    except Exception as error:  # ORT's exceptions share no base class but Exception
        raise load_error(error, graph) from error


def load_error(error: Exception, graph: Path) -> SlmError:
    """What ORT raised while it opened `graph`, as E_MEMORY or E_MODEL_INVALID."""
    detail = str(error).partition("failed:")[2] or str(error)  # "Load model from PATH failed:..."
    if isinstance(error, MemoryError) or any(word in detail for word in OUT_OF_MEMORY):
        return SlmError(
            "E_MEMORY",
            "a memória não foi suficiente para abrir o modelo.",
            where=graph,
            hint="Feche outros programas, ou exporte com --precision int8 ou int4.",
        )
    return SlmError(
        "E_MODEL_INVALID",
        f"o ONNX Runtime não abriu o modelo ({' '.join(detail.split())[:240]}).",
        where=graph,
        hint="Use uma cópia íntegra do export, ou exporte de novo:  ptbr-slm export MODELO -o PASTA",
    )
