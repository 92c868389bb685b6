"""Which optimizer a run gets, and which parameter which treatment."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ptbr_slm.errors import SlmError
from ptbr_slm.model import Llama
from ptbr_slm.train.config import OptimizerConfig
from ptbr_slm.train.optim.adamw import AdamW, adamw8bit
from ptbr_slm.train.optim.muon import Muon, Part
from ptbr_slm.train.parallel.world import SINGLE_PROCESS, Ranks

EMBEDDING_RATE_WIDTH = 1920
"""With muon, hidden_size at which embedding and matrices would learn at the same rate.

See docs/decisions/0019-muon.md."""


def build_optimizer(
    model: Llama, config: OptimizerConfig, ranks: Ranks = SINGLE_PROCESS, precision: str = "fp32"
) -> torch.optim.Optimizer:
    """The optimizer of this configuration over the model's trained parameters, its state allocated.

    precision: of the run; on a CPU Muon computes in it.

    Decay on the matrices of the layers and on an untied head; not on norms, whose natural value is 1, and not
    on the embedding, where it shrinks the rows of rare tokens, which get no gradient (OLMo 2, 2501.00656).
    Raises E_OPTIMIZER where the device or the installed packages cannot do it, and for muon beside frozen
    weights: it is made for whole matrices.
    """
    assert config.learning_rate is not None and config.name != "auto"  # a plan has decided both
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if config.name == "muon":
        if len(trained) < len(list(model.parameters())):
            raise _no_muon_for_adapters()
        return _muon(model, config, ranks, precision)
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in trained:
        table = name in ("embed.weight", "embed_rows.values", "head_rows.values")
        (decayed if parameter.dim() >= 2 and not table else plain).append(parameter)
    groups = [_group(decayed, config, config.weight_decay), _group(plain, config, 0.0)]
    if config.name == "adamw8bit":
        return adamw8bit(groups, model.embed.weight.device)
    return AdamW(groups)


def _no_muon_for_adapters() -> SlmError:
    return SlmError(
        "E_OPTIMIZER",
        "o muon treina matrizes inteiras, e aqui só se treinam adaptadores ao lado delas.",
        where="--optimizer muon",
        hint="Use --optimizer adamw.",
    )


def embedding_rate_factor(hidden_size: int) -> float:
    """With muon, embedding's rate over that of the matrices: measured at 192, never higher, lower when wider.

    The logits of a step move in proportion to the width (Yang et al., 2022, arXiv:2203.03466).
    """
    return min(10.0, EMBEDDING_RATE_WIDTH / hidden_size)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use this rate in the next step; Muon's AdamW groups take their share of it."""
    for group in optimizer.param_groups:
        value = rate * group.get("rate_factor", 1.0)
        if isinstance(group["lr"], torch.Tensor):  # torchao compiles its step, and a number would do it again
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def set_momentum(optimizer: torch.optim.Optimizer, momentum: float) -> None:
    """Use this momentum in Muon's next step; other optimizers have none."""
    if isinstance(optimizer, Muon):
        optimizer.param_groups[0]["momentum"] = momentum


def _group(parameters: list[nn.Parameter], config: OptimizerConfig, decay: float) -> dict[str, Any]:
    return {
        "params": parameters,
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
        "weight_decay": decay,
    }


def _muon(model: Llama, config: OptimizerConfig, ranks: Ranks, precision: str) -> Muon:
    """Muon for the matrices of the layers; AdamW for embedding, head and norms."""
    assert config.learning_rate is not None
    parts: list[Part] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if name.startswith("layers.") and parameter.dim() == 2:
            parts += _parts(model, name, parameter)
        else:
            others.append(parameter)
    factor = config.embedding_rate_factor or embedding_rate_factor(model.config.hidden_size)
    adamw = _group(others, config, 0.0) | {"rate_factor": factor}
    return Muon(parts, adamw, learning_rate=config.learning_rate, momentum=config.momentum,
                weight_decay=config.weight_decay, ranks=ranks, precision=precision)  # fmt: skip


def _parts(model: Llama, name: str, parameter: nn.Parameter) -> list[Part]:
    """The matrices that lie in one parameter: q, k and v, gate and up are orthogonalised each for itself."""
    shape = model.config
    rows = [parameter.shape[0]]
    if name.endswith("qkv.weight"):
        rows = [shape.q_size, shape.kv_size, shape.kv_size]
    elif name.endswith("gate_up.weight"):
        rows = [shape.intermediate_size] * 2
    stops = torch.tensor(rows).cumsum(0).tolist()
    return [Part(parameter, stop - size, stop) for size, stop in zip(rows, stops, strict=True)]
