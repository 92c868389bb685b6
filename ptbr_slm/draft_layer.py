"""The draft layer in PyTorch: from the model's last state and the token that was chosen, the token after it.

As the multi-token head of DeepSeek-V3 (arXiv:2412.19437) and EAGLE (arXiv:2401.15077), without attention:
it keeps nothing between two tokens, so one guess costs two small products and a head over the likeliest
tokens of the language only (FR-Spec, arXiv:2502.14856).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptbr_slm.storage.draft_folder import DraftConfig

ReadWeight = Callable[[str, tuple[int, ...]], npt.NDArray[np.float32]]


class DraftLayer(nn.Module):
    """One guess: (states, embeddings of the tokens that follow them) -> logits of `tokens`."""

    def __init__(self, config: DraftConfig, tokens: npt.NDArray[np.int64]) -> None:
        """tokens: (K,) ids that can be guessed, rising."""
        super().__init__()
        self.config = config
        for name, shape in config.shapes.items():
            self.register_parameter(name, nn.Parameter(torch.ones(shape)))
        self.tokens: Tensor
        self.register_buffer("tokens", torch.from_numpy(tokens))

    def initialize(self, head: Tensor, seed: int) -> DraftLayer:
        """Draw the matrices; the head begins as the model's own rows. head: (V, C) of the model."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.dim() == 2:
                    std = 0.01 if name == "down" else 0.02
                    parameter.copy_(torch.empty(parameter.shape).normal_(std=std, generator=generator))
            self.get_parameter("head").copy_(head[self.tokens])
        return self

    def load(self, read: ReadWeight) -> DraftLayer:
        """Fill the weights from `read(name, shape)`, such as `WeightReader.read`."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(torch.from_numpy(read(name, tuple(parameter.shape))))
        return self

    def to_arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Copies of the weights by their names, for `storage.draft_folder.write_draft`."""
        return {
            name: parameter.detach().float().cpu().numpy().copy()
            for name, parameter in self.named_parameters()
        }

    def forward(self, states: Tensor, embedded: Tensor) -> Tensor:
        """states: (..., C), the model's after its last norm; embedded: (..., C) -> logits (..., K)."""
        weight = self.get_parameter
        both = torch.cat([self._norm(states, "state_norm"), self._norm(embedded, "token_norm")], dim=-1)
        x = F.linear(both, weight("fuse"))  # (..., C)
        gate, up = F.linear(self._norm(x, "feed_forward_norm"), weight("gate_up")).chunk(2, dim=-1)
        x = x + F.linear(F.silu(gate) * up, weight("down"))
        return F.linear(self._norm(x, "norm"), weight("head"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.get_parameter(name), self.config.norm_eps)
