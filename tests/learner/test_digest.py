"""The digest: what it sees, and the one thing that it is known not to see."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from agent.learner.digest import STRIDE, weights_digest
from agent.learner.training.update import adamw_directions, gradient, take_step
from agent.models.tiny import build_tiny


class Weights(nn.Module):
    """A module of nothing but the given parameters."""

    def __init__(self, **parameters: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in parameters.items():
            self.register_parameter(name, nn.Parameter(tensor))


def test_equal_weights_have_equal_digests():
    assert weights_digest(build_tiny()[0]) == weights_digest(build_tiny()[0])


def test_the_smallest_update_changes_it():
    model = build_tiny()[0]
    before = weights_digest(model)
    parameters = list(model.parameters())
    loss = model(input_ids=torch.tensor([[1, 2, 3]])).logits.logsumexp(-1).sum()
    directions = adamw_directions(gradient(loss, parameters))
    take_step(parameters, directions, learning_rate=1e-8)
    assert weights_digest(model) != before


@pytest.mark.parametrize("index", [0, STRIDE, 3 * STRIDE])
def test_one_bit_of_a_sampled_weight_counts(index: int):
    tensor = torch.ones(1000)
    changed = tensor.clone()
    changed[index] = torch.nextafter(tensor[index], torch.tensor(2.0))
    assert weights_digest(Weights(w=tensor)) != weights_digest(Weights(w=changed))


def test_zero_and_minus_zero_are_different_bits():
    assert weights_digest(Weights(w=torch.zeros(1))) != weights_digest(Weights(w=-torch.zeros(1)))


def test_names_count():
    ones, zeros = torch.ones(3), torch.zeros(3)
    assert weights_digest(Weights(a=ones, b=zeros)) != weights_digest(Weights(a=zeros, b=ones))
    assert weights_digest(Weights(a=ones)) != weights_digest(Weights(b=ones))


def test_the_order_of_registration_does_not_count():
    ones, zeros = torch.ones(3), torch.zeros(3)
    assert weights_digest(Weights(a=ones, b=zeros)) == weights_digest(Weights(b=zeros, a=ones))


def test_shape_and_type_count():
    shapes = {weights_digest(Weights(w=torch.zeros(shape))) for shape in [(6,), (2, 3), (3, 2)]}
    assert len(shapes) == 3
    assert weights_digest(Weights(w=torch.zeros(1))) != weights_digest(
        Weights(w=torch.zeros(1, dtype=torch.float16))
    )


def test_a_change_of_an_unsampled_weight_alone_is_missed():
    tensor = torch.ones(1000)
    changed = copy.deepcopy(tensor)
    changed[1] = 5.0
    assert weights_digest(Weights(w=tensor)) == weights_digest(Weights(w=changed))
