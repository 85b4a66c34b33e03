"""Tables as rows of text, and how figures are written in them; drawing is left to the caller."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eval.metrics import Count

NONE = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a header, and rows as long as it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def shown_count(count: Count) -> str:
    """Share, denominator and interval, as in `98.0% (49 of 50; 89.5-99.6%)`."""
    if count.rate is None:
        return NONE
    low, high = count.interval
    return f"{count.rate:.1%} ({count.count} of {count.total}; {100 * low:.1f}-{100 * high:.1f}%)"


def shown_change(change: float | None) -> str:
    """A relative change, with its sign."""
    if change is None:
        return NONE
    return f"{change:+.1%}" if math.isfinite(change) else "beyond measure"


def shown_number(number: float | None) -> str:
    """Three digits that matter."""
    return NONE if number is None else f"{number:.3g}"
