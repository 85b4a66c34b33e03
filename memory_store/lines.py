"""A line of the ledger as ranges of versions. There are few, even for a long history.

The rows of a line mostly follow one another. Where one does not (a *fork*), an operation built a
branch, or learning continued meanwhile. The forks are enough to find a line.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass

from memory_store.connection import Connection
from memory_store.tables import FORK

# The most ranges of one read, so that no read takes long.
RANGES_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class Line:
    """The versions whose rows, replayed in order, give the weights of the last one.

    Attributes:
        ranges: first and last version of each range, ascending. The base checkpoint, version 0, is
            on every line, and in no range.
    """

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, version: int) -> bool:
        """Whether a version is on it."""
        if version == 0:
            return True
        place = bisect.bisect_right(self.ranges, (version, math.inf)) - 1
        return place >= 0 and version <= self.ranges[place][1]

    def __iter__(self) -> Iterator[int]:
        """All versions, ascending."""
        for first, last in self.ranges:
            yield from range(first, last + 1)

    @property
    def end(self) -> int:
        """Its last version; 0 if it is empty."""
        return self.ranges[-1][1] if self.ranges else 0

    def parts(self, size: int) -> Iterator[tuple[int, int]]:
        """First and last version of consecutive parts, each of at most `size` versions."""
        for first, last in self.ranges:
            for start in range(first, last + 1, size):
                yield start, min(start + size - 1, last)

    def __str__(self) -> str:
        """For people, such as `1-5, 9`."""
        return ", ".join(
            f"{first}-{last}" if first < last else str(first) for first, last in self.ranges
        )


def part_of_line(
    connection: Connection, version: int, limit: int = RANGES_AT_ONCE
) -> tuple[list[tuple[int, int]], int]:
    """The last ranges of the line of a version, newest first.

    Returns:
        At most `limit` ranges, and the version with which the line goes on before them; 0 if it
        does not.
    """
    start = (
        f"coalesce((SELECT max(model_version) FROM updates WHERE {FORK} AND model_version <= {{}}),"
        " 1)"
    )
    rows = connection.execute(
        "WITH RECURSIVE part (first, last, number) AS ("
        f" SELECT {start.format('?')}, ?, 1"
        " UNION ALL"
        f" SELECT {start.format('row.parent_version')}, row.parent_version, number + 1"
        " FROM part JOIN updates AS row ON row.model_version = part.first"
        "  AND row.parent_version <> row.model_version - 1"
        " WHERE row.parent_version > 0 AND number < ?"
        ") SELECT first, last FROM part",
        [version, version, limit],
    )
    ranges = [(int(row["first"]), int(row["last"])) for row in rows]
    parent = connection.number(
        "SELECT parent_version FROM updates WHERE model_version = ?", [ranges[-1][0]]
    )
    return ranges, parent


def line_of(connection: Connection, version: int) -> Line:
    """The whole line of a version; empty for the base and for a missing version."""
    if not connection.execute("SELECT 1 FROM updates WHERE model_version = ?", [version]):
        return Line()
    ranges: list[tuple[int, int]] = []
    while version:
        part, version = part_of_line(connection, version)
        ranges += part
    return Line(tuple(reversed(ranges)))
