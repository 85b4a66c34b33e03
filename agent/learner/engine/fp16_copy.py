"""A copy of a model in half precision, to sample texts with.

A factor of a product has 10 bits after its first in fp16 as it has in TF32, so products are as
near, at twice the rate; and weights, keys and values are half as many bytes. Not bf16: with 7 bits
it would not see what a step at a small rate changes. What fp16 lacks is range: beyond 65,504 it
gives NaN, and whoever meets one asks the model itself.

Logits stay fp32, as the sums of products are: at 20, numbers of fp16 are 0.02 apart.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class HalfCopy:
    """A copy that follows a model whose weights change.

    Args:
        model: a causal LM in fp32.

    Attributes:
        model: the copy, which stays where it is; its logits are fp32.
    """

    def __init__(self, model: Any) -> None:
        self._originals: list[Tensor] = list(model.parameters())
        self._own: list[Tensor] = [
            nn.Parameter(weight.detach().half(), requires_grad=False) for weight in self._originals
        ]
        # Not its buffers: rotary frequencies are to be exact.
        taken = zip(map(id, self._originals), self._own, strict=True)
        self.model = copy.deepcopy(model, dict(taken))
        self.model.set_output_embeddings(_Head(self.model.get_output_embeddings()))

    @torch.no_grad()
    def follow(self) -> None:
        """Takes the model's weights as they are now."""
        torch._foreach_copy_(self._own, self._originals)


class _Head(nn.Module):
    """An output matrix of half precision whose sums stay as they are: [.., D] to [.., V], fp32."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.weight: nn.Parameter = head.weight
        self.bias: nn.Parameter | None = head.bias

    def forward(self, states: Tensor) -> Tensor:
        flat = states.reshape(-1, states.shape[-1])
        if flat.is_cuda:
            sums = torch.mm(flat, self.weight.t(), out_dtype=torch.float32)
        else:  # nowhere else can sums be of another kind
            sums = flat.float() @ self.weight.t().float()
        sums = sums if self.bias is None else sums + self.bias
        return sums.view(*states.shape[:-1], -1)
