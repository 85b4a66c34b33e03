"""Causal attention over short texts, rotary positions included, in one kernel each way.

A text of some hundred tokens fits into one program with all its keys, so no softmax is made
piecewise, and nothing is summed by atomics: the gradient is the same on every run. A program of the
backward pass owns a head of keys and values and goes through the heads of queries that share it
(Ainslie et al. 2023).

Rotary positions (Su et al. 2021) turn column d of the first R with its *partner*, d + R/2 or
d - R/2. A kernel cannot permute columns that it holds, but it can load them in another order: so
what is needed of partners is computed from partners.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from agent.learner.inference.logits import Texts

LEAST = 16  # rows of the smallest product of matrices


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos: Tensor,
    sin: Tensor,
    texts: Sequence[Texts],
    scaling: float,
) -> Tensor:
    """Attention of each token to those of its text up to it.

    Args:
        query: [B, T, H, D], fp32; D a power of 2, at least 16.
        key: [B, T, K, D], before positions as the queries are; H is a multiple of K.
        value: [B, T, K, D].
        cos: [T, R], R at most D: the first R columns are turned.
        sin: likewise.
        texts: all of the B * T tokens, those about as long together: each such group is a launch.
            If they are packed, B is 1, and `cos` and `sin` are those of each token.
        scaling: of the scores.

    Returns:
        [B, T, H, D], contiguous.
    """
    flat = (x.flatten(0, 1) for x in (query, key, value))
    attended: Tensor = _Attention.apply(*flat, cos, sin, texts, scaling)
    return attended.view(query.shape)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cos: Tensor,
        sin: Tensor,
        texts: Sequence[Texts],
        scaling: float,
    ) -> Tensor:
        query, key, value = (_rows(x) for x in (query, key, value))
        cos, sin = cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(query, key, value, cos, sin)
        ctx.texts, ctx.scaling = texts, scaling
        _, heads, width = query.shape
        out = torch.empty(query.shape, device=query.device, dtype=query.dtype)
        for some in texts:
            _forward[(len(some.starts), heads)](
                query,
                key,
                value,
                cos,
                sin,
                some.starts,
                some.lengths,
                out,
                *query.stride()[:2],
                *key.stride()[:2],
                *value.stride()[:2],
                scaling,
                heads,
                turned=cos.shape[-1],
                packed=some.packed,
                group=heads // key.shape[1],
                rows=_rounded(some.longest),
                width=width,
                precision=_precision(),
            )
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, cos, sin = ctx.saved_tensors
        grad = grad.contiguous()
        _, heads, width = query.shape
        found = [torch.empty(x.shape, device=x.device, dtype=x.dtype) for x in (query, key, value)]
        for some in ctx.texts:
            _backward[(len(some.starts), key.shape[1])](
                query,
                key,
                value,
                cos,
                sin,
                some.starts,
                some.lengths,
                grad,
                *found,
                *query.stride()[:2],
                *key.stride()[:2],
                *value.stride()[:2],
                ctx.scaling,
                heads,
                key.shape[1],
                turned=cos.shape[-1],
                packed=some.packed,
                group=heads // key.shape[1],
                rows=_rounded(some.longest),
                width=width,
                precision=_precision(),
            )
        return *found, None, None, None, None


def _rows(x: Tensor) -> Tensor:
    """With columns side by side; rows may be anywhere."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _rounded(tokens: int) -> int:
    return max(LEAST, int(triton.next_power_of_2(tokens)))


def _precision() -> str:
    """Of the products, as PyTorch's own."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


@triton.jit
def _partner(column, turned: tl.constexpr):
    half: tl.constexpr = turned // 2
    partner = tl.where(column < half, column + half, column - half)
    return tl.where(column < turned, partner, column)


@triton.jit
def _position(cos_at, sin_at, row, column, inside, turned: tl.constexpr):
    """Cosine, and sine with the partner's sign, of each place; 1 and 0 where none is turned."""
    where = inside & (column < turned)[None, :]
    place = row[:, None] * turned + column[None, :]
    cos = tl.load(cos_at + place, mask=where, other=1.0)
    sin = tl.load(sin_at + place, mask=where, other=0.0)
    return cos, tl.where((column < turned // 2)[None, :], -sin, sin)


@triton.jit
def _forward(
    query_at, key_at, value_at, cos_at, sin_at, starts_at, lengths_at, out_at,
    query_t, query_h, key_t, key_h, value_t, value_h,
    scaling, heads,
    turned: tl.constexpr, packed: tl.constexpr, group: tl.constexpr, rows: tl.constexpr,
    width: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    text, head = tl.program_id(0), tl.program_id(1)
    row, column = tl.arange(0, rows), tl.arange(0, width)
    partner = _partner(column, turned)
    length = tl.load(lengths_at + text)
    inside = (row < length)[:, None] & (column < width)[None, :]
    token = tl.load(starts_at + text) + row
    position = token if packed else row
    cos, sin = _position(cos_at, sin_at, position, column, inside, turned)

    base = query_at + head * query_h + token[:, None] * query_t
    query = tl.load(base + column[None, :], mask=inside, other=0.0) * cos
    query += tl.load(base + partner[None, :], mask=inside, other=0.0) * sin
    base = key_at + head // group * key_h + token[:, None] * key_t
    key = tl.load(base + column[None, :], mask=inside, other=0.0) * cos
    key += tl.load(base + partner[None, :], mask=inside, other=0.0) * sin
    base = value_at + head // group * value_h + token[:, None] * value_t
    value = tl.load(base + column[None, :], mask=inside, other=0.0)

    scores = tl.dot(query, tl.trans(key), input_precision=precision) * scaling
    scores = tl.where(row[:, None] >= row[None, :], scores, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    weights = weights / tl.sum(weights, 1)[:, None]
    out = tl.dot(weights, value, input_precision=precision)
    place = (token[:, None] * heads + head) * width + column[None, :]
    tl.store(out_at + place, out, mask=inside)


@triton.jit
def _backward(
    query_at, key_at, value_at, cos_at, sin_at, starts_at, lengths_at, grad_at,
    of_query_at, of_key_at, of_value_at,
    query_t, query_h, key_t, key_h, value_t, value_h,
    scaling, heads, key_heads,
    turned: tl.constexpr, packed: tl.constexpr, group: tl.constexpr, rows: tl.constexpr,
    width: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    text, key_head = tl.program_id(0), tl.program_id(1)
    row, column = tl.arange(0, rows), tl.arange(0, width)
    partner = _partner(column, turned)
    length = tl.load(lengths_at + text)
    inside = (row < length)[:, None] & (column < width)[None, :]
    token = tl.load(starts_at + text) + row
    position = token if packed else row
    cos, sin = _position(cos_at, sin_at, position, column, inside, turned)
    # The same of each place's partner. What a place gave to its partner comes back with that sine.
    cos_p, sin_p = _position(cos_at, sin_at, position, partner, inside, turned)

    base = key_at + key_head * key_h + token[:, None] * key_t
    plain = tl.load(base + column[None, :], mask=inside, other=0.0)
    other = tl.load(base + partner[None, :], mask=inside, other=0.0)
    key, key_p = plain * cos + other * sin, other * cos_p + plain * sin_p
    base = value_at + key_head * value_h + token[:, None] * value_t
    value = tl.load(base + column[None, :], mask=inside, other=0.0)

    of_key = tl.zeros((rows, width), dtype=tl.float32)
    of_key_p = tl.zeros((rows, width), dtype=tl.float32)
    of_value = tl.zeros((rows, width), dtype=tl.float32)
    for member in range(group):
        head = key_head * group + member
        base = query_at + head * query_h + token[:, None] * query_t
        plain = tl.load(base + column[None, :], mask=inside, other=0.0)
        other = tl.load(base + partner[None, :], mask=inside, other=0.0)
        query, query_p = plain * cos + other * sin, other * cos_p + plain * sin_p
        place = (token[:, None] * heads + head) * width + column[None, :]
        grad = tl.load(grad_at + place, mask=inside, other=0.0)

        scores = tl.dot(query, tl.trans(key), input_precision=precision) * scaling
        scores = tl.where(row[:, None] >= row[None, :], scores, float("-inf"))
        weights = tl.exp(scores - tl.max(scores, 1)[:, None])
        weights = weights / tl.sum(weights, 1)[:, None]

        of_value += tl.dot(tl.trans(weights), grad, input_precision=precision)
        of_weights = tl.dot(grad, tl.trans(value), input_precision=precision)
        along = tl.sum(of_weights * weights, 1)[:, None]
        of_scores = weights * (of_weights - along) * scaling
        of_query = tl.dot(of_scores, key, input_precision=precision) * cos
        of_query += tl.dot(of_scores, key_p, input_precision=precision) * sin_p
        tl.store(of_query_at + place, of_query, mask=inside)
        of_key += tl.dot(tl.trans(of_scores), query, input_precision=precision)
        of_key_p += tl.dot(tl.trans(of_scores), query_p, input_precision=precision)

    place = (token[:, None] * key_heads + key_head) * width + column[None, :]
    tl.store(of_key_at + place, of_key * cos + of_key_p * sin_p, mask=inside)
    tl.store(of_value_at + place, of_value, mask=inside)
