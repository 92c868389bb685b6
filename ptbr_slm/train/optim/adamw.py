"""AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101), PyTorch's fused kernel."""

from __future__ import annotations

from typing import Any

import torch


class AdamW(torch.optim.AdamW):
    """`fused`: one pass over memory instead of about ten. The moments exist before the first step.

    groups: each with params, lr, betas, eps and weight_decay.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, fused=True)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
