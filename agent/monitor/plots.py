"""Small plots of characters: bars, gauges, the rate curve, the heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.monitor.lines import Glyphs, Line, Span
from memory_store.vocabulary import RatePoint

# From 0.5 on, greedy generation certainly yields the answer.
LOST, WEAK = 0.5, 0.8
TRACE = 0.005
_SHADES = (0.05, LOST, WEAK, 0.95)


def quality(probability: float) -> str:
    """Returns the style of a probability that should be high."""
    if not probability >= LOST:  # NaN too
        return "red"
    return "yellow" if probability < WEAK else "green"


def bars(values: Sequence[float], height: int, glyphs: Glyphs, width: int = 1) -> list[str]:
    """Draws values from 0 to 1 as vertical bars of `width` cells; returns lines from the top."""
    levels = len(glyphs.bars) - 1
    lines = []
    for row in range(height - 1, -1, -1):
        line = ""
        for value in values:
            filled = (value if value == value else 0.0) * height - row
            # A small value is not drawn as nothing.
            least = 1 if row == 0 and value >= TRACE else 0
            level = max(round(min(max(filled, 0.0), 1.0) * levels), least)
            line += glyphs.bars[level] * width
        lines.append(line)
    return lines


def spark(values: Sequence[float], width: int, glyphs: Glyphs) -> str:
    """Draws the last values as bars in one line."""
    return bars(values[-max(width, 1) :], 1, glyphs)[0]


def gauge(value: float, limit: float, width: int, glyphs: Glyphs) -> Span:
    """Draws how near a value is to its limit."""
    share = value / limit if limit else 0.0
    share = min(share, 1.0) if share == share else 1.0
    full, empty = glyphs.shades[-1], glyphs.shades[0]
    filled = round(share * width)
    style = "green" if share < 0.5 else "yellow" if value <= limit else "bold red"
    return full * filled + empty * (width - filled), style


def curve(
    points: Sequence[RatePoint], chosen: float | None, width: int, height: int, glyphs: Glyphs
) -> list[Line]:
    """Draws the probability after one step at each rate; marks the chosen rate below.

    Args:
        points: ascending in rate.
        chosen: rate of the step; None if none was taken.
        width: the most cells.
        height: lines, including the axis; at least 2.
        glyphs: to draw with.
    """
    room = width - 4
    cell = max(1, min(5, room // len(points)))
    points = points[: max(room, 1)]
    nearest = None
    if chosen is not None:
        nearest = min(
            range(len(points)), key=lambda n: abs(math.log(points[n].learning_rate / chosen))
        )
    rows = height - 1
    lines: list[Line] = []
    drawn = bars([point.probability for point in points], rows, glyphs, cell)
    for number, text in enumerate(drawn):
        label = "1.0 " if number == 0 else "0.0 " if number == rows - 1 else "    "
        line: Line = [(label, "dim")]
        for place in range(len(points)):
            style = "bold green" if place == nearest else "cyan"
            line.append((text[place * cell : (place + 1) * cell], style))
        lines.append(line)
    return [*lines, _axis(points, nearest, chosen, cell)]


def _axis(
    points: Sequence[RatePoint], nearest: int | None, chosen: float | None, cell: int
) -> Line:
    """Draws the smallest and the largest rate, and an arrow at the chosen one."""
    total = len(points) * cell
    smallest, largest = (f"{points[n].learning_rate:.0e}" for n in (0, -1))
    text = smallest + " " * max(total - len(smallest) - len(largest), 1) + largest
    if nearest is None or chosen is None:
        return [("    ", ""), (text, "dim")]
    middle = nearest * cell + cell // 2
    mark = f"^ {chosen:.1e}"
    if middle + len(mark) > total:
        mark = f"{chosen:.1e} ^"
        middle -= len(mark) - 1
    middle = max(middle, 0)
    # The arrow takes precedence over the ends.
    before = text[:middle] if len(smallest) < middle else " " * middle
    after = text[middle + len(mark) :]
    if len(after) < len(largest) + 1:
        after = ""
    return [("    ", ""), (before, "dim"), (mark, "bold green"), (after, "dim")]


def heat_map(
    rows: Sequence[Sequence[float | None]], width: int, glyphs: Glyphs
) -> tuple[list[Line], int]:
    """Draws probabilities as shades, with a column for each fact.

    Args:
        rows: of equal length; None where nothing is known.
        width: the most cells. If there are more facts, neighbors share a column, with their mean.
        glyphs: to draw with.

    Returns:
        The lines, and their width in cells.
    """
    columns = len(rows[0]) if rows else 0
    if not columns:
        return [], 0
    cell = max(1, min(4, width // columns))
    shared = min(columns, max(width, 1))
    lines: list[Line] = []
    for row in rows:
        line: Line = []
        for number in range(shared):
            first, last = number * columns // shared, (number + 1) * columns // shared
            known = [value for value in row[first:last] if value is not None]
            line.append(_cell(known, cell, glyphs))
        lines.append(line)
    return lines, cell * shared


def _cell(known: Sequence[float], width: int, glyphs: Glyphs) -> Span:
    if not known:
        return " " * width, ""
    mean = sum(known) / len(known)
    shade = glyphs.shades[sum(mean >= bound for bound in _SHADES)]
    # If there is room, a gap separates two facts.
    solid = width if width < 3 else width - 1
    return shade * solid + " " * (width - solid), quality(mean)
