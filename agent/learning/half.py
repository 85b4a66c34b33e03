"""A copy of a model in half precision, to sample texts with.

A factor of a product has 10 bits after its first in fp16 as it has in TF32, so products are as
near, at twice the rate; and weights, keys and values are half as many bytes. Not bf16: with 7 bits
it would not see what a step at a small rate changes. What fp16 lacks is range: beyond 65,504 it
gives NaN, and whoever meets one asks the model itself.

The output matrix stays as it is. Logits go up to 30, where fp16 is 0.02 apart.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HalfCopy:
    """A copy that follows a model whose weights change.

    Args:
        model: a causal LM in fp32.

    Attributes:
        model: the copy, which stays where it is; its logits are fp32.
    """

    def __init__(self, model: Any) -> None:
        self.model = copy.deepcopy(model)
        self.model.set_output_embeddings(_WholeHead(model.get_output_embeddings()))
        self._pairs: list[tuple[Tensor, Tensor]] = []
        for name, own in self.model.named_parameters():
            original = model.get_parameter(name)
            if own is not original:
                # Not its buffers: rotary frequencies are to be exact.
                own.requires_grad_(False).data = own.data.half()
                self._pairs.append((own, original))

    @torch.no_grad()
    def follow(self) -> None:
        """Takes the model's weights as they are now."""
        own, originals = zip(*self._pairs, strict=True)
        torch._foreach_copy_(list(own), list(originals))


class _WholeHead(nn.Module):
    """The output matrix of a model itself, for states of half precision: [.., D] to [.., V]."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.weight: nn.Parameter = head.weight
        self.bias: nn.Parameter | None = head.bias

    def forward(self, states: Tensor) -> Tensor:
        return F.linear(states.to(self.weight.dtype), self.weight, self.bias)
