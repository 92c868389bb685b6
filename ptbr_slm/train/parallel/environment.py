"""Which rank this process is, and how many ranks and cards there are: from torchrun's variables and PyTorch.

Planning asks here too, so nothing in this module communicates. torch is imported only to look at the cards.
"""

from __future__ import annotations

import os
import warnings

from ptbr_slm.errors import SlmError
from ptbr_slm.train.config import TrainConfig


def started_by_agent() -> bool:
    """Whether torchrun (or our own launcher) started this process as one of several ranks."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def local_rank() -> int:
    """This process's number on this machine, the index of its GPU; 0 where it was not started as a rank."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world() -> int:
    """Ranks on this machine; 1 where this process was not started as a rank."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if started_by_agent() else 1


def restarts() -> int:
    """Times that the agent has started all ranks again because one died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def visible_cards() -> int:
    """GPUs that PyTorch can use here; 0 where there is none or it cannot use them.

    PyTorch's own warning about a driver that is too old is silenced: the plan says it in Portuguese.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.cuda.device_count() if torch.cuda.is_available() else 0


def require_cards(ranks: int) -> None:
    """Refuse more ranks on this machine than it has cards. Raises E_CONFIG."""
    import torch

    count = torch.cuda.device_count()
    if ranks > count:
        raise SlmError(
            "E_CONFIG",
            f"{ranks} processos não cabem em {count} GPU(s): cada um precisa da sua.",
            where=f"ranks={ranks}",
            hint=f"Use --set ranks={count}, ou deixe ranks=0 (uma por GPU visível); com o torchrun, "
            f"--nproc-per-node {count}.",
        )


def ranks_to_start(config: TrainConfig) -> int:
    """Processes to start for this run; 1 where this process trains by itself or was started by torchrun.

    Raises E_CONFIG for more ranks than GPUs.
    """
    if config.parallel == "none" or started_by_agent():
        return 1
    cards = visible_cards() if config.device != "cpu" else 0
    if cards:
        require_cards(config.ranks)
    return config.ranks or max(1, cards)
