"""Draws a fact's rate curve as lines of text: the result of one step at each rate.

Plain ASCII, so that it can be read without color, on any terminal and in any log.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from memory_store.vocabulary import RatePoint

TITLE = "Rate curve: p after the first step"
ROWS = 11  # a tenth of probability each
LABELS = {0: "1.0", ROWS // 2: "0.5", ROWS - 1: "0.0"}
LABEL_WIDTH = 4
POINT, CHOSEN, BELOW_CHOSEN = "*", "@", ":"
# Narrower, the chosen rate would have no room on either side of its arrow.
LEAST_WIDTH = 48


def curve_lines(curve: Sequence[RatePoint], chosen: float | None, width: int = 80) -> list[str]:
    """Draws a curve with rates on a logarithmic axis and probability from 0 to 1.

    Args:
        curve: ascending in rate; probabilities that are not numbers are left out.
        chosen: the rate that the step was taken at, marked on the axis; it may lie between points
            or outside them. None: no step was taken.
        width: the most columns, at least `LEAST_WIDTH`.

    Returns:
        Lines without trailing blanks; none if the curve is empty.
    """
    if not curve:
        return []
    rates = [point.learning_rate for point in curve] + ([] if chosen is None else [chosen])
    axis = _Axis(min(rates), max(rates), max(width, LEAST_WIDTH) - LABEL_WIDTH - 1)
    field = [[" "] * axis.columns for _ in range(ROWS)]
    if chosen is not None:
        for cells in field[_row_of(curve, chosen) :]:
            cells[axis.column(chosen)] = BELOW_CHOSEN
    # The chosen one last, so that no neighbor hides it.
    for point in sorted(curve, key=lambda point: point.learning_rate == chosen):
        if not math.isnan(point.probability):
            mark = CHOSEN if point.learning_rate == chosen else POINT
            field[_row(point.probability)][axis.column(point.learning_rate)] = mark
    below = [f"+{axis.line()}", f" {axis.labels()}"]
    if chosen is not None:
        below.append(f" {_beside(axis, chosen)}")
    lines = [
        TITLE,
        *(f"{LABELS.get(n, ''):{LABEL_WIDTH}}|{''.join(cells)}" for n, cells in enumerate(field)),
        *(" " * LABEL_WIDTH + line for line in below),
    ]
    return [line.rstrip() for line in lines]


class _Axis:
    """Rates on a logarithmic scale over columns from 0 on."""

    def __init__(self, smallest: float, largest: float, columns: int) -> None:
        self.columns = columns
        self._low, self._high = math.log10(smallest), math.log10(largest)

    def column(self, rate: float) -> int:
        """Returns the column of a rate; a single one is in the middle."""
        span = self._high - self._low
        share = (math.log10(rate) - self._low) / span if span else 0.5
        return round(share * (self.columns - 1))

    def _decades(self) -> list[int]:
        # The tolerance includes a rate such as 1e-6 despite rounding.
        return list(range(math.ceil(self._low - 1e-9), math.floor(self._high + 1e-9) + 1))

    def line(self) -> str:
        """The axis, with a mark at each decade."""
        marked = {self.column(10.0**decade) for decade in self._decades()}
        return "".join("+" if column in marked else "-" for column in range(self.columns))

    def labels(self) -> str:
        """The decades, each at its mark; those without room are left out."""
        text = ""
        for decade in self._decades():
            label, column = f"1e{decade}", self.column(10.0**decade)
            column = min(column, self.columns - len(label))
            if not text or column > len(text):
                text = f"{text:{column}}{label}"
        return text


def _row(probability: float) -> int:
    """Returns the row of a probability, from 0 at the top."""
    return round((1 - min(max(probability, 0.0), 1.0)) * (ROWS - 1))


def _row_of(curve: Sequence[RatePoint], rate: float) -> int:
    """Returns the row of the point at a rate; that of the axis if there is none."""
    found = [p.probability for p in curve if p.learning_rate == rate]
    return _row(found[0]) if found and not math.isnan(found[0]) else ROWS - 1


def _beside(axis: _Axis, chosen: float) -> str:
    """An arrow at the chosen rate, with the rate on the side where there is room."""
    column, label = axis.column(chosen), f"{chosen:.3g} was chosen"
    if column + 2 + len(label) <= axis.columns:
        return f"{'':{column}}^ {label}"
    return f"{label + ' ^':>{column + 1}}"
