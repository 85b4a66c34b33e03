"""Intervals: known values, and what holds for all counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.metrics import Z_95, Count, wilson_interval

# Correct of total.
counts = st.integers(0, 10_000).flatmap(
    lambda total: st.tuples(st.integers(0, total), st.just(total))
)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (8, 10, 0.4901625, 0.9433178),
        (1, 2, 0.0945312, 0.9054688),
        (50, 100, 0.4038315, 0.5961685),
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_intervals_are_wilsons(correct: int, total: int, low: float, high: float):
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=1e-7)


@given(counts)
def test_the_ends_are_the_shares_that_lie_z_standard_errors_away(count: tuple[int, int]):
    correct, total = count
    for end in wilson_interval(correct, total) if total else ():
        distance = abs(correct / total - end)
        assert distance == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / total), abs=1e-9)


@given(counts)
def test_an_interval_holds_its_share_and_stays_within_0_and_1(count: tuple[int, int]):
    correct, total = count
    low, high = wilson_interval(correct, total)
    assert 0.0 <= low < high <= 1.0
    if total:
        assert low <= correct / total <= high


@given(counts)
def test_wrong_answers_have_the_mirrored_interval(count: tuple[int, int]):
    correct, total = count
    low, high = wilson_interval(correct, total)
    mirrored = pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert wilson_interval(total - correct, total) == mirrored


@given(counts.filter(lambda count: count[1] > 0))
def test_more_questions_narrow_the_interval(count: tuple[int, int]):
    correct, total = count
    low, high = wilson_interval(correct, total)
    narrower_low, narrower_high = wilson_interval(4 * correct, 4 * total)
    assert narrower_high - narrower_low < high - low


def test_the_rate_is_the_share_and_of_nothing_none():
    assert Count(count=3, total=4).rate == 0.75
    assert Count(count=0, total=0).rate is None


def test_a_count_is_written_with_its_denominator_and_interval():
    assert Count.of([True, False, True, True]).as_json() == {
        "count": 3,
        "total": 4,
        "rate": 0.75,
        "interval_95": list(wilson_interval(3, 4)),
    }
    assert Count.of([]).as_json() == {
        "count": 0,
        "total": 0,
        "rate": None,
        "interval_95": [0.0, 1.0],
    }
