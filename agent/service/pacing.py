"""Time of the event loop for those who need much of it, so that other calls have time left."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

# Turns that are given out together, and the pause after them: at least `LEAST_PAUSE` s, and so
# many times as long as the loop took for what came of them.
BURST = 16
LEAST_PAUSE = 0.001
PAUSES_A_BURST = 3.0
# Of work that is done in slices.
SLICE_SECONDS = 0.01


class Pacer:
    """Gives turns, first come, first served; belongs to one event loop.

    A turn is an instant, not something that is held: whoever got one and is stuck is in nobody's
    way. When the loop is busy the pauses grow, so that the work of turns takes about a fourth of
    its time, however many there are who want one.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._left = BURST
        self._pausing = False
        self._closed = False

    async def turn(self) -> None:
        """Returns when it is the caller's turn."""
        if self._closed:
            return
        if self._left and not self._waiting:
            self._left -= 1
            self._pause()
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        await mine

    def close(self) -> None:
        """From now on it is everybody's turn."""
        self._closed = True
        while self._waiting:
            self._give()

    def _pause(self) -> None:
        if not self._pausing:
            self._pausing = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._measure, loop.time(), 1)

    def _measure(self, began: float, rounds: int) -> None:
        """Waits for two rounds of the loop: those whose turn it was have begun to send in them."""
        loop = asyncio.get_running_loop()
        if rounds:
            loop.call_soon(self._measure, began, rounds - 1)
        else:
            loop.call_later(max(LEAST_PAUSE, PAUSES_A_BURST * (loop.time() - began)), self._refill)

    def _refill(self) -> None:
        self._pausing = False
        self._left = BURST
        while self._left and self._waiting:
            self._left -= self._give()
        if self._left < BURST:
            self._pause()

    def _give(self) -> int:
        """Gives the turn to the first who still waits for it; how many turns that took."""
        first = self._waiting.popleft()
        if first.done():  # cancelled
            return 0
        first.set_result(None)
        return 1


class Slices:
    """Lets long work go on in slices of the loop's time, one at a time, whoever it is done for.

    Args:
        seconds: of a slice.
        clock: seconds, that never go back.
    """

    def __init__(
        self, seconds: float = SLICE_SECONDS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._mine = asyncio.Lock()

    async def run(self, work: Generator[None, None, T]) -> T:
        """Does work that pauses (`yield`) where it may be interrupted; returns what it returns."""
        while True:
            async with self._mine:
                # In a turn of the loop of its own: others, and all else, have theirs before it.
                await asyncio.sleep(0)
                try:
                    self._go_on(work)
                except StopIteration as end:
                    result: T = end.value
                    return result

    def _go_on(self, work: Generator[None, None, object]) -> None:
        end = self._clock() + self._seconds
        while self._clock() < end:
            next(work)
