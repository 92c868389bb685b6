"""Memory of one forward and backward pass, moment by moment: by calculation, and measured on this computer.

The calculation counts from one list, `PassMemory.layer`: what autograd keeps of each operation of
`ptbr_slm.model.Block`. tests/train/planning/test_memory.py compares it with the measurement.

Importing this module does not import torch. Shapes: B = batch_size, T = seq_len, C = hidden_size,
I = intermediate_size, V = vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptbr_slm.config import ModelConfig
from ptbr_slm.loss_chunks import chunk_rows
from ptbr_slm.train.planning.parameters import Adapters, layer_matrices

if TYPE_CHECKING:
    import torch

    from ptbr_slm.model import Llama

FP32, INDEX = 4, 8


@dataclass(frozen=True, slots=True)
class Instant:
    """Bytes at one moment of a step, above weights, gradients and optimizer state."""

    name: str
    copies: int
    activations: int
    logits: int
    workspace: int

    @property
    def total(self) -> int:
        """The sum of the four parts."""
        return self.copies + self.activations + self.logits + self.workspace


@dataclass(frozen=True, slots=True)
class PassMemory:
    """The memory of one forward and backward pass, moment by moment."""

    model: ModelConfig
    batch_size: int
    seq_len: int
    every: int
    """`Llama.checkpoint_every`."""
    half: int
    """Bytes of a matrix product's inputs: 4 in fp32, 2 under autocast."""
    device: str
    chunked: bool
    """Whether the loss makes its logits in chunks."""
    document_mask: bool = False
    """Whether attention gets a mask: one for all layers (`ptbr_slm.model.document_mask`)."""
    adapters: Adapters | None = None
    """What is trained where the weights are frozen: these get no gradients then."""

    @property
    def tokens(self) -> int:
        """Of a micro-batch: B * T."""
        return self.batch_size * self.seq_len

    @property
    def head(self) -> int:
        """Weights of the head (and of the embedding)."""
        return self.model.vocab_size * self.model.hidden_size

    @property
    def frozen(self) -> bool:
        """Whether only adapters are trained."""
        return self.adapters is not None

    def norm(self) -> int:
        """Kept by one RMSNorm, a token: the stream, 1/rms, and on the CPU, for the gains' gradient, the
        normalised copy.
        """
        copies = 2 if self.device == "cpu" and not self.frozen else 1
        return FP32 * (self.model.hidden_size * copies + 1)

    def head_norms(self) -> int:
        """Kept by QK-norm, a token: its input (in fp32 a view of qkv, kept whole), 1/rms of each head,
        and the normalised copy that the gains multiply, to which a GPU's autocast gives fp32.
        """
        if not self.model.qk_norm:
            return 0
        normed = self.model.q_size + self.model.kv_size
        given = normed if self.half < FP32 else normed + self.model.kv_size
        copy = 0 if self.frozen else (self.half if self.device == "cpu" else FP32) * normed
        return FP32 * (given + self.model.num_heads + self.model.num_kv_heads) + copy

    def layer(self) -> int:
        """Kept by one decoder layer, its input included: a line an operation of `Block`."""
        width, queries, keys = self.model.hidden_size, self.model.q_size, self.model.kv_size
        inner, half = self.model.intermediate_size, self.half
        a_token = (
            self.norm()  # attention_norm
            + half * width  # qkv's input
            + self.head_norms()  # of queries and keys, where the model has them
            + half * (queries + keys)  # rotated queries and keys, one tensor
            + half * 2 * queries  # keys and values expanded to every query head
            + half * queries  # attention's output = out's input
            + FP32 * self.model.num_heads  # log-sum-exp of each query's scores
            + self.norm()  # feed_forward_norm
            + half * width  # gate_up's input
            + half * 2 * inner  # gate and up, one tensor
            + half * inner  # silu(gate)
            + half * inner  # silu(gate) * up = down's input
            + half * (0 if self.adapters is None else self.adapters.low())  # between A and B
        )
        rope = half * self.seq_len * self.model.head_dim if half < FP32 else 0  # cos, sin in half precision
        return self.tokens * a_token + rope

    def held(self) -> list[int]:
        """Kept of each layer at the end of the forward pass: of a recomputed one its input only."""
        full, stream = self.layer(), FP32 * self.tokens * self.model.hidden_size
        return [stream if self._recomputed(index) else full for index in range(self.model.num_layers)]

    def ends(self) -> int:
        """Kept outside the layers: token ids and targets, the mask, the final norm, the head's input."""
        head_input = FP32 if self.chunked else self.half
        a_token = 2 * INDEX + self.norm() + head_input * self.model.hidden_size
        return self.tokens * a_token + self.mask()

    def mask(self) -> int:
        """The mask (B, 1, T, T), and cos and sin (B, T, 1, D/2), in the format of the scores."""
        if not self.document_mask:
            return 0
        return self.half * self.tokens * (self.seq_len + self.model.head_dim)

    def copies(self, layers: int, *, head: bool) -> int:
        """Half-precision copies of the matrices of so many layers, adapters among them, and of the head."""
        if self.half == FP32:
            return 0
        layer = layer_matrices(self.model)
        if self.adapters is not None:
            layer += self.adapters.layer(self.model)
        return self.half * (layers * layer + (self.head if head else 0))

    def saved(self) -> int:
        """Kept when the loss is known: layers, ends, copies of matrices not recomputed, log-probabilities."""
        kept = sum(not self._recomputed(index) for index in range(self.model.num_layers))
        logits = 0 if self.chunked else FP32 * self.tokens * self.model.vocab_size
        return sum(self.held()) + self.ends() + self.copies(kept, head=not self.chunked) + logits

    def instants(self) -> list[Instant]:
        """The candidates for the peak."""
        return [
            *(self._chunked_loss() if self.chunked else self._plain_loss()),
            *(self._layer_instant(index) for index in range(self.model.num_layers)),
            Instant("embedding", 0, 0, 0, self._embedding_gradients()),
        ]

    def _plain_loss(self) -> list[Instant]:
        """All logits at once."""
        everything = sum(self.held()) + self.ends()
        kept = sum(not self._recomputed(index) for index in range(self.model.num_layers))
        logit = self.tokens * self.model.vocab_size
        backward = 3 * FP32 * logit  # log-probabilities, their gradient, the logits' gradient
        gradient = self.half * self.head  # of the head's weight, cast to fp32 next
        cast = FP32 * self.head if self.half < FP32 else 0
        if self.frozen:
            gradient = cast = 0
        return [
            Instant("loss", self.copies(kept, head=True), everything, backward, 0),
            Instant("loss", self.copies(kept, head=True), everything, self.half * logit, gradient),
            Instant("loss", self.copies(kept, head=False), everything, 0, gradient + cast),
        ]

    def _chunked_loss(self) -> list[Instant]:
        """A chunk's logits, and the gradients of the head and of its input, which grow chunk by chunk."""
        kept = sum(not self._recomputed(index) for index in range(self.model.num_layers))
        rows = chunk_rows(self.tokens, self.model.vocab_size, self.device)
        below = self.half if self.half < FP32 else 0  # of logits and of their gradient, beside the fp32 ones
        logits = rows * self.model.vocab_size * (FP32 + below)
        gradients = FP32 * (self.head + self.tokens * self.model.hidden_size)
        everything = sum(self.held()) + self.ends()
        if self.adapters is not None:
            head = FP32 * self.head if self.adapters.rows and not below else 0  # with the trained rows in it
            to_hidden = FP32 * self.tokens * self.model.hidden_size
            return [Instant("loss", self.copies(kept, head=True), everything, logits, head + to_hidden)]
        part = below * self.head  # a chunk's share of the head's gradient, before it is added in fp32
        if below and rows < self.tokens and self.device == "cpu":
            part += FP32 * self.head  # which the CPU's addition of two formats casts into a new tensor first
        return [Instant("loss", self.copies(kept, head=True), everything, logits, gradients + part)]

    def _layer_instant(self, index: int) -> Instant:
        """Layer `index` goes backwards: the layers above are done, and it is recomputed if need be.

        Worst at SwiGLU, with the stream's gradient and those of gate and up, or with few tokens one product
        later, at the weight gradient of gate_up. The head's gradient waits for the embedding's where they are
        tied.
        """
        inner, cast = self.model.intermediate_size, self.half if self.half < FP32 else 0
        live = sum(not self._recomputed(below) for below in range(index)) + 1
        activations = 2 * INDEX * self.tokens + self.mask() + sum(self.held()[:index]) + self.layer()
        done = self.half * self.tokens * 4 * inner  # gate, up, silu(gate) and the product, freed by then
        weight = (FP32 + cast) * 2 * inner * self.model.hidden_size
        flowing = self.tokens * (FP32 * self.model.hidden_size + self.half * 2 * inner)
        if self.frozen:
            return Instant("layers", self.copies(live, head=False), activations, 0, flowing)
        waiting = FP32 * self.head if self.model.tie_embeddings else 0
        workspace = flowing + waiting + max(0, weight - done)
        return Instant("layers", self.copies(live, head=False), activations, 0, workspace)

    def _embedding_gradients(self) -> int:
        """The embedding's gradient, unless it is frozen. Tied, under the plain loss, also the head's, and in
        fp32 their sum, which is a new tensor; under the chunked loss both are one.
        """
        if self.frozen:
            return 0
        parts = 1 if self.chunked or not self.model.tie_embeddings else 3 if self.half == FP32 else 2
        return parts * FP32 * self.head

    def _recomputed(self, index: int) -> bool:
        return self.every > 0 and index % self.every == 0


def measured_saved_bytes(llama: Llama, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes of the distinct storages that autograd packs, parameters and buffers left out.

    The measurement of `PassMemory.saved`; for tests and benchmarks/planner.py.
    """
    import torch

    owned = {t.untyped_storage().data_ptr() for t in [*llama.parameters(), *llama.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in owned:
            kept[pointer] = tensor.untyped_storage().nbytes()
        # Detached: a hook that refers to the graph that refers to it is a reference cycle.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(kept.values())


def measured_peak_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """The most that a second micro-batch adds to weights and gradients, in PyTorch's allocator.

    The measurement of the largest of `PassMemory.instants`; for tests and benchmarks/planner.py.
    """
    import torch

    forward().backward()  # type: ignore[no-untyped-call]
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        forward().backward()  # type: ignore[no-untyped-call]
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    running = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        running += event.nbytes()
        peak = max(peak, running)
    return peak
