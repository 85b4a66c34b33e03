"""How long a client waits for something that may take any time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from agent.errors import WaitTimeoutError


class Patience:
    """Some seconds from now on; None: without end.

    Args:
        seconds: how many.
        clock: seconds, that never go back.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._began = clock()

    def left(self) -> float | None:
        """What is left of it, in seconds; None: without end."""
        if self._seconds is None:
            return None
        return max(0.0, self._seconds - (self._clock() - self._began))

    def require(self, waiting: Collection[str]) -> None:
        """Raises once it has ended.

        Raises:
            WaitTimeoutError: names what was waited for.
        """
        if self.left() == 0:
            some = ", ".join(sorted(waiting)[:3]) + (", ..." if len(waiting) > 3 else "")
            raise WaitTimeoutError(
                f"still waiting for {some} after {self._seconds:g} s: the server goes on with it;"
                " wait again for the rest"
            )
