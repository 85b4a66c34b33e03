"""The runner: on a CPU it is not there; what it does to sizes on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agent.learner.engine.cuda_graphs import PLACES, ROWS, TOKENS, WIDTH, Runner
from agent.learner.training.lesson import Lesson
from agent.learner.training.rows import Role, Row
from tests.learner.models import CPU, ENCODER, EOS


@pytest.mark.parametrize("unit", [ROWS, WIDTH, PLACES, TOKENS])
def test_on_a_cpu_no_size_is_rounded(unit: int):
    runner = Runner(CPU)
    sizes = range(2 * unit + 2)
    assert [runner.rounded(size, unit) for size in sizes] == list(sizes)


@pytest.mark.parametrize("unit", [ROWS, WIDTH, PLACES, TOKENS])
def test_on_a_gpu_sizes_are_rounded_up_to_whole_units_and_smaller_ones_to_powers_of_2(unit: int):
    runner = Runner(torch.device("cuda"))  # which need not be there: nothing is run
    assert runner.rounded(0, unit) == 0
    for size in range(1, 2 * unit + 2):
        rounded = runner.rounded(size, unit)
        assert size <= rounded < size + unit
        assert rounded % unit == 0 or (size < unit and rounded in (1, 2, 4, 16, 32, 64, 128))
    few = {runner.rounded(size, unit) for size in range(1, unit)}
    assert len(few) <= 4


def test_on_a_cpu_functions_are_called_with_what_is_given_and_nothing_is_kept():
    runner = Runner(CPU)
    assert not runner.has_graphs
    seen: list[tuple[Tensor, ...]] = []

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        seen.append(inputs)
        return (inputs[0] * len(seen),)

    given = torch.ones(3)
    first = runner.run("name", function, [given])
    second = runner.run("name", function, [given])
    assert all(inputs[0] is given for inputs in seen)
    assert len(seen) == 2
    # Outputs of before are not overwritten.
    assert (first[0].tolist(), second[0].tolist()) == ([1.0] * 3, [2.0] * 3)


def test_a_lesson_on_a_cpu_has_no_row_column_or_place_more_than_its_rows():
    row = Row.answering(Role.FACT, ENCODER, "Sky?", "Piano")
    tokens, owners, columns, counted = Lesson([row], EOS, CPU, Runner(CPU)).own_question(1)
    assert tokens.tolist() == [list(row.tokens)]
    assert columns.tolist() == list(row.places)
    assert len(owners) == len(counted) == len(row.places)
