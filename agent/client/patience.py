"""The timeout of a wait that spans several calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from agent.errors import WaitTimeoutError


class Patience:
    """A timeout that starts now.

    Args:
        seconds: its length; None: it never ends.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._began = clock()

    def left(self) -> float | None:
        """Seconds left; None: it never ends."""
        if self._seconds is None:
            return None
        return max(0.0, self._seconds - (self._clock() - self._began))

    def require(self, waiting: Collection[str]) -> None:
        """Raises after its end.

        Raises:
            WaitTimeoutError: it has ended; names what was waited for.
        """
        if self.left() == 0:
            some = ", ".join(sorted(waiting)[:3]) + (", ..." if len(waiting) > 3 else "")
            raise WaitTimeoutError(
                f"still waiting for {some} after {self._seconds:g} s: the server goes on with it;"
                " wait again for the rest"
            )
