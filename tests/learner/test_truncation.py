"""The likeliest tokens, found part by part."""

from __future__ import annotations

import pytest
import torch

from agent.learner.sampling.truncation import PART, likeliest


@pytest.mark.parametrize("parts", [16, 40])
@pytest.mark.parametrize("more", [0, 1])
def test_the_likeliest_are_those_of_topk(parts: int, more: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(9, parts * PART + more)
    logits[0] = torch.arange(logits.shape[1])  # one in each part
    logits[1, ::parts] += 10  # all in one
    for most in (1, 4, 10):
        values, places = likeliest(logits, most)
        expected = torch.topk(logits, most)
        assert torch.equal(values, expected.values)
        assert torch.equal(places, expected.indices)


def test_nan_is_among_them() -> None:
    logits = torch.randn(2, 16 * PART)
    logits[0, 700] = float("nan")
    values, _ = likeliest(logits, 3)
    assert values.isnan().any(-1).tolist() == [True, False]
