"""SwiGLU's product in one kernel: silu(gate) times up (Shazeer 2020)."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def silu_product(gate: Tensor, up: Tensor) -> Tensor:
    """Silu(gate) * up; all of one shape, fp32 or fp16."""
    product: Tensor = _SiluProduct.apply(gate, up)
    return product


class _SiluProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        out = torch.empty_like(gate)
        size = gate.numel()
        _forward[(triton.cdiv(size, BLOCK),)](gate, up, out, size, block=BLOCK)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad = grad.contiguous()
        of_gate, of_up = torch.empty_like(gate), torch.empty_like(up)
        size = gate.numel()
        _backward[(triton.cdiv(size, BLOCK),)](gate, up, grad, of_gate, of_up, size, block=BLOCK)
        return of_gate, of_up


@triton.jit
def _forward(gate_at, up_at, out_at, size, block: tl.constexpr):
    place = tl.program_id(0) * block + tl.arange(0, block)
    inside = place < size
    gate = tl.load(gate_at + place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_at + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_at + place, gate * tl.sigmoid(gate) * up, mask=inside)


@triton.jit
def _backward(gate_at, up_at, grad_at, of_gate_at, of_up_at, size, block: tl.constexpr):
    place = tl.program_id(0) * block + tl.arange(0, block)
    inside = place < size
    gate = tl.load(gate_at + place, mask=inside, other=0.0)
    up = tl.load(up_at + place, mask=inside, other=0.0)
    grad = tl.load(grad_at + place, mask=inside, other=0.0)
    share = tl.sigmoid(gate)
    # (x s(x))' = s(x) (1 + x (1 - s(x)))
    tl.store(of_gate_at + place, grad * up * share * (1.0 + gate * (1.0 - share)), mask=inside)
    tl.store(of_up_at + place, grad * gate * share, mask=inside)
