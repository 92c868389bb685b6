"""What a training sets in PyTorch before it uses a GPU: how memory is taken, how products in fp16 add up."""

from __future__ import annotations

import os
import sys

import torch

from ptbr_slm.train.config import TrainConfig
from ptbr_slm.train.parallel.environment import visible_cards

ALLOCATOR = "PYTORCH_ALLOC_CONF"
"""PyTorch's variable for its allocator, read when a GPU is first used."""
_ALSO_ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Its older names, which a user may have set."""
EXPANDABLE = "expandable_segments:True"


def prepare_gpu(config: TrainConfig) -> None:
    """Call it before the first use of a GPU; ranks and restarted processes call it themselves.

    Does nothing where the run will use no GPU, and leaves an allocator that the user has set up as it is.
    """
    if config.device == "cpu" or not visible_cards():
        return
    _grow_segments()
    # By default cuBLAS may add the parts of a long product in fp16: at 8,192 tokens in 4 to 16 parts that is
    # 1.9 to 3.1 times the rounding error of a weight's gradient (emulated), and a part may overflow where the
    # sum does not (docs/decisions/0122-card-settings.md).
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def _grow_segments() -> None:
    """Let the allocator grow its segments, so that blocks freed between two that are in use are not lost.

    Evaluation, a smaller micro-batch after an out of memory and another length of the loss's chunks ask for
    blocks of other sizes than the steps before. On Linux only: elsewhere PyTorch warns and ignores it.
    """
    if sys.platform.startswith("linux") and not any(map(os.environ.get, (ALLOCATOR, *_ALSO_ALLOCATOR))):
        os.environ[ALLOCATOR] = EXPANDABLE
