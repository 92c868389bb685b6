"""Section `graphs`: whether a step that writes one token can be captured as a CUDA graph in PyTorch.

The launches of a small model's step take longer than its reads; a graph launches them all at once
(`torch.cuda.CUDAGraph`; pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ptbr_slm.bench import t4_rules
from ptbr_slm.bench.gpu.asked import Asked
from ptbr_slm.bench.gpu.results import Answer
from ptbr_slm.faults import maybe_fail

CAPACITY, POSITION = 512, 256
REPEATS = 50
TOLERANCE = 0.01
"""Largest difference of a logit, replayed over plain, in standard deviations of the logits."""


def measure(asked: Asked, answer: Answer) -> None:
    """Plain, captured, and whether both give the same logits."""
    if asked.device != "cuda":
        answer.missing("cuda graph", "absent", "CUDA graphs só existem numa GPU")
        return
    import torch

    from ptbr_slm.config import model_config
    from ptbr_slm.model import KVCache, Llama

    t4_rules.apply()
    size = "nano" if asked.smoke else "85m"
    # Drawn on the CPU, then moved: the same weights on every card.
    model = Llama(model_config(size)).initialize(0).half().to("cuda").eval()
    cache = KVCache(model.config, 1, CAPACITY, model.embed.weight)
    token = torch.full((1, 1), 7, dtype=torch.int64, device="cuda")

    def step() -> Any:
        cache.length = POSITION
        return model(token, cache)

    with torch.no_grad():
        plain = step().float()
        seconds = _median(torch, step)
        answer.line(f"{size}, sem captura", seconds=seconds, tokens_per_second=1 / seconds)
        graph, output = _capture(torch, step)
        token.fill_(11 if maybe_fail("bench.graphs.token") else 7)
        captured = _median(torch, graph.replay)
        answer.line(f"{size}, capturado", seconds=captured, tokens_per_second=1 / captured)
        difference = float((output.float() - plain).abs().max() / plain.std())
    answer.check("logits", "logits repetidos sobre os simples, em desvios", difference, high=TOLERANCE)
    answer.facts["torch_graph_gain"] = seconds / captured


def _capture(torch: Any, step: Callable[[], Any]) -> tuple[Any, Any]:
    """(graph, its output), warmed up on a stream beside as PyTorch's notes ask for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step()
    graph.replay()
    return graph, output


def _median(torch: Any, work: Callable[[], object]) -> float:
    """Seconds, the device waited for each time, as a loop that reads each token does."""
    times = []
    for _ in range(REPEATS + 5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return float(sorted(times[5:])[REPEATS // 2])
