"""AdamW with decay where it helps, and its state under the parameters' names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ptbr_slm.train.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the model's parameters, `fused`: one pass over memory instead of about ten.

    Decay on the matrices of the layers and on an untied head; not on norms, whose natural value is 1, and not
    on the embedding, where it shrinks the rows of rare tokens, which get no gradient (OLMo 2, 2501.00656).
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (decayed if parameter.dim() >= 2 and name != "embed.weight" else plain).append(parameter)
    assert config.learning_rate is not None
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use this rate in the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_arrays(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, npt.NDArray[np.float32]]:
    """The state as `exp_avg.NAME`, `exp_avg_sq.NAME` and `step.NAME`; empty before the first step."""
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            arrays[f"{key}.{name}"] = value.detach().cpu().numpy()
    return arrays


def load_optimizer_arrays(
    model: nn.Module, optimizer: torch.optim.Optimizer, arrays: Mapping[str, npt.NDArray[np.float32]]
) -> None:
    """Put back what `optimizer_arrays` gave. Raises KeyError or ValueError where it is another model's."""
    if not arrays:
        return
    for name, parameter in model.named_parameters():
        state = {}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            value = torch.from_numpy(np.array(arrays[f"{key}.{name}"])).to(parameter.device)
            if key != "step" and value.shape != parameter.shape:
                raise ValueError(f"{key}.{name}: {tuple(value.shape)} != {tuple(parameter.shape)}")
            state[key] = value
        optimizer.state[parameter] = state
