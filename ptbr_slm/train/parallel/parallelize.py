"""One model on several ranks: how each computes its part of the loss, and when the gradients are summed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.train.batches import DeviceBatch
from ptbr_slm.train.parallel.world import Ranks


class LossSum(nn.Module):
    """The model as a module whose forward is the summed loss: DDP and FSDP only see calls of `forward`."""

    def __init__(self, model: Llama) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: DeviceBatch | None) -> Tensor:
        """As `DeviceBatch.loss_sum`; without a batch a zero that every trained weight is part of, in the
        order in which a forward pass uses them.
        """
        if batch is None:
            trained = (weight for weight in self.model.parameters() if weight.requires_grad)
            return torch.stack([0.0 * weight.sum() for weight in trained]).sum()
        return batch.loss_sum(self.model)


class Parallel:
    """The model in one process. The base of the others."""

    lockstep = False
    """Whether every forward and backward pass has collectives, so that all ranks make as many of them."""

    def __init__(self, model: Llama) -> None:
        self.model = model

    def loss_sum(self, batch: DeviceBatch) -> Tensor:
        """The summed loss of a micro-batch: see `DeviceBatch.loss_sum`."""
        return batch.loss_sum(self.model)

    def clear_gradients(self) -> None:
        """Drop the gradients of the last step."""
        self.model.zero_grad(set_to_none=True)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Around forward and backward of a micro-batch; gradients are whole after the `last` of the step."""
        yield

    def broadcast_weights(self) -> None:
        """Give every rank the main one's weights, once they are loaded."""

    def drop_step(self) -> None:
        """Drop a step that all ranks gave up before its last backward pass; all of them call it."""
        self.model.zero_grad(set_to_none=True)


class Shards(Parallel):
    """FSDP2: each rank holds its part of weights, gradients and moments; layers are gathered as they are
    used.

    For models that do not fit on one card. Gradients are summed in the backward pass of every micro-batch:
    keeping them whole until the last would take the memory that sharding saves.
    """

    lockstep = True

    def __init__(self, model: Llama, device: torch.device, world: int) -> None:
        """model: on the CPU; its weights are moved to `device` and cut."""
        super().__init__(model)
        mesh = init_device_mesh(device.type, (world,))
        self._module = LossSum(model)
        for block in model.layers:
            fully_shard(block, mesh=mesh)
        # What is left: embedding, tied or untied head, last norm. Cut again after each forward pass: an
        # evaluation is followed by no backward pass that would do it, and parameters() must give the parts.
        fully_shard(self._module, mesh=mesh, reshard_after_forward=True)
        for part in self._module.modules():
            if isinstance(part, FSDPModule):
                part.set_gradient_divide_factor(1.0)  # the sum, as in Replicas
                part.set_force_sum_reduction_for_comms(True)  # gloo has no other
        for name, table in model.named_buffers(recurse=False):
            setattr(model, name, table.to(device))

    def loss_sum(self, batch: DeviceBatch) -> Tensor:
        """As `Parallel.loss_sum`, through FSDP."""
        loss: Tensor = self._module(batch)
        return loss


class Replicas(Parallel):
    """DDP: a whole copy on every rank; gradients are summed over the ranks in the last backward of a step.

    A rank may have more micro-batches than another, but each has one at least.
    """

    def __init__(self, model: Llama, ranks: Ranks) -> None:
        super().__init__(model)
        self.ranks = ranks
        self._settled = False
        self._wrap()

    def _wrap(self) -> None:
        device = self.model.embed.weight.device
        with warnings.catch_warnings():
            # Later versions rename broadcast_buffers; 2.10, on Kaggle, has no other name.
            warnings.simplefilter("ignore", FutureWarning)
            self._ddp = DistributedDataParallel(
                LossSum(self.model),
                device_ids=[device.index] if device.type == "cuda" else None,
                broadcast_buffers=False,  # RoPE tables: the same everywhere
                init_sync=False,  # no weights yet: see broadcast_weights
                gradient_as_bucket_view=True,  # or 4 bytes a parameter more (documentation of DDP)
            )
        self._ddp.register_comm_hook(None, lambda _, bucket: _summed(bucket))
        self._settled = False

    def loss_sum(self, batch: DeviceBatch) -> Tensor:
        """As `Parallel.loss_sum`, through DDP."""
        loss: Tensor = self._ddp(batch)
        return loss

    def clear_gradients(self) -> None:
        """As `Parallel.clear_gradients`, in place: the gradients are views of DDP's buckets, and one that is
        given up is held twice from then on, once as a gradient and once as its part of a bucket (4 bytes a
        parameter: 3 GiB of an 800m).

        The first time, two backward passes of zeros bring the gradients into the buckets. DDP builds these
        anew after the first reduction, and the ranks meet for it. Left to itself it does so inside the next
        forward pass, which a rank whose memory ran out never reaches: the others would wait for it.
        """
        if not self._settled:
            for _ in range(2):
                self.model.zero_grad(set_to_none=True)  # or old and new buckets are there at once
                self._ddp.reducer._rebuild_buckets()
                torch.autograd.backward(self._ddp(None))
            self._settled = True
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        torch._foreach_zero_(gradients)

    @contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Gradients stay on this rank in all but the last."""
        with nullcontext() if last else self._ddp.no_sync():
            yield

    def drop_step(self) -> None:
        """As `Parallel.drop_step`; a DDP whose last forward pass had no backward would send gradients too
        early.
        """
        super().drop_step()
        del self._ddp  # its buckets are freed before the new ones are made
        self._wrap()

    def broadcast_weights(self) -> None:
        """The main rank's weights for all: files that differ between machines would not be noticed."""
        for parameter in self.model.parameters():
            self.ranks.broadcast_(parameter.detach(), 0)


def _summed(bucket: GradBucket) -> torch.futures.Future[Tensor]:
    """The sum of a bucket of gradients over the ranks.

    DDP alone takes their mean; but each rank has divided by the target tokens of the whole step already.
    """
    work: Any = dist.all_reduce(bucket.buffer(), async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future


def parallelize(model: Llama, device: torch.device, ranks: Ranks, how: str = "auto") -> Parallel:
    """The model, new and on the CPU, moved to `device` as these ranks train it.

    how: as `TrainConfig.parallel`; auto is ddp. Raises E_CONFIG where it does not go with the ranks.
    """
    check_parallel(ranks, how)
    if ranks.world > 1 and how == "fsdp":
        return Shards(model, device, ranks.world)
    model.to(device)
    return Replicas(model, ranks) if ranks.world > 1 else Parallel(model)


def check_parallel(ranks: Ranks, how: str) -> None:
    """Refuse a way of sharing that these ranks cannot go. Raises E_CONFIG."""
    if ranks.world > 1 and how == "none":
        message = f"--parallel none é um processo só, e o torchrun iniciou {ranks.world}."
        hint = "Tire --parallel none, ou inicie o ptbr-slm sem o torchrun."
    elif ranks.world == 1 and how == "fsdp":
        message = "--parallel fsdp reparte o modelo entre processos, e aqui há um só."
        hint = "Use --parallel auto (também continua um treino fsdp), ou --set ranks=2."
    else:
        return
    raise SlmError("E_CONFIG", message, where=f"--parallel {how}", hint=hint)
