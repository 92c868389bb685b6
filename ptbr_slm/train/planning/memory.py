"""How many bytes a training step needs, by calculation: the planner behind `info` and `train --dry-run`.

Activations are counted from one list, `_Step.layer`: what autograd keeps of each operation of
`ptbr_slm.model.Block`. Measured (tests/train/planning/test_memory.py), in fp32 and in bf16 under the
CPU's autocast: the saved tensors with hooks (within 1 %), and the peak of forward plus backward in PyTorch's
allocator (within 10 %; 2 % from 512 tokens on). Computed, not measured: everything on a GPU. There the list is the same
but for RMSNorm, whose fused CUDA kernel keeps no normalised copy; fp16 costs what bf16 does; attention is
taken to run in the memory-efficient kernel, which keeps nothing of size T * T; fragmentation is not counted.

No torch here. Shapes: B = batch_size, T = seq_len, C = hidden_size, I = intermediate_size, V = vocab_size.
"""

from __future__ import annotations

from dataclasses import dataclass

from ptbr_slm.config import ModelConfig
from ptbr_slm.errors import SlmError
from ptbr_slm.loss_chunks import chunk_rows
from ptbr_slm.train.planning.optimizer_memory import STATES, buffer_bytes, layer_matrices, state_bytes

GIB = 1 << 30

T4_BYTES = int(14.56 * GIB)
"""What torch sees of a T4: the total capacity in its out-of-memory message (Zheng-Chong/CatVTON#133)."""
CUDA_CONTEXT_BYTES = int(0.56 * GIB)
"""CUDA context and library workspaces: of a T4's 14.56 GiB, 14.0 are left to plan with (assumed)."""

FP32, INDEX = 4, 8
_HALF = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Precision -> bytes of a matrix product's inputs under autocast."""
_OPTIMIZERS = dict.fromkeys(STATES, 0)
_PARALLEL = {"ddp": 0, "fsdp": 1}
_LOSSES = {"chunked": 0, "plain": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes on the device at the peak instant of a training step; the byte fields add up to `total`.

    Of a step from the second micro-batch of the second step on, when gradients and optimizer state exist.
    """

    weights: int
    """fp32 master weights; a tied embedding counts once."""
    autocast_cache: int
    """Half-precision copies of matrices alive at that instant, those of recomputed layers not; 0 in fp32."""
    gradients: int
    """fp32, as large as the weights; kept between the micro-batches of a step."""
    optimizer: int
    """The optimizer's state, and the buffers that Muon updates with."""
    activations: int
    """What autograd holds of the layers, the recomputed ones included."""
    logits: int
    """The loss: logits and their gradients; of one chunk where it is chunked."""
    workspace: int
    """Gradients on their way: of a layer's insides, of the head until it is added to the embedding's."""
    communication: int
    """What FSDP gathers around the layer at work. DDP adds nothing: its gradients are its buckets."""
    context: int
    """CUDA context; 0 on the CPU."""
    peak: str
    """Which instant it is: `loss`, `layers` or `embedding`."""

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        held = self.weights + self.autocast_cache + self.gradients + self.optimizer
        return held + self.activations + self.logits + self.workspace + self.communication + self.context


def fits_t4(estimate: MemoryEstimate) -> bool:
    """Whether it fits one T4: 14.0 GiB besides the CUDA context."""
    return estimate.total <= T4_BYTES


def estimate(
    model: ModelConfig,
    *,
    batch_size: int,
    seq_len: int,
    checkpoint_every: int,
    precision: str,
    optimizer: str = "adamw",
    device: str = "cuda",
    ranks: int = 1,
    parallel: str = "ddp",
    loss: str = "chunked",
) -> MemoryEstimate:
    """Memory on one device of a training step with micro-batches of `batch_size` x `seq_len` tokens.

    checkpoint_every: 0 keeps all activations; k recomputes layers 0, k, 2k, ... (`Llama.checkpoint_every`).
    precision: fp32, or fp16/bf16 for autocast over fp32 weights. optimizer: adamw, adamw8bit or muon.
    device: `cuda` or `cpu`. ranks, parallel: how many devices share the work, `ddp` (each holds all) or
    `fsdp` (each holds its share of weights, gradients and state). loss: `chunked` or `plain`
    (`ptbr_slm.loss`). Raises E_CONFIG for any other value.
    """
    _check(batch_size=batch_size, seq_len=seq_len, checkpoint_every=checkpoint_every, ranks=ranks)
    half = _choice("precision", precision, _HALF)
    _choice("optimizer", optimizer, _OPTIMIZERS)
    shards = ranks if _choice("parallel", parallel, _PARALLEL) else 1
    chunked = _choice("loss", loss, _LOSSES) == 0
    step = _Step(model, batch_size, seq_len, checkpoint_every, half, device, chunked)
    worst = max(step.instants(), key=lambda instant: instant.total)
    buffers = buffer_bytes(model, optimizer, precision=precision, ranks=ranks)
    return MemoryEstimate(
        weights=-(-FP32 * model.num_parameters // shards),
        autocast_cache=worst.copies,
        gradients=-(-FP32 * model.num_parameters // shards),
        optimizer=-(-state_bytes(model, optimizer) // shards) + buffers,
        activations=worst.activations,
        logits=worst.logits,
        workspace=worst.workspace,
        communication=_gathered(model) if shards > 1 else 0,
        context=CUDA_CONTEXT_BYTES if device == "cuda" else 0,
        peak=worst.name,
    )


def saved_tensors(
    model: ModelConfig,
    *,
    batch_size: int,
    seq_len: int,
    checkpoint_every: int,
    precision: str,
    device: str,
    loss: str = "chunked",
) -> int:
    """Bytes that autograd holds once the loss is known, weights left out: what saved-tensor hooks count.

    Of the chunked loss without the gradients that it may have formed, which hooks do not see.
    """
    half, chunked = _choice("precision", precision, _HALF), _choice("loss", loss, _LOSSES) == 0
    return _Step(model, batch_size, seq_len, checkpoint_every, half, device, chunked).saved()


def _gathered(model: ModelConfig) -> int:
    """What FSDP2 holds whole, in fp32: the layer at work, the one fetched ahead, a layer's gradient on its
    way to the shards, and the root group (embedding, head, last norm), whole from forward to backward.
    """
    root = model.num_parameters - model.num_layers * model.layer_parameters
    return FP32 * (3 * model.layer_parameters + root)


@dataclass(frozen=True, slots=True)
class _Instant:
    """Bytes at one moment of a step, above weights, gradients and optimizer state."""

    name: str
    copies: int
    activations: int
    logits: int
    workspace: int

    @property
    def total(self) -> int:
        return self.copies + self.activations + self.logits + self.workspace


@dataclass(frozen=True, slots=True)
class _Step:
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

    @property
    def tokens(self) -> int:
        return self.batch_size * self.seq_len

    @property
    def head(self) -> int:
        """Weights of the head (and of the embedding)."""
        return self.model.vocab_size * self.model.hidden_size

    def norm(self) -> int:
        """Kept by one RMSNorm, a token: the stream, 1/rms, and on the CPU the normalised copy."""
        return FP32 * (self.model.hidden_size * (2 if self.device == "cpu" else 1) + 1)

    def head_norms(self) -> int:
        """Kept by QK-norm, a token: its input (in fp32 a view of qkv, kept whole), 1/rms of each head,
        and the normalised copy that the gains multiply, to which a GPU's autocast gives fp32.
        """
        if not self.model.qk_norm:
            return 0
        normed = self.model.q_size + self.model.kv_size
        given = normed if self.half < FP32 else normed + self.model.kv_size
        copy = (self.half if self.device == "cpu" else FP32) * normed
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
        )
        rope = half * self.seq_len * self.model.head_dim if half < FP32 else 0  # cos, sin in half precision
        return self.tokens * a_token + rope

    def held(self) -> list[int]:
        """Kept of each layer at the end of the forward pass: of a recomputed one its input only."""
        full, stream = self.layer(), FP32 * self.tokens * self.model.hidden_size
        return [stream if self._recomputed(index) else full for index in range(self.model.num_layers)]

    def ends(self) -> int:
        """Kept outside the layers: token ids and targets, the final norm, the head's input."""
        head_input = FP32 if self.chunked else self.half
        return self.tokens * (2 * INDEX + self.norm() + head_input * self.model.hidden_size)

    def copies(self, layers: int, *, head: bool) -> int:
        """Half-precision copies of the matrices of so many layers, and of the head."""
        if self.half == FP32:
            return 0
        return self.half * (layers * layer_matrices(self.model) + (self.head if head else 0))

    def saved(self) -> int:
        """Kept when the loss is known: layers, ends, copies of matrices not recomputed, log-probabilities."""
        kept = sum(not self._recomputed(index) for index in range(self.model.num_layers))
        logits = 0 if self.chunked else FP32 * self.tokens * self.model.vocab_size
        return sum(self.held()) + self.ends() + self.copies(kept, head=not self.chunked) + logits

    def instants(self) -> list[_Instant]:
        """The candidates for the peak."""
        return [
            *(self._chunked_loss() if self.chunked else self._plain_loss()),
            *(self._layer_instant(index) for index in range(self.model.num_layers)),
            _Instant("embedding", 0, 0, 0, self._embedding_gradients()),
        ]

    def _plain_loss(self) -> list[_Instant]:
        """All logits at once."""
        everything = sum(self.held()) + self.ends()
        kept = sum(not self._recomputed(index) for index in range(self.model.num_layers))
        logit = self.tokens * self.model.vocab_size
        backward = 3 * FP32 * logit  # log-probabilities, their gradient, the logits' gradient
        gradient = self.half * self.head  # of the head's weight, cast to fp32 next
        cast = FP32 * self.head if self.half < FP32 else 0
        return [
            _Instant("loss", self.copies(kept, head=True), everything, backward, 0),
            _Instant("loss", self.copies(kept, head=True), everything, self.half * logit, gradient),
            _Instant("loss", self.copies(kept, head=False), everything, 0, gradient + cast),
        ]

    def _chunked_loss(self) -> list[_Instant]:
        """A chunk's logits, and the gradients of the head and of its input, which grow chunk by chunk."""
        kept = sum(not self._recomputed(index) for index in range(self.model.num_layers))
        rows = chunk_rows(self.tokens, self.model.vocab_size, self.device)
        below = self.half if self.half < FP32 else 0  # of logits and of their gradient, beside the fp32 ones
        logits = rows * self.model.vocab_size * (FP32 + below)
        gradients = FP32 * (self.head + self.tokens * self.model.hidden_size)
        everything = sum(self.held()) + self.ends()
        part = below * self.head  # a chunk's share of the head's gradient, before it is added in fp32
        if below and rows < self.tokens and self.device == "cpu":
            part += FP32 * self.head  # which the CPU's addition of two formats casts into a new tensor first
        return [_Instant("loss", self.copies(kept, head=True), everything, logits, gradients + part)]

    def _layer_instant(self, index: int) -> _Instant:
        """Layer `index` goes backwards: the layers above are done, and it is recomputed if need be.

        Worst at SwiGLU, with the stream's gradient and those of gate and up, or with few tokens one product
        later, at the weight gradient of gate_up. The head's gradient waits for the embedding's where they are
        tied.
        """
        inner, cast = self.model.intermediate_size, self.half if self.half < FP32 else 0
        alive = sum(not self._recomputed(below) for below in range(index)) + 1
        activations = 2 * INDEX * self.tokens + sum(self.held()[:index]) + self.layer()
        done = self.half * self.tokens * 4 * inner  # gate, up, silu(gate) and the product, freed by then
        weight = (FP32 + cast) * 2 * inner * self.model.hidden_size
        flowing = self.tokens * (FP32 * self.model.hidden_size + self.half * 2 * inner)
        waiting = FP32 * self.head if self.model.tie_embeddings else 0
        workspace = flowing + waiting + max(0, weight - done)
        return _Instant("layers", self.copies(alive, head=False), activations, 0, workspace)

    def _embedding_gradients(self) -> int:
        """The embedding's gradient. Tied, under the plain loss, also the head's, and in fp32 their sum, which
        is a new tensor; under the chunked loss both are one.
        """
        parts = 1 if self.chunked or not self.model.tie_embeddings else 3 if self.half == FP32 else 2
        return parts * FP32 * self.head

    def _recomputed(self, index: int) -> bool:
        return self.every > 0 and index % self.every == 0


def _check(**values: int) -> None:
    for name, value in values.items():
        least = 0 if name == "checkpoint_every" else 1
        if value < least:
            flag = "--checkpointing" if name == "checkpoint_every" else f"--{name.replace('_', '-')}"
            raise SlmError(
                "E_CONFIG",
                f"{name} deve ser um inteiro a partir de {least}, e não {value}.",
                where=flag,
                hint=f"Corrija com {flag}.",
            )


def _choice(name: str, value: str, table: dict[str, int]) -> int:
    if value not in table:
        raise SlmError(
            "E_CONFIG",
            f"{name} deve ser {' ou '.join(table)}, e não {value!r}.",
            where=f"--{name}",
            hint=f"Use --{name} {next(iter(table))}.",
        )
    return table[value]
