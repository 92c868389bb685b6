"""torch.compile for the layers of a model in training: opt-in, and compared with eager before it is used.

One layer is compiled and serves all, since they differ in their weights only. Embedding, loss and head stay
as they are: the loss forms its own gradients (`ptbr_slm.loss`). Names of weights do not change, so neither do
checkpoints. What goes wrong (no C++ compiler, a fault of it, a wrong result, too much time) is reported, and
the training goes on in eager mode.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from ptbr_slm.model import Block, LayerCall
from ptbr_slm.text import number
from ptbr_slm.train.batches import DeviceBatch, MicroBatch
from ptbr_slm.train.events import Compiled, Listener, Warned
from ptbr_slm.train.parallel.parallelize import Parallel, Shards
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks
from ptbr_slm.train.planning.precision import Precision
from ptbr_slm.train.step import autocast, is_out_of_memory

TIMEOUT_S = 600.0
"""Seconds that compiling may take. A cold start took 42 s on one core of an EPYC, for a tiny layer."""
TOLERANCE = {"fp32": (1e-5, 1e-3), "fp16": (1e-2, 5e-2), "bf16": (1e-2, 5e-2)}
"""Precision -> largest relative difference of the loss, and of the norm of the whole gradient."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Compiled against eager on one micro-batch."""

    loss: float
    """|difference| / |eager's loss|."""
    gradient: float
    """Norm of the difference / norm of eager's gradient, over all weights."""

    def agrees(self, precision: Precision) -> bool:
        """Whether both are within TOLERANCE; a NaN is not."""
        loss, gradient = TOLERANCE[precision.name]
        return self.loss <= loss and self.gradient <= gradient


def compile_layers(
    parallel: Parallel,
    batch: MicroBatch,
    precision: Precision,
    listener: Listener,
    *,
    ranks: Ranks = SINGLE_PROCESS,
    scale: float = 1.0,
    timeout_s: float = TIMEOUT_S,
    compiler: Callable[..., Any] | None = None,
) -> bool:
    """Compile, compare on a micro-batch, and keep it if loss and gradients agree; whether it was kept.

    scale: the loss scale of the training. Without it fp16 flushes small gradients to zero, and two ways that
    are equally right differ by what each happened to lose (4.6 % of the gradient at 32,768 tokens).
    All ranks keep it or none does. Gradients are cleared. The decision is reported as an event: `compile`, or
    a `warning` with code `compile_fallback`. Raises nothing for a compiler's failure; running out of memory
    is raised as it is.
    """
    if isinstance(parallel, Shards):  # the comparison does not call the hooks that hold its collectives
        _report_fallback(listener, "com --parallel fsdp ele não é usado")
        return False
    started = time.monotonic()
    model, found, why = parallel.model, None, ""
    there = batch.to(model.embed.weight.device)
    try:
        eager, scale = _reference(parallel, there, precision, scale)
        model.compiled_layer = _layer_call(compiler or torch.compile, listener)
        with _at_most(timeout_s):
            found = _compare(eager, _loss_and_gradients(parallel, there, precision, scale))
        if not found.agrees(precision):
            why = (
                "o resultado difere do normal "
                f"(diferença relativa da perda {found.loss:.1e}, do gradiente {found.gradient:.1e})"
            )
    except Exception as error:  # torch's compilers raise anything
        if is_out_of_memory(error):
            raise
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error) else ''}"
    parallel.clear_gradients()
    if ranks.any(bool(why)):
        model.compiled_layer = None
        _report_fallback(listener, why or "falhou em outro processo")
        return False
    assert found is not None
    seconds = time.monotonic() - started
    listener.event(
        Compiled(
            seconds=round(seconds, 1),
            loss_difference=found.loss,
            gradient_difference=found.gradient,
            message=f"camadas compiladas e conferidas em {number(seconds, 0)} s.",
        )
    )
    return True


def _layer_call(compiler: Callable[..., Any], listener: Listener) -> LayerCall:
    """A layer's call through one compiled function; eager from where it cannot compile a later shape."""

    def plain(block: Block, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        output: Tensor = block(x, cos, sin, 0, None, mask)
        return output

    compiled = compiler(plain, dynamic=False)
    first, broken = True, False

    def call(block: Block, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        nonlocal first, broken
        if broken:
            return plain(block, x, cos, sin, mask)
        try:
            output: Tensor = compiled(block, x, cos, sin, mask)
        except TorchDynamoException as error:
            if first:
                raise
            broken = True
            _report_fallback(listener, type(error).__name__)
            return plain(block, x, cos, sin, mask)
        first = False
        return output

    return call


def _reference(
    parallel: Parallel, batch: DeviceBatch, precision: Precision, scale: float
) -> tuple[tuple[float, list[Tensor]], float]:
    """What eager computes, and the scale it took: halved while the gradient overflows, as a scaler would."""
    while True:
        found = _loss_and_gradients(parallel, batch, precision, scale)
        if scale <= 1.0 or all(bool(gradient.isfinite().all()) for gradient in found[1]):
            return found, scale
        scale /= 2


def _loss_and_gradients(
    parallel: Parallel, batch: DeviceBatch, precision: Precision, scale: float
) -> tuple[float, list[Tensor]]:
    """The mean loss of a micro-batch, and its gradient on the CPU: two might not fit on the device."""
    parallel.clear_gradients()
    model = parallel.model
    count = batch.targets.numel()
    model.backward_scale = torch.full((), scale / count, device=batch.tokens.device)
    with autocast(batch.tokens.device, precision):
        loss = batch.loss_sum(model) / count
    torch.autograd.backward(loss * scale)
    found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    gradients = [gradient.detach().to("cpu", copy=True) / scale for gradient in found]
    parallel.clear_gradients()
    return float(loss.detach()), gradients


def _compare(eager: tuple[float, list[Tensor]], compiled: tuple[float, list[Tensor]]) -> Comparison:
    if len(eager[1]) != len(compiled[1]):
        return Comparison(float("nan"), float("nan"))
    differences = [(a - b).norm() for a, b in zip(eager[1], compiled[1], strict=True)]
    norm = torch.stack([gradient.norm() for gradient in eager[1]]).norm()
    return Comparison(
        loss=abs(eager[0] - compiled[0]) / abs(eager[0]),
        gradient=float(torch.stack(differences).norm() / norm),
    )


def _report_fallback(listener: Listener, why: str) -> None:
    message = f"compile não pôde ser usado, e o treino segue sem ele: {why}."
    listener.event(Warned(code="compile_fallback", message=message))


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError inside after so many seconds; only in a main thread that has SIGALRM to itself."""
    alarm = getattr(signal, "SIGALRM", None)
    if alarm is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise TimeoutError(f"a compilação passou de {number(seconds, 0)} s")

    before = signal.signal(alarm, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(alarm, before)
