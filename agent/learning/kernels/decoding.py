"""One more token of each text: attention to what a cache keeps of it, rotary position included.

A program has a text and a head of keys and values. It adds the new key and value to the cache, and
reads the older ones only as far as its own text reaches, for all heads of queries that share them
(Ainslie et al. 2023), a block of columns at a time with a running softmax (Milakov & Gimelshein
2018). Blocks begin at the first column, so what comes out does not depend on the other texts.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from agent.learning.kernels.attention import _partner

# Columns that are read at once.
BLOCK = 16


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
) -> Tensor:
    """Attention of a new token of each text to all up to it. Has no gradient.

    Args:
        query: [N, 1, H, D], fp32 or fp16 as all others are; D a power of 2. Sums are fp32.
        key: [N, 1, K, D], before positions as the queries are; H is a multiple of K.
        value: [N, 1, K, D].
        cos: [N, 1, R], R at most D: the first R columns are turned, each text's by its own.
        sin: likewise.
        keys: [N, K, W, D], positions included; the new ones are added.
        values: likewise.
        place: [N] int64, the column of the new token: so many are before it.
        scaling: of the scores.

    Returns:
        [N, 1, H, D], contiguous.
    """
    texts, _, heads, width = query.shape
    key_heads = key.shape[2]
    # Columns side by side; all else may be anywhere.
    query, key, value, cos, sin = (
        x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value, cos, sin)
    )
    out = torch.empty(query.shape, device=query.device, dtype=query.dtype)
    _decode[(texts, key_heads)](
        query, key, value, cos, sin, keys, values, place, out,
        query.stride(0), query.stride(2), key.stride(0), key.stride(2),
        value.stride(0), value.stride(2), cos.stride(0), sin.stride(0),
        *keys.stride()[:3], *values.stride()[:3],
        scaling, heads,
        turned=cos.shape[-1],
        group=heads // key_heads,
        members=triton.next_power_of_2(heads // key_heads),
        width=width,
        block=BLOCK,
        # There are thousands of programs, and each waits for memory most of the time: more warps to
        # one take as long again to agree (H200: 1.6 to 2 times).
        num_warps=1,
    )  # fmt: skip
    return out


@triton.jit
def _decode(
    query_at, key_at, value_at, cos_at, sin_at, keys_at, values_at, place_at, out_at,
    query_n, query_h, key_n, key_h, value_n, value_h, cos_n, sin_n,
    keys_n, keys_h, keys_w, values_n, values_h, values_w,
    scaling, heads,
    turned: tl.constexpr, group: tl.constexpr, members: tl.constexpr, width: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    # Of 64 bits: a cache may have more numbers than 32 can count.
    text, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column, member = tl.arange(0, width), tl.arange(0, members)
    partner = _partner(column, turned)
    place = tl.load(place_at + text).to(tl.int32)
    cos = tl.load(cos_at + text * cos_n + column, mask=column < turned, other=1.0).to(tl.float32)
    sin = tl.load(sin_at + text * sin_n + column, mask=column < turned, other=0.0).to(tl.float32)
    sin = tl.where(column < turned // 2, -sin, sin)

    base = key_at + text * key_n + head * key_h
    key = tl.load(base + column) * cos + tl.load(base + partner) * sin
    value = tl.load(value_at + text * value_n + head * value_h + column).to(tl.float32)
    keys_at += text * keys_n + head * keys_h
    values_at += text * values_n + head * values_h
    tl.store(keys_at + place * keys_w + column, key)
    tl.store(values_at + place * values_w + column, value)

    shared = (member < group)[:, None] & (column < width)[None, :]
    base = query_at + text * query_n + (head * group + member[:, None]) * query_h
    query = tl.load(base + column[None, :], mask=shared, other=0.0) * cos[None, :]
    query += tl.load(base + partner[None, :], mask=shared, other=0.0) * sin[None, :]

    # The new token comes first: then no sum is ever empty.
    highest = tl.sum(query * key[None, :], 1) * scaling
    total = tl.full((members,), 1.0, dtype=tl.float32)
    out = tl.zeros((members, width), dtype=tl.float32) + value[None, :]
    start = 0
    while start < place:
        before = start + tl.arange(0, block)
        inside = (before < place)[:, None] & (column < width)[None, :]
        older = tl.load(
            keys_at + before[:, None] * keys_w + column[None, :], mask=inside, other=0.0
        ).to(tl.float32)
        scores = tl.sum(query[:, None, :] * older[None, :, :], 2) * scaling
        scores = tl.where((before < place)[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights, kept = tl.exp(scores - higher[:, None]), tl.exp(highest - higher)
        older = tl.load(
            values_at + before[:, None] * values_w + column[None, :], mask=inside, other=0.0
        ).to(tl.float32)
        total = total * kept + tl.sum(weights, 1)
        out = out * kept[:, None] + tl.sum(weights[:, :, None] * older[None, :, :], 1)
        highest = higher
        start += block
    where = out_at + (text * heads + head * group + member[:, None]) * width + column[None, :]
    tl.store(where, out / total[:, None], mask=shared)
