"""The Triton kernels give what PyTorch gives, forward and back, and the same bits each time.

Without a GPU, by Triton's interpreter: `TRITON_INTERPRET=1 python -m pytest -m gpu` on this file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from agent.learner.engine.fused_layers import Operations
from agent.learner.engine.kernels import reference
from agent.learner.inference.logits import Texts
from agent.learner.training.update import ADAM_EPS, adamw_directions

pytestmark = pytest.mark.gpu

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Products in fp32, not TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture(scope="module")
def operations() -> Operations:
    return Operations.by_triton()


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE)


def side_by_side(count: int, tokens: int) -> list[Texts]:
    starts = torch.arange(count, device=DEVICE) * tokens
    return [Texts(starts, torch.full_like(starts, tokens), tokens, packed=False)]


def thirds(joint: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = joint.chunk(3, -1)
    return first, second, third


def results(operation: Callable[..., Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """What comes out, and the gradient of each input."""
    leaves = [one.detach().clone().requires_grad_() for one in inputs]
    out = operation(*leaves)
    weights = torch.linspace(-1, 1, out.numel(), device=DEVICE).view(out.shape)
    return [out, *torch.autograd.grad(out, leaves, weights)]


def require_same(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: Sequence[Tensor]
) -> None:
    found, expected = results(ours, inputs), results(theirs, inputs)
    for one, other in zip(found, expected, strict=True):
        assert ((one - other).norm() / other.norm()).item() < 1e-5
    for one, again in zip(found, results(ours, inputs), strict=True):
        assert torch.equal(one, again)


@pytest.mark.parametrize("width", [16, 48, 576])
def test_rms_norm(operations: Operations, width: int):
    weight = drawn(width)
    require_same(
        lambda x: operations.rms_norm(x, weight, 1e-5),
        lambda x: reference.rms_norm(x, weight, 1e-5),
        [drawn(3, 5, width)],
    )


@pytest.mark.parametrize("size", [7, 1024, 3000])
def test_silu_product(operations: Operations, size: int):
    require_same(operations.silu_product, reference.silu_product, [drawn(2, size), drawn(2, size)])


@pytest.mark.parametrize(
    ("tokens", "heads", "key_heads", "width", "turned"),
    [(13, 4, 2, 16, 16), (16, 3, 3, 32, 8), (20, 6, 2, 64, 64), (40, 2, 2, 64, 16)],
)
def test_attention(
    operations: Operations, tokens: int, heads: int, key_heads: int, width: int, turned: int
):
    angles = torch.rand(tokens, turned // 2, device=DEVICE) * 6
    cos, sin = (f(torch.cat([angles, angles], -1)) for f in (torch.cos, torch.sin))
    texts = side_by_side(2, tokens)
    require_same(
        lambda q, k, v: operations.attention(q, k, v, cos, sin, texts, width**-0.5),
        lambda q, k, v: reference.attention(q, k, v, cos, sin, texts, width**-0.5),
        [drawn(2, tokens, n, width) for n in (heads, key_heads, key_heads)],
    )


@pytest.mark.parametrize(("heads", "key_heads", "turned"), [(3, 3, 32), (6, 2, 8)])
def test_attention_to_texts_end_to_end(
    operations: Operations, heads: int, key_heads: int, turned: int
):
    lengths = torch.tensor([1, 20, 16, 7, 0, 0], device=DEVICE)
    starts = lengths.cumsum(0) - lengths
    texts = [
        Texts(starts[:3], lengths[:3], 32, packed=True),
        Texts(starts[3:], lengths[3:], 16, packed=True),
    ]
    tokens = int(lengths.sum())
    angles = torch.rand(tokens, turned // 2, device=DEVICE) * 6
    cos, sin = (f(torch.cat([angles, angles], -1)) for f in (torch.cos, torch.sin))
    require_same(
        lambda q, k, v: operations.attention(q, k, v, cos, sin, texts, 0.2),
        lambda q, k, v: reference.attention(q, k, v, cos, sin, texts, 0.2),
        [drawn(1, tokens, n, 32) for n in (heads, key_heads, key_heads)],
    )


def test_attention_reads_heads_that_are_parts_of_one_tensor(operations: Operations):
    angles = torch.rand(9, 8, device=DEVICE)
    cos, sin = (f(torch.cat([angles, angles], -1)) for f in (torch.cos, torch.sin))
    require_same(
        lambda joint: operations.attention(*thirds(joint), cos, sin, side_by_side(2, 9), 0.25),
        lambda joint: reference.attention(*thirds(joint), cos, sin, side_by_side(2, 9), 0.25),
        [drawn(2, 9, 2, 48)],
    )


@pytest.mark.parametrize(
    ("heads", "key_heads", "width", "turned"), [(4, 4, 16, 16), (6, 2, 32, 8), (8, 2, 64, 64)]
)
def test_decode(operations: Operations, heads: int, key_heads: int, width: int, turned: int):
    places = [0, 1, 15, 16, 17, 39]
    angles = torch.rand(len(places), 1, turned // 2, device=DEVICE) * 6
    cos, sin = (f(torch.cat([angles, angles], -1)) for f in (torch.cos, torch.sin))
    joint = drawn(len(places), 1, key_heads, 2 * width)  # its halves are not contiguous
    query, (key, value) = drawn(len(places), 1, heads, width), joint.chunk(2, -1)
    kept = [drawn(len(places), key_heads, 40, width) for _ in range(2)]
    place = torch.tensor(places, device=DEVICE)
    # What lies beyond a text is not looked at.
    for state in kept:
        for text, first in enumerate(places):
            state[text, :, first:] = float("nan")
    caches = []
    outs = []
    for operation in (operations.decode, operations.decode, reference.decode):
        keys, values = (state.clone() for state in kept)
        if (
            operation is reference.decode
        ):  # which gives what lies beyond weight 0, and 0 times NaN is NaN
            keys, values = keys.nan_to_num(), values.nan_to_num()
        outs.append(operation(query, key, value, cos, sin, keys, values, place, width**-0.5))
        caches.append((keys.nan_to_num(), values.nan_to_num()))
    ours, again, theirs = outs
    assert ((ours - theirs).norm() / theirs.norm()).item() < 1e-5
    assert torch.equal(ours, again)
    for one, other in zip(caches[0], caches[2], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("tokens", [1, 3])
def test_decode_looks_ahead_without_a_trace(operations: Operations, tokens: int):
    slots, place = torch.tensor([2, 0, 2, 1]), torch.tensor([20, 1, 7, 16])
    angles = torch.rand(4, tokens, 8, device=DEVICE) * 6
    cos, sin = (f(torch.cat([angles, angles], -1)) for f in (torch.cos, torch.sin))
    query, key, value = (drawn(4, tokens, heads, 32) for heads in (6, 2, 2))
    kept = [drawn(3, 2, 24, 32) for _ in range(2)]
    before = [state.clone() for state in kept]
    inputs: list[Any] = [query, key, value, cos, sin, *kept]
    inputs += [place.to(DEVICE), 0.2, slots.to(DEVICE)]
    found = operations.decode(*inputs)
    assert all(map(torch.equal, kept, before))
    expected = reference.decode(*inputs)
    assert ((found - expected).norm() / expected.norm()).item() < 1e-5


@torch.inference_mode()
def test_what_sampling_uses_takes_half_precision(operations: Operations):
    x, up, weight = drawn(3, 5, 48).half(), drawn(3, 5, 48).half(), drawn(48).half()
    query, key, value = (drawn(5, 1, heads, 32).half() for heads in (6, 2, 2))
    cos, sin = (drawn(5, 1, 8).half() for _ in range(2))
    kept = [drawn(5, 2, 20, 32).half() for _ in range(2)]
    place = torch.tensor([0, 1, 15, 16, 19], device=DEVICE)
    pairs: list[tuple[Any, Any, Any, Any]] = [
        (operations.rms_norm, reference.rms_norm, (x, weight), 1e-5),
        (operations.silu_product, reference.silu_product, (x, up), None),
        (operations.decode, reference.decode, (query, key, value, cos, sin, *kept), 0.2),
    ]
    for ours, theirs, inputs, number in pairs:
        more = () if number is None else (place, number) if len(inputs) > 2 else (number,)
        found = ours(*(one.clone() for one in inputs), *more)
        exact = theirs(*(one.float() for one in inputs), *more)
        assert found.dtype == torch.float16
        assert ((found.float() - exact).norm() / exact.norm()).item() < 1e-3


@pytest.mark.parametrize("shape", [(3,), (5000,), (70, 130)])
def test_adamw_direction(shape: tuple[int, ...]):
    from agent.learner.engine.kernels.descent import adamw_direction

    gradient = drawn(*shape) * 1e-6
    gradient.view(-1)[0] = 0
    [expected] = adamw_directions([gradient.clone()])
    ours, again = gradient.clone(), gradient.clone()
    squares = adamw_direction(ours, ADAM_EPS)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(squares.sum().sqrt(), gradient.norm())
    assert torch.equal(squares, adamw_direction(again, ADAM_EPS))
    assert torch.equal(ours, again)
