"""A machine with CUDA cards, simulated on the CPU: every CUDA line of the training runs, with real numbers.

    with simulated_cuda.machine() as cards:
        model.to("cuda")

`tensor` holds the tensors and the dispatcher, `kernels` and `fused` what CUDA does otherwise than a CPU,
`device` memory, copies and waits, `guard` what autograd's C++ needs, `api` the functions of `torch.cuda`.
For a command in a process of its own, put the folder `site` on PYTHONPATH: `sitecustomize` there starts the
machine when torch is imported, with the cards that the variable SIMULATED_CUDA describes.

What it cannot see: speed, rounding of CUDA kernels, kernels that are missing for a type, NCCL (gloo stands
in), several streams, Triton, and what reads or resizes memory behind a tensor (bitsandbytes, FSDP).
"""

from __future__ import annotations

from simulated_cuda.api import machine
from simulated_cuda.device import Card, Wait, cards
from simulated_cuda.tensor import DeviceTensor

__all__ = ["Card", "DeviceTensor", "Wait", "cards", "machine"]
