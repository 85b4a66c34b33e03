"""Token buckets, with a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.server.access import rate_limit
from agent.server.access.rate_limit import RateLimiter


def test_one_second_s_worth_at_once_and_then_the_rate() -> None:
    limiter = RateLimiter(4)
    assert [limiter.take("a", 100.0) for _ in range(4)] == [0.0] * 4
    assert limiter.take("a", 100.0) == pytest.approx(0.25)
    assert limiter.take("a", 100.2) == pytest.approx(0.05)
    assert limiter.take("a", 100.25) == 0.0
    assert limiter.take("a", 100.25) > 0


def test_each_client_has_a_bucket_of_its_own() -> None:
    limiter = RateLimiter(1)
    assert limiter.take("a", 0.0) == 0.0
    assert limiter.take("a", 0.0) > 0
    assert limiter.take("b", 0.0) == 0.0


def test_less_than_one_a_second_still_lets_one_through() -> None:
    limiter = RateLimiter(0.1)
    assert limiter.take("a", 0.0) == 0.0
    assert limiter.take("a", 0.0) == pytest.approx(10)
    assert limiter.take("a", 10.0) == 0.0


def test_a_batch_goes_through_whole_and_is_paid_off_before_the_next_call() -> None:
    limiter = RateLimiter(10)
    assert limiter.take("a", 0.0, 100) == 0.0
    assert limiter.take("a", 0.0) == pytest.approx(9.1)
    assert limiter.take("a", 9.05) > 0
    assert limiter.take("a", 9.2) == 0.0


def test_it_remembers_no_more_clients_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_CLIENTS", 3)
    limiter = RateLimiter(1)
    for client in "abcd":
        limiter.take(client, 0.0)
    assert len(limiter._full_at) == 3
    assert limiter.take("d", 0.0) > 0
    assert limiter.take("a", 0.0) == 0.0  # the one that was quiet longest


@given(
    st.floats(0.01, 1000),
    st.lists(st.floats(0, 10), min_size=1, max_size=60),
)
def test_never_more_than_the_rate_and_never_refused_after_the_wait(
    rate: float, gaps: list[float]
) -> None:
    limiter, now = RateLimiter(rate), 0.0
    for taken, gap in enumerate(gaps, start=1):
        now += gap
        wait = limiter.take("a", now)
        if wait:
            now += wait * (1 + 1e-6) + 1e-9
            assert limiter.take("a", now) == 0.0
        assert taken <= max(rate, 1.0) + rate * now * (1 + 1e-6) + 1e-6
