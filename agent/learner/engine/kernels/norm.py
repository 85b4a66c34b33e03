"""RMS norm in one kernel: PyTorch takes six.

y = w x / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019). Its weight is not trained (see
`update.trained_parameters`), so only the input has a gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """[.., D] to [.., D], both fp32 or fp16; the mean is fp32."""
    normed: Tensor = _RmsNorm.apply(x, weight, eps)
    return normed


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        out = torch.empty_like(x)
        width = x.shape[-1]
        _forward[(x.numel() // width,)](
            x, weight, out, eps, width, block=triton.next_power_of_2(width)
        )
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        out = torch.empty_like(x)
        width = x.shape[-1]
        _backward[(x.numel() // width,)](
            x, weight, grad, out, ctx.eps, width, block=triton.next_power_of_2(width)
        )
        return out, None, None


@triton.jit
def _forward(x_at, weight_at, out_at, eps, width, block: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, block)
    inside = column < width
    x = tl.load(x_at + row * width + column, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_at + column, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, 0) / width + eps)
    tl.store(out_at + row * width + column, weight * x * scale, mask=inside)


@triton.jit
def _backward(x_at, weight_at, grad_at, out_at, eps, width, block: tl.constexpr):
    row = tl.program_id(0)
    column = tl.arange(0, block)
    inside = column < width
    x = tl.load(x_at + row * width + column, mask=inside, other=0.0)
    weight = tl.load(weight_at + column, mask=inside, other=0.0)
    grad = tl.load(grad_at + row * width + column, mask=inside, other=0.0) * weight
    scale = 1.0 / tl.sqrt(tl.sum(x * x, 0) / width + eps)
    along = tl.sum(grad * x, 0) / width * scale * scale
    tl.store(out_at + row * width + column, scale * (grad - x * along), mask=inside)
