"""The mean of the weights of a session's last steps: a usable model that no step is spent on.

At a stable rate the weights move around what they have learnt, and their mean lies closer to it: it stands in
for a cooldown (WSM, arXiv:2507.17634; LAWA, arXiv:2209.14981) and leaves the run as it is. Weights whose rate
has fallen gain nothing by it (docs/decisions/0121-session-average.md has the figures).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ptbr_slm.train.parallel.parallelize import Parallel
from ptbr_slm.train.parallel.world import Ranks

LAST_PART = 0.2
"""Share of the training time of a session, its last, whose weights are averaged."""
SNAPSHOTS = 20
"""How many of them, evenly over that time."""


class WeightAverage:
    """A running mean on the CPU in fp32: 4 bytes a trained parameter, once for all ranks of a machine.

    All ranks call its methods together.
    """

    def __init__(self, parallel: Parallel, ranks: Ranks) -> None:
        self.count = self.first_step = self.last_step = 0
        """Weights in it; the steps after which the first and the last of them were taken."""
        self.next_s = 0.0
        """The session's age at which the next ones are due."""
        self._parallel, self._ranks = parallel, ranks
        self._means: dict[str, Tensor] = {}

    def begin_anew(self) -> None:
        """Drop the weights taken so far."""
        self.count = self.first_step = self.last_step = 0
        self._means.clear()

    @torch.no_grad()
    def add(self, step: int) -> None:
        """The weights as they are after this step."""
        self.count, self.last_step = self.count + 1, step
        self.first_step = self.first_step or step
        for name, weight in self._held():
            here = weight.detach().to("cpu", torch.float32)
            if self.count == 1:
                self._means[name] = here.clone()
            else:
                self._means[name].lerp_(here, 1 / self.count)

    @torch.no_grad()
    def give(self) -> None:
        """Put the mean in the place of the model's weights; the run cannot go on from there."""
        for name, weight in self._held():
            weight.copy_(self._means[name])
        self._parallel.broadcast_weights()

    def _held(self) -> list[tuple[str, Tensor]]:
        """The trained parameters whose mean this rank keeps: its part of them, or all on the main one."""
        named = self._parallel.model.named_parameters()
        found: list[tuple[str, Any]] = [(name, weight) for name, weight in named if weight.requires_grad]
        if hasattr(found[0][1], "to_local"):
            return [(name, weight.to_local()) for name, weight in found]
        return found if self._ranks.main else []
