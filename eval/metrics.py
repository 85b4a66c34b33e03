"""Counts with what they need to be read: denominator and confidence interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

Z_95 = 1.959963984540054  # the normal distribution's 97.5% quantile


def wilson_interval(correct: float, total: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927); 0 to 1 if nothing was asked.

    Unlike the normal approximation it stays inside 0 and 1, and is right near them. `correct` may
    be a sum of shares: the interval is then wider than necessary, because no numbers between 0
    and 1 vary more about their mean than zeros and ones do.
    """
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    scale = 1 + z * z / total
    center = (share + z * z / (2 * total)) / scale
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / scale
    # At the ends the two terms are equal but for rounding.
    low = 0.0 if correct == 0 else center - half
    high = 1.0 if correct == total else center + half
    return low, high


@dataclass(frozen=True, slots=True)
class Count:
    """How many of how many.

    Attributes:
        count: how many had the property; the sum of the shares, where each had it in part.
        total: how many were looked at.
    """

    count: float
    total: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Adds up values from 0 to 1, or how many are true."""
        listed = list(values)
        total = math.fsum(listed)
        return cls(int(total) if total.is_integer() else total, len(listed))

    @classmethod
    def sum(cls, counts: Iterable[Count]) -> Self:
        """All of them together."""
        listed = list(counts)
        return cls(sum(one.count for one in listed), sum(one.total for one in listed))

    @property
    def rate(self) -> float | None:
        """The share; None of none."""
        return self.count / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95% Wilson interval."""
        return wilson_interval(self.count, self.total)

    def as_json(self, name: str = "count") -> dict[str, Any]:
        """Stable fields for programs.

        Args:
            name: of the field with the count.
        """
        return {
            name: self.count,
            "total": self.total,
            "rate": self.rate,
            "interval_95": list(self.interval),
        }


def difference_interval(first: Count, second: Count) -> tuple[float, float]:
    """95% interval of the second share minus the first, from two independent samples.

    Newcombe (1998), method 10: made of both Wilson intervals, so it is right for rare answers too,
    and it is never wider than -1 to 1. The shares differ beyond chance if 0 lies outside. If one
    sample is empty nothing is known.
    """
    if not first.total or not second.total:
        return -1.0, 1.0
    one, other = first.count / first.total, second.count / second.total
    (low_one, high_one), (low_other, high_other) = first.interval, second.interval
    difference = other - one
    return (
        difference - math.hypot(other - low_other, high_one - one),
        difference + math.hypot(high_other - other, one - low_one),
    )


def mean(values: Sequence[float]) -> float:
    """NaN of none."""
    return math.fsum(values) / len(values) if values else math.nan


def finite(number: float) -> float | None:
    """JSON has no infinity and no NaN: what a broken model gives becomes None."""
    return number if math.isfinite(number) else None
