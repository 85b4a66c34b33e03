"""The window of candidates that a prediction opens: when it is enough, and when it is not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.teaching.rates import (
    GRID,
    KNOWN_PROBABILITY,
    compare,
    shows_choice,
    smallest_reaching,
    window_around,
)
from memory_store.vocabulary import RatePoint

SPACING = math.log10(GRID[1] / GRID[0])
LARGEST = st.one_of(st.sampled_from(GRID), st.floats(1e-8, 1e-1))
EXPECTED = st.floats(GRID[0], GRID[-1])
SPREAD = st.floats(0, 2)


class Profile:
    """Scores rates by a list of probabilities, one for each candidate; counts them."""

    def __init__(self, probabilities: Sequence[float]) -> None:
        self._points = dict(zip(GRID, probabilities, strict=True))
        self.asked: list[list[float]] = []

    def __call__(self, rates: Sequence[float]) -> list[RatePoint]:
        self.asked.append(list(rates))
        return [RatePoint(rate, self._points[rate]) for rate in rates]


def choices(probabilities: Sequence[float], largest: float, window: Sequence[float]):
    """The rate chosen by search, that by the window, and how many candidates that took."""
    by_search = smallest_reaching(Profile(probabilities)(GRID), KNOWN_PROBABILITY, largest)
    profile = compare(Profile(probabilities), largest, window)
    return by_search, smallest_reaching(profile, KNOWN_PROBABILITY, largest), len(profile)


def around(index: int, largest: float = GRID[-1], spread: float = 0.0) -> tuple[float, ...]:
    return window_around(GRID[index], spread, largest)


def reaching(*indices: int) -> list[float]:
    """Probabilities that reach the target at these candidates alone."""
    return [0.95 if index in indices else 0.3 for index in range(16)]


# --- Where it is ----------------------------------------------------------------------------------


def test_four_candidates_one_more_of_them_below():
    assert around(7) == GRID[5:9]
    assert window_around(GRID[7] * 1.3, 0.0, 1.0) == GRID[5:9]
    assert window_around(GRID[7] * 1.4, 0.0, 1.0) == GRID[6:10]


def test_it_grows_with_the_spread():
    assert around(7, spread=0.9 * SPACING) == GRID[5:9]
    assert around(7, spread=1.5 * SPACING) == GRID[4:10]
    assert around(7, spread=9.0) == GRID


def test_it_ends_at_the_ends_of_what_is_allowed():
    assert around(0) == GRID[:2]
    assert around(15) == GRID[13:]
    assert around(15, largest=GRID[8] * 1.1) == GRID[6:9]
    assert around(7, largest=GRID[0] / 2) == ()


@given(expected=EXPECTED, spread=SPREAD, largest=LARGEST)
def test_it_is_a_run_of_allowed_candidates(expected: float, spread: float, largest: float):
    found = window_around(expected, spread, largest)
    allowed = [rate for rate in GRID if rate <= largest]
    assert bool(found) == bool(allowed)
    start = GRID.index(found[0]) if found else 0
    assert found == GRID[start : start + len(found)]
    assert all(rate <= largest for rate in found)


# --- When it is enough ----------------------------------------------------------------------------


@pytest.mark.parametrize("index", [6, 7, 8])
def test_a_lower_end_in_the_window_is_chosen(index: int):
    probabilities = reaching(*range(index, 12))
    assert choices(probabilities, GRID[-1], around(7)) == (GRID[index], GRID[index], 4)


@pytest.mark.parametrize("index", [2, 5, 9, 13])
def test_without_a_lower_end_in_it_all_candidates_are_scored_each_once(index: int):
    probabilities = reaching(*range(index, 16))
    assert choices(probabilities, GRID[-1], around(7)) == (GRID[index], GRID[index], 16)
    score = Profile(probabilities)
    compare(score, GRID[-1], around(7))
    assert score.asked == [list(GRID[5:9]), [*GRID[:5], *GRID[9:]]]


def test_the_smallest_candidate_needs_none_below():
    assert choices(reaching(0, 1), GRID[-1], around(0)) == (GRID[0], GRID[0], 2)


def test_if_none_reaches_it_must_show_the_peak():
    rising = [index / 20 for index in range(16)]
    assert choices(rising, GRID[8], around(8, GRID[8])) == (GRID[8], GRID[8], 3)
    # The largest is not in the window: more could reach.
    assert choices(rising, GRID[8], around(5, GRID[8])) == (GRID[8], GRID[8], 16)
    falling = rising[::-1]
    # One below could reach.
    assert choices(falling, GRID[8], around(8, GRID[8]))[2] == 16
    peaked = [0.8 - abs(index - 7) / 20 for index in range(16)]
    assert choices(peaked, GRID[12], around(7, GRID[12])) == (GRID[12], GRID[12], 4)
    # The largest allowed rate need not be a candidate.
    between = GRID[12] * 1.1
    assert choices(peaked, between, around(7, between)) == (between, between, 4)


def test_flat_says_nothing():
    assert choices([0.0] * 16, GRID[8], around(8, GRID[8]))[2] == 16
    assert choices([math.nan] * 16, GRID[8], around(8, GRID[8]))[2] == 16


def test_rates_that_reach_apart_from_each_other_may_be_missed():
    """The only way to choose otherwise than search; docs/design.md says so."""
    probabilities = reaching(2, 7, 8, 9)
    assert choices(probabilities, GRID[-1], around(7)) == (GRID[2], GRID[7], 4)
    # Seen in the window, the search is as it was.
    assert choices(reaching(5, 8, 9), GRID[-1], around(7)) == (GRID[5], GRID[5], 16)


@given(
    heights=st.lists(st.floats(0, 1), min_size=16, max_size=16, unique=True),
    peak=st.integers(0, 15),
    expected=EXPECTED,
    spread=SPREAD,
    largest=LARGEST,
)
def test_with_one_peak_the_choice_is_that_of_search(
    heights: list[float], peak: int, expected: float, spread: float, largest: float
):
    heights.sort()
    one_peak = [*heights[:peak], *sorted(heights[peak:], reverse=True)]
    window = window_around(expected, spread, largest)
    by_search, chosen, count = choices(one_peak, largest, window)
    assert chosen == by_search
    assert count <= 16


@given(
    low=st.lists(st.floats(0, 0.89), min_size=16, max_size=16),
    start=st.integers(0, 15),
    length=st.integers(1, 16),
    expected=EXPECTED,
    spread=SPREAD,
    largest=LARGEST,
)
def test_where_the_reaching_rates_are_an_interval_its_end_is_the_choice_of_search(
    low: list[float], start: int, length: int, expected: float, spread: float, largest: float
):
    interval = [0.95 if start <= i < start + length else low[i] for i in range(16)]
    window = window_around(expected, spread, largest)
    if any(GRID.index(rate) in range(start, start + length) for rate in window):
        by_search, chosen, _ = choices(interval, largest, window)
        assert chosen == by_search


def test_one_candidate_alone_is_enough_only_if_there_is_no_other():
    assert shows_choice([RatePoint(GRID[0], 0.1)], KNOWN_PROBABILITY, GRID[0])
    assert not shows_choice([RatePoint(GRID[3], 0.1)], KNOWN_PROBABILITY, GRID[3])
