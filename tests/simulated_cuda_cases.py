"""What the simulated card must refuse, wait for and count; played by `python -m simulated_cuda`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from simulated_cuda import Card


def refused(work: Callable[[], Any]) -> str:
    """The words with which it is refused; empty where it is not."""
    try:
        work()
    except (RuntimeError, AssertionError, TypeError, torch.OutOfMemoryError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def devices(folder: Any, cards: list[Card]) -> Any:
    """Tensors and generators of two devices that meet, and reads by the host."""
    here, there = torch.ones(2, 2), torch.ones(2, 2, device="cuda")
    tokens = torch.zeros(2, dtype=torch.int64)
    bare = torch.nn.Linear(2, 2).to("cuda")
    return {
        "product": refused(lambda: there @ here),
        "sum": refused(lambda: there + here),
        "a number of the host": refused(lambda: there + torch.tensor(1.0)),
        "a foreach": refused(lambda: torch._foreach_add_([there], [here])),
        "an embedding of host tokens": refused(lambda: torch.nn.functional.embedding(tokens, there)),
        "generator": refused(lambda: there.normal_(generator=torch.Generator())),
        "numpy": refused(lambda: there.numpy()),
        "address": refused(lambda: there.data_ptr()),
        "pinning a tensor of the card": refused(lambda: torch.empty(2, device="cuda", pin_memory=True)),
        "a card that is not there": refused(lambda: torch.ones(1, device="cuda:7")),
        "bf16": refused(lambda: torch.ones(1, device="cuda").bfloat16() + 1),
        "grouped attention": refused(lambda: attention(enable_gqa=True)),
        "attention of heads of 12": refused(lambda: attention(width=12)),
        "attention": refused(attention),
        "device": [str(there.device), str(bare.weight.device), str((there @ there).device)],
        "flags": [there.is_cuda, torch.cuda.is_available(), torch.cuda.get_device_capability() == (7, 5)],
    }


def attention(width: int = 16, **options: Any) -> torch.Tensor:
    q = torch.ones(1, 4, 8, width, device="cuda", dtype=torch.float16)
    k = q[:, : 2 if options else 4]
    return torch.nn.functional.scaled_dot_product_attention(q, k, k, is_causal=True, **options)


def waits(folder: Any, cards: list[Card]) -> Any:
    """How often the host waits."""
    x = torch.ones(4, device="cuda")
    host = torch.ones(4)

    def count(work: Callable[[], Any]) -> int:
        with cards[0].counting_waits() as found:
            work()
        return len(found)

    return {
        "arithmetic": count(lambda: (x * 2 + 1).sum()),
        "item": count(lambda: x.sum().item()),
        "float": count(lambda: float(x.sum())),
        "tolist": count(lambda: x.tolist()),
        "cpu": count(lambda: x.cpu()),
        "a condition": count(lambda: bool(x.sum() > 0)),
        "a mask as index": count(lambda: x[x > 0]),
        "nonzero": count(lambda: x.nonzero()),
        "synchronize": count(lambda: torch.cuda.synchronize()),
        "from pageable memory": count(lambda: host.to("cuda")),
        "from pinned memory": count(lambda: host.pin_memory().to("cuda", non_blocking=True)),
        "a new tensor of numbers": count(lambda: torch.tensor([1, 2], device="cuda")),
        "a new tensor of one number": count(lambda: torch.full((), 3.0, device="cuda")),
    }


def copies(folder: Any, cards: list[Card]) -> Any:
    """Copies that are still on their way."""
    source = torch.ones(3).pin_memory()
    source.to("cuda", non_blocking=True)
    source.fill_(2)
    overwritten = refused(lambda: torch.cuda.synchronize())
    target = torch.zeros(3).pin_memory()
    target.copy_(torch.ones(3, device="cuda"), non_blocking=True)
    early = target.isnan().all().item()
    torch.cuda.synchronize()
    return {"overwritten": overwritten, "read too early": early, "arrived": target.tolist()}


def memory(folder: Any, cards: list[Card]) -> Any:
    """Bytes, views, what is freed, and what does not fit."""
    card, before = cards[0], cards[0].allocated
    x = torch.zeros(1000, device="cuda")  # 4,000 bytes: 8 blocks of 512
    view = x[10:].view(-1, 10)
    both = card.allocated - before
    del x
    held = card.allocated - before
    del view
    freed = card.allocated - before
    uninitialised = torch.empty(5, device="cuda").isnan().all().item()
    card.total_bytes = 700 << 20
    full = refused(lambda: torch.zeros(1 << 28, device="cuda"))
    return {"both": both, "held": held, "freed": freed, "uninitialised": uninitialised, "full": full,
            "reported": torch.cuda.memory_allocated() == card.allocated}  # fmt: skip


def numbers(folder: Any, cards: list[Card]) -> Any:
    """A small network computes what it computes on a CPU, forward and backward, in fp32."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.RMSNorm(16), torch.nn.Linear(16, 3))
    x = torch.randn(5, 8)

    def found(x: torch.Tensor) -> list[torch.Tensor]:
        loss = net(x).square().sum()
        return [loss.detach().cpu(), *(g.cpu() for g in torch.autograd.grad(loss, list(net.parameters())))]

    host = found(x)
    net.to("cuda")
    there = x.to("cuda")
    worst = max(float((a - b).abs().max()) for a, b in zip(host, found(there), strict=True))
    with torch.autocast("cuda", torch.float16):
        dtype = str(net[0](there).dtype)
    return {"worst": worst, "autocast": dtype}


CASES = {"devices": devices, "waits": waits, "copies": copies, "memory": memory, "numbers": numbers}
