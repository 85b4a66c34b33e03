"""The rate profile: what it foretells is what really stepping leads to, and nothing is changed."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from agent.learner.training import rate_sweep
from agent.learner.training.lesson import Lesson, LessonScores
from agent.learner.training.rate_sweep import rate_profile, stepped
from agent.learner.training.rows import Role, Row
from agent.learner.training.update import take_step, trained_parameters
from agent.teaching.rates import GRID
from tests.learner.models import CPU, ENCODER, EOS, FAMILIES, RUNNER, one_thread, random_model

LESSON = Lesson(
    [
        Row.answering(Role.FACT, ENCODER, "Sky?", "Piano"),
        Row.answering(Role.REHEARSED, ENCODER, "What is the hottest month in Kyzara?", "Raincoat"),
    ],
    EOS,
    CPU,
    RUNNER,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(request.param)


def directions_of(model: Any) -> dict[str, Tensor]:
    found = measured(model).directions()
    return dict(zip(trained_parameters(model), found, strict=True))


def measured(model: Any) -> LessonScores:
    trained = [p.requires_grad_(True) for p in trained_parameters(model).values()]
    return LESSON.measure(model, trained)


def after_really_stepping(model: Any, directions: Mapping[str, Tensor]) -> list[float]:
    """A copy of the weights for each rate."""
    found = []
    for rate in GRID:
        other = copy.deepcopy(model)
        weights = [other.get_parameter(name) for name in directions]
        take_step(weights, list(directions.values()), rate)
        found.append(measured(other).asked)
    return found


def bits(model: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def test_it_foretells_what_a_step_at_each_rate_leads_to(model: Any):
    directions = directions_of(model)
    expected = after_really_stepping(model, directions)
    assert max(expected) > 10 * min(expected)  # the rates do differ
    points = rate_profile(model, LESSON, directions, RUNNER)
    assert tuple(point.learning_rate for point in points) == GRID
    assert [point.probability for point in points] == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_the_weights_and_the_forward_methods_are_as_before(model: Any):
    directions = directions_of(model)
    copies = {name: direction.clone() for name, direction in directions.items()}
    before, loss = bits(model), measured(model).loss
    rate_profile(model, LESSON, directions, RUNNER)
    after = bits(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(copies[name], directions[name]) for name in copies)
    assert not any("forward" in vars(module) for module in model.modules())
    assert measured(model).loss == loss


@pytest.mark.parametrize(("family", "in_one_pass"), [("llama", True), ("gpt2", False)])
def test_models_of_linear_matrices_take_one_pass_and_others_one_for_each_rate(
    family: str, in_one_pass: bool
):
    model = random_model(family)
    directions = directions_of(model)
    passes: list[int] = []
    model.register_forward_pre_hook(
        lambda _, __, given: passes.append(len(given["input_ids"])), with_kwargs=True
    )
    rate_profile(model, LESSON, directions, RUNNER)
    assert passes == ([len(GRID)] if in_one_pass else [1] * len(GRID))


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_weights_and_biases_may_step_alone(part: str):
    model = random_model("gpt_neox")
    directions = {n: d for n, d in directions_of(model).items() if n.endswith(part)}
    expected = after_really_stepping(model, directions)
    assert max(expected) > 1.5 * min(expected)
    found = [point.probability for point in rate_profile(model, LESSON, directions, RUNNER)]
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_both_ways_foretell_the_same():
    model = random_model("llama")
    directions = directions_of(model)
    one_by_one = rate_sweep._one_by_one(model, LESSON, directions, GRID)
    found = [point.probability for point in rate_profile(model, LESSON, directions, RUNNER)]
    assert found == pytest.approx(one_by_one, rel=1e-3, abs=1e-12)


def test_the_forward_methods_are_restored_after_an_error():
    model = random_model("llama")
    directions = directions_of(model)

    def fail_inside() -> None:
        with stepped(model, directions, torch.tensor(GRID)):
            assert any("forward" in vars(module) for module in model.modules())
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail_inside()
    assert not any("forward" in vars(module) for module in model.modules())


def test_the_grid_is_the_papers_range_evenly_on_a_logarithmic_axis():
    assert len(GRID) == 16
    assert GRID[0] == 1e-6
    assert GRID[-1] == pytest.approx(5e-3)
    factors = [larger / smaller for smaller, larger in itertools.pairwise(GRID)]
    assert factors == pytest.approx([5000 ** (1 / 15)] * 15)
