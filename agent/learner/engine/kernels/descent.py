"""The first step of a fresh AdamW from a gradient, which is read and written once.

PyTorch takes a pass for each of the norm, |g|, the sum with eps, and the quotient.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Numbers of a program: enough of them to hide what memory takes.
BLOCK = 4096


def adamw_direction(gradient: Tensor, eps: float) -> Tensor:
    """Turns a gradient into g / (|g| + eps), in place.

    Args:
        gradient: any shape, fp32, contiguous.
        eps: AdamW's.

    Returns:
        [blocks]: the sum of squares of what it was, in parts.
    """
    size = gradient.numel()
    squares = torch.empty(triton.cdiv(size, BLOCK), device=gradient.device, dtype=torch.float32)
    _direction[(len(squares),)](gradient, squares, eps, size, block=BLOCK)
    return squares


@triton.jit
def _direction(gradient_at, squares_at, eps, size, block: tl.constexpr):
    part = tl.program_id(0)
    place = part.to(tl.int64) * block + tl.arange(0, block)
    g = tl.load(gradient_at + place, mask=place < size, other=0.0)
    tl.store(squares_at + part, tl.sum(g * g, 0))
    tl.store(gradient_at + place, g / (tl.abs(g) + eps), mask=place < size)
