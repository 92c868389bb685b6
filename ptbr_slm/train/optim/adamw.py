"""AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101): PyTorch's fused kernel, and with 8-bit moments.

8-bit moments take 2 bytes of state a parameter instead of 8 (Dettmers et al., arXiv:2110.02861). They come
from bitsandbytes or torchao, whichever is installed and passes a trial step on the device itself: their
kernels exist for some cards and systems only, and an installed package does not say for which.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import torch

from ptbr_slm.errors import SlmError

Groups = list[dict[str, Any]]
TRIAL_ROWS = 128
"""Side of the trial's matrix: bitsandbytes keeps tensors below 4,096 numbers in fp32."""


class AdamW(torch.optim.AdamW):
    """`fused`: one pass over memory instead of about ten. The moments exist before the first step.

    groups: each with params, lr, betas, eps and weight_decay.
    """

    def __init__(self, groups: Groups) -> None:
        super().__init__(groups, fused=True)
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }


def adamw8bit(groups: Groups, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over these groups (params, lr, betas, eps, weight_decay), its state allocated.

    Raises E_OPTIMIZER, with the reason of each package, where none works on the device.
    """
    reasons = []
    for package, make in MAKERS.items():
        try:
            _trial(make, device)
        except Exception as error:  # whatever a kernel that does not fit the card may raise
            first = (str(error).strip() or "sem detalhes").splitlines()[0][:100]
            reasons.append(f"{package}: {type(error).__name__}: {first}")
        else:
            return make(groups)
    raise SlmError(
        "E_OPTIMIZER",
        f"o AdamW de 8 bits não funciona em {device} ({'; '.join(reasons)}).",
        where="--optimizer adamw8bit",
        hint='Instale com:  pip install "ptbr-slm[8bit]"   ou escolha --optimizer muon ou adamw.',
    )


def check_adamw8bit(device: torch.device) -> None:
    """Raises E_OPTIMIZER where no package works on the device."""
    adamw8bit([_trial_group(device)], device)


def _trial(make: Callable[[Groups], torch.optim.Optimizer], device: torch.device) -> None:
    """Two steps on a small matrix: AdamW's first steps have the size of the learning rate."""
    group = _trial_group(device)
    (weight,) = group["params"]
    optimizer = make([group])
    for _ in range(2):
        weight.grad = torch.full_like(weight, 0.5)
        optimizer.step()
    moved = weight.mean().item()
    if not math.isclose(moved, -0.02, rel_tol=0.1):
        raise RuntimeError(f"passo de teste errado: {moved:.4f} em vez de -0.02")


def _trial_group(device: torch.device) -> dict[str, Any]:
    weight = torch.nn.Parameter(torch.zeros(TRIAL_ROWS, TRIAL_ROWS, device=device))
    return {"params": [weight], "lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0}


def _bitsandbytes(groups: Groups) -> torch.optim.Optimizer:
    library = importlib.import_module("bitsandbytes")
    optimizer: Any = library.optim.AdamW8bit(groups)
    optimizer.check_overrides()
    for index, group in enumerate(optimizer.param_groups):
        for position, parameter in enumerate(group["params"]):
            optimizer.init_state(group, parameter, index, position)
    optimizer.initialized = True
    return optimizer  # type: ignore[no-any-return]


def _torchao(groups: Groups) -> torch.optim.Optimizer:
    library = importlib.import_module("torchao.optim")
    optimizer: Any = library.AdamW8bit(groups)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.tensor(0.0),
                "exp_avg": optimizer._new_buffer(parameter, True),
                "exp_avg_sq": optimizer._new_buffer(parameter, False),
            }
    return optimizer  # type: ignore[no-any-return]


MAKERS: dict[str, Callable[[Groups], torch.optim.Optimizer]] = {
    "bitsandbytes": _bitsandbytes,
    "torchao": _torchao,
}
"""Package -> how to make its optimizer. torchao comes second, because compiling its step takes a minute."""
