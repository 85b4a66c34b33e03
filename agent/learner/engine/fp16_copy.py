"""A copy of a model in half precision (fp16), for sampling.

fp16 has 10 bits of mantissa, as TF32 has, so matrix products are as precise, at twice the speed,
and weights, keys and values take half the memory. bf16 has 7 bits: it would miss what a step at a
small rate changes. fp16 lacks range: a value beyond 65,504 leads to NaN, and the caller then uses
the fp32 model.

Logits stay fp32, like the sums inside products: near 20, fp16 numbers are 0.02 apart.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Fp16Copy:
    """A copy that can be updated when the model's weights change.

    Args:
        model: a causal LM in fp32.

    Attributes:
        model: the copy, at fixed addresses; its logits are fp32.
    """

    def __init__(self, model: Any) -> None:
        self._originals: list[Tensor] = list(model.parameters())
        self._own: list[Tensor] = [
            nn.Parameter(weight.detach().half(), requires_grad=False) for weight in self._originals
        ]
        # Buffers are copied as they are: rotary frequencies must be exact.
        taken = zip(map(id, self._originals), self._own, strict=True)
        self.model = copy.deepcopy(model, dict(taken))
        self.model.set_output_embeddings(_Head(self.model.get_output_embeddings()))

    @torch.no_grad()
    def follow(self) -> None:
        """Copies the model's current weights."""
        torch._foreach_copy_(self._own, self._originals)


class _Head(nn.Module):
    """An fp16 output matrix with fp32 sums: [..., D] fp16 to [..., V] fp32."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.weight: nn.Parameter = head.weight
        self.bias: nn.Parameter | None = head.bias

    def forward(self, states: Tensor) -> Tensor:
        flat = states.reshape(-1, states.shape[-1])
        if flat.is_cuda:
            sums = torch.mm(flat, self.weight.t(), out_dtype=torch.float32)
        else:  # only CUDA can sum fp16 products in fp32
            sums = flat.float() @ self.weight.t().float()
        sums = sums if self.bias is None else sums + self.bias
        return sums.view(*states.shape[:-1], -1)
