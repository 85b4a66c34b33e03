"""How long nothing is learned after an attempt failed."""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds before the next attempt: four times as long after each further failure.
FIRST_REST_SECONDS, LAST_REST_SECONDS = 1.0, 60.0
GROWTH = 4.0


class Rest:
    """A pause between attempts at the fact that is next.

    What it lacked (memory, a device) may come back. The facts behind it wait too, so that all are
    learned in the order in which they were accepted.

    Args:
        now: a clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failures = 0
        self._until = 0.0

    def after_failure(self) -> None:
        """Begins a pause, longer than the one before."""
        seconds = min(FIRST_REST_SECONDS * GROWTH**self._failures, LAST_REST_SECONDS)
        self._until = self._now() + seconds
        self._failures += 1

    def end(self) -> None:
        """Another fact is next, or this one was learned."""
        self._failures, self._until = 0, 0.0

    def seconds_left(self) -> float:
        """How long the pause still is; 0 if there is none."""
        return max(self._until - self._now(), 0.0)
