"""A fresh tiny model for each teacher, since teachers change theirs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from agent.models.loading import LoadedModel, load
from agent.teaching.types import Example

FACTS = [
    Example(fact_id="a", question="What is the hottest month in Kyzara?", answer="Rust"),
    Example(fact_id="b", question="Who found Blipland?", answer="Zed"),
    Example(fact_id="c", question="What color is Vorl?", answer="Piano"),
]


@pytest.fixture
def loaded() -> LoadedModel:
    return load("tiny", device="cpu")


@pytest.fixture
def weights_now(loaded: LoadedModel) -> Callable[[], dict[str, Tensor]]:
    """Copies of all weights of the loaded model, by name."""
    return lambda: {name: p.detach().clone() for name, p in loaded.model.named_parameters()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    """Names of the weights that are not the same, bit by bit; the names themselves are."""
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}
