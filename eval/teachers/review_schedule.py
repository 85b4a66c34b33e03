"""When taught facts are asked again: as the service does, but by updates alone.

The clock is not used, so that a run can be repeated.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from memory_store.schedule import interval


class ReviewSchedule:
    """Facts by the number of updates at which their review is due.

    Args:
        entries: as `as_json` returns them.
    """

    def __init__(self, entries: Sequence[Sequence[int | str]] = ()) -> None:
        # Due, in which order they were added, the fact's id, and how often it was found held.
        self._due = [(int(due), int(n), str(i), int(held)) for due, n, i, held in entries]
        heapq.heapify(self._due)
        self._added = max((number for _, number, _, _ in self._due), default=0)

    def begin(self, fact_id: str, updates: int) -> None:
        """A fact was taught; its first review comes after the first interval."""
        self._add(updates, fact_id, 0)

    def take(self, updates: int) -> tuple[str, int] | None:
        """Removes the fact that has been due longest.

        The caller reports the result of its review by `held` or `begin`.

        Returns:
            Its id, and how often it was found held; None if no fact is due.
        """
        if not self._due or self._due[0][0] > updates:
            return None
        _, _, fact_id, times_held = heapq.heappop(self._due)
        return fact_id, times_held

    def held(self, fact_id: str, updates: int, times_held: int) -> None:
        """A review found the fact to be held; the next comes after twice the interval."""
        self._add(updates, fact_id, times_held + 1)

    def as_json(self) -> list[tuple[int, int, str, int]]:
        """Entries for a new schedule."""
        return sorted(self._due)

    def _add(self, updates: int, fact_id: str, times_held: int) -> None:
        self._added += 1
        due = updates + interval(times_held)[0]
        heapq.heappush(self._due, (due, self._added, fact_id, times_held))
