"""What the kernels compute, by PyTorch: the reference that they are tested against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from agent.learner.inference.logits import Texts


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `norm.rms_norm`."""
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def silu_product(gate: Tensor, up: Tensor) -> Tensor:
    """As `activation.silu_product`."""
    return F.silu(gate) * up


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos: Tensor,
    sin: Tensor,
    texts: Sequence[Texts],
    scaling: float,
) -> Tensor:
    """As `attention.attention`."""
    turned = (_turned(query, cos, sin), _turned(key, cos, sin), value)
    flat = [x.flatten(0, 1) for x in turned]
    out = torch.zeros_like(query).flatten(0, 1)
    starts = [start for some in texts for start in some.starts.tolist()]
    lengths = [length for some in texts for length in some.lengths.tolist()]
    for start, length in zip(starts, lengths, strict=True):
        own = slice(start, start + length)
        heads = [x[None, own].transpose(1, 2) for x in flat]
        attended = F.scaled_dot_product_attention(
            heads[0],
            heads[1],
            heads[2],
            is_causal=True,
            scale=scaling,
            enable_gqa=True,
        )
        out[own] = attended[0].transpose(0, 1)
    return out.view(query.shape)


def decode(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    place: Tensor,
    scaling: float,
    slots: Tensor | None = None,
) -> Tensor:
    """As `decoding.decode`."""
    if slots is not None:
        keys, values = keys[slots], values[slots]
    texts = torch.arange(len(place), device=place.device)[:, None]
    column = place[:, None] + torch.arange(query.shape[1], device=place.device)  # [N, q]
    column = column.clamp(max=keys.shape[2] - 1)
    keys[texts, :, column] = _turned(key, cos, sin)
    values[texts, :, column] = value
    ahead = torch.arange(keys.shape[2], device=place.device) > column[:, :, None]  # [N, q, W]
    out = F.scaled_dot_product_attention(
        _turned(query, cos, sin).transpose(1, 2),
        keys,
        values,
        attn_mask=torch.zeros(ahead.shape).to(keys).masked_fill(ahead, -torch.inf)[:, None],
        scale=scaling,
        enable_gqa=True,
    )
    return out.transpose(1, 2)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    width = cos.shape[-1]
    first, second = x[..., :width].chunk(2, -1)
    partners = torch.cat([-second, first], -1)
    turned = x[..., :width] * cos[..., None, :] + partners * sin[..., None, :]
    return torch.cat([turned, x[..., width:]], -1)
