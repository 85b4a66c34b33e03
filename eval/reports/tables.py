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


def shown_fraction(count: Count) -> str:
    """Count, denominator, share and interval, as in `4 of 80 (5%; 1.96 to 12.2%)`."""
    if count.rate is None:
        return NONE
    share, interval = shown_percent(count.rate), shown_range(*count.interval)
    return f"{count.count:,} of {count.total:,} ({share}; {interval})"


def shown_change(change: float | None) -> str:
    """A relative change, with its sign."""
    if change is None:
        return NONE
    return f"{change:+.1%}" if math.isfinite(change) else "beyond measure"


def shown_percent(share: float | None) -> str:
    """Three significant digits; two, without a power of ten, if it is small."""
    if share is None:
        return NONE
    percent = 100 * share
    if 1e-6 < abs(percent) < 0.01:
        return f"{percent:.{1 - math.floor(math.log10(abs(percent)))}f}%"
    return f"{percent:.3g}%"


def shown_range(low: float, high: float) -> str:
    """Two shares, as in `1.96 to 12.2%`."""
    return f"{shown_percent(low).removesuffix('%')} to {shown_percent(high)}"


def shown_ages(youngest: int, oldest: int) -> str:
    """Numbers of facts taught since, as in `10-29`."""
    return str(youngest) if youngest == oldest else f"{youngest}-{oldest}"


def shown_number(number: float | None) -> str:
    """Three significant digits."""
    return NONE if number is None else f"{number:.3g}"
