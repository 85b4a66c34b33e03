"""The next token of each text: attention to what a cache keeps of it, rotary position included.

A program has a token and a head of keys and values. It adds the new key and value to the cache, and
reads the older ones only as far as its own text reaches, for all heads of queries that share them
(Ainslie et al. 2023), a block of columns at a time with a running softmax (Milakov & Gimelshein
2018). Blocks begin at the first column, so what comes out does not depend on the other texts.

To look ahead, some tokens follow a text, of which the cache is not told: each program reads its
text's columns where they are, and the new tokens before its own beside them.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from agent.learner.engine.kernels.attention import _partner

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
    slots: Tensor | None = None,
) -> Tensor:
    """Attention of new tokens of each text to all up to them. Has no gradient.

    Args:
        query: [N, q, H, D], fp32 or fp16 as all others are; D a power of 2. Sums are fp32.
        key: [N, q, K, D], before positions as the queries are; H is a multiple of K.
        value: [N, q, K, D].
        cos: [N, q, R], R at most D: the first R columns are turned, each token's by its own.
        sin: likewise.
        keys: [N, K, W, D], positions included; the new ones are added.
        values: likewise.
        place: [N] int64, the column of the first new token: so many are before it.
        scaling: of the scores.
        slots: [N] int64, the row of `keys` and `values` that each text is in, if nothing is to be
            added to them. Without it q is 1.

    Returns:
        [N, q, H, D], contiguous.
    """
    texts, tokens, heads, width = query.shape
    key_heads = key.shape[2]
    # Columns side by side; all else may be anywhere.
    query, key, value, cos, sin = (
        x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, value, cos, sin)
    )
    out = torch.empty(query.shape, device=query.device, dtype=query.dtype)
    _decode[(texts * tokens, key_heads)](
        query, key, value, cos, sin, keys, values, place, place if slots is None else slots, out,
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3],
        *cos.stride()[:2], *sin.stride()[:2], *keys.stride()[:3], *values.stride()[:3],
        scaling, heads,
        tokens=tokens,
        looks=slots is not None,
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
    query_at, key_at, value_at, cos_at, sin_at, keys_at, values_at, place_at, slots_at, out_at,
    query_n, query_t, query_h, key_n, key_t, key_h, value_n, value_t, value_h,
    cos_n, cos_t, sin_n, sin_t, keys_n, keys_h, keys_w, values_n, values_h, values_w,
    scaling, heads,
    tokens: tl.constexpr, looks: tl.constexpr, turned: tl.constexpr, group: tl.constexpr,
    members: tl.constexpr, width: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    # Of 64 bits: a cache may have more numbers than 32 can count.
    text, token = tl.program_id(0).to(tl.int64) // tokens, tl.program_id(0) % tokens
    head = tl.program_id(1)
    column, member = tl.arange(0, width), tl.arange(0, members)
    partner = _partner(column, turned)
    place = tl.load(place_at + text).to(tl.int32)
    slot = text
    if looks:
        slot = tl.load(slots_at + text)
    query_at += text * query_n + token * query_t
    key_at += text * key_n + head * key_h
    value_at += text * value_n + head * value_h
    cos_at += text * cos_n
    sin_at += text * sin_n
    keys_at += slot * keys_n + head * keys_h
    values_at += slot * values_n + head * values_h

    cos, sin = _angle(cos_at + token * cos_t, sin_at + token * sin_t, column, turned)
    base = key_at + token * key_t
    key = tl.load(base + column) * cos + tl.load(base + partner) * sin
    value = tl.load(value_at + token * value_t + column).to(tl.float32)
    if not looks:
        tl.store(keys_at + place * keys_w + column, key)
        tl.store(values_at + place * values_w + column, value)

    shared = (member < group)[:, None] & (column < width)[None, :]
    base = query_at + (head * group + member[:, None]) * query_h
    query = tl.load(base + column[None, :], mask=shared, other=0.0) * cos[None, :]
    query += tl.load(base + partner[None, :], mask=shared, other=0.0) * sin[None, :]

    # The token itself comes first: then no sum is ever empty.
    highest = tl.sum(query * key[None, :], 1) * scaling
    total = tl.full((members,), 1.0, dtype=tl.float32)
    out = tl.zeros((members, width), dtype=tl.float32) + value[None, :]
    for other in tl.static_range(tokens - 1):
        cos, sin = _angle(cos_at + other * cos_t, sin_at + other * sin_t, column, turned)
        base = key_at + other * key_t
        key = tl.load(base + column) * cos + tl.load(base + partner) * sin
        value = tl.load(value_at + other * value_t + column).to(tl.float32)
        score = tl.sum(query * key[None, :], 1) * scaling
        score = tl.where(other < token, score, float("-inf"))
        higher = tl.maximum(highest, score)
        weight, kept = tl.exp(score - higher), tl.exp(highest - higher)
        total = total * kept + weight
        out = out * kept[:, None] + weight[:, None] * value[None, :]
        highest = higher
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
    row = (text * tokens + token) * heads + head * group + member[:, None]
    tl.store(out_at + row * width + column[None, :], out / total[:, None], mask=shared)


@triton.jit
def _angle(cos_at, sin_at, column, turned: tl.constexpr):
    """Cosine, and sine with the partner's sign, of a token; 1 and 0 where none is turned."""
    cos = tl.load(cos_at + column, mask=column < turned, other=1.0).to(tl.float32)
    sin = tl.load(sin_at + column, mask=column < turned, other=0.0).to(tl.float32)
    return cos, tl.where(column < turned // 2, -sin, sin)
