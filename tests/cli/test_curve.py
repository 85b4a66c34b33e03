"""The rate curve as text: where points stand, how the chosen rate is marked, and that it fits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.curve import LABEL_WIDTH, LEAST_WIDTH, ROWS, TITLE, curve_lines
from memory_store.vocabulary import RatePoint

# As a search compares them.
GRID = [1e-6 * 5000.0 ** (number / 15) for number in range(16)]
RISING = [0.0] * 6 + [0.1, 0.35, 0.62, 0.81, 0.95, 1.0, 1.0, 0.9, 0.5, 0.2]
CURVE = [RatePoint(rate, p) for rate, p in zip(GRID, RISING, strict=True)]


def test_a_whole_curve_at_80_columns() -> None:
    assert curve_lines(CURVE, GRID[10]) == [
        "Rate curve: p after the first step",
        "1.0 |                                                      *    *",
        "    |                                                 @              *",
        "    |                                            *    :",
        "    |                                                 :",
        "    |                                       *         :",
        "0.5 |                                                 :                   *",
        "    |                                   *             :",
        "    |                                                 :",
        "    |                                                 :                        *",
        "    |                              *                  :",
        "0.0 |*    *    *    *    *    *                       :",
        "    ++-------------------+-------------------+-------------------+--------------",
        "     1e-6                1e-5                1e-4                1e-3",
        "                                                      ^ 0.000292 was chosen",
    ]


def test_the_ends_and_the_middle_of_both_axes() -> None:
    points = [RatePoint(1e-6, 0.0), RatePoint(1e-4, 0.5), RatePoint(1e-2, 1.0)]
    assert curve_lines(points, None, 48) == [
        TITLE,
        "1.0 |                                          *",
        *["    |"] * 4,
        "0.5 |                     *",
        *["    |"] * 4,
        "0.0 |*",
        "    ++---------+----------+----------+---------+",
        "     1e-6      1e-5       1e-4       1e-3   1e-2",
    ]


def test_without_points_nothing_is_drawn() -> None:
    assert curve_lines([], 1e-4) == []
    assert curve_lines((), None) == []


def field(lines: list[str]) -> list[str]:
    """What stands between the axes, from the top."""
    return [line[LABEL_WIDTH + 1 :] for line in lines[1 : ROWS + 1]]


@pytest.mark.parametrize("chosen", GRID)
def test_the_chosen_rate_is_marked_from_its_point_down_to_its_number(chosen: float) -> None:
    lines = curve_lines(CURVE, chosen)
    arrow = lines[-1].index("^")
    assert f"{chosen:.3g} was chosen" in lines[-1]
    marked = [
        (row, line[arrow])
        for row, line in enumerate(lines[1 : ROWS + 1])
        if line[arrow : arrow + 1].strip()
    ]
    (first_row, first), *rest = marked
    assert first == "@"
    assert rest == [(row, ":") for row in range(first_row + 1, ROWS)]
    assert sum(line.count("@") for line in lines) == 1
    assert sum(line.count("*") for line in field(lines)) == len(CURVE) - 1


@pytest.mark.parametrize("chosen", [1e-4, 1e-8, 1e-1])
def test_a_rate_between_or_beside_the_points_is_marked_on_the_axis(chosen: float) -> None:
    lines = curve_lines(CURVE, chosen)
    assert not any("@" in line for line in lines)
    assert sum(line.count(":") for line in field(lines)) == 1
    assert field(lines)[-1][lines[-1].index("^") - LABEL_WIDTH - 1] == ":"


def test_a_probability_that_is_no_number_is_left_out() -> None:
    points = [*CURVE[:-1], RatePoint(GRID[-1], math.nan)]
    lines = curve_lines(points, None)
    assert sum(line.count("*") for line in field(lines)) == len(CURVE) - 1
    assert curve_lines(points, GRID[-1])[-1].endswith("0.005 was chosen ^")


def test_a_single_point_stands_in_the_middle() -> None:
    lines = curve_lines([RatePoint(1e-4, 0.7)], 1e-4, 80)
    assert field(lines)[3].index("@") == (80 - LABEL_WIDTH - 1) // 2


@given(
    st.lists(
        st.builds(RatePoint, st.floats(1e-8, 1e-1), st.floats(0, 1) | st.just(math.nan)),
        min_size=1,
        max_size=20,
    ),
    st.none() | st.floats(1e-8, 1e-1),
    st.integers(1, 120),
)
def test_any_curve_fits_its_width_in_plain_characters(
    points: list[RatePoint], chosen: float | None, width: int
) -> None:
    points.sort(key=lambda point: point.learning_rate)
    lines = curve_lines(points, chosen, width)
    assert len(lines) == ROWS + (3 if chosen is None else 4)
    assert all(len(line) <= max(width, LEAST_WIDTH) for line in lines)
    assert all(line.isascii() and line == line.rstrip() for line in lines)
    for line in lines[1 : ROWS + 1]:
        assert line[LABEL_WIDTH] == "|"
    if chosen is not None:
        arrow = lines[-1].index("^")
        assert lines[ROWS][arrow] in ":@*"
