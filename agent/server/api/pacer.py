"""Shares the event loop between long work and other calls."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")

# Turns that are given together. The pause after them is at least `LEAST_PAUSE` seconds, and
# `PAUSES_A_BURST` times as long as the loop took for their work.
BURST = 16
LEAST_PAUSE = 0.001
PAUSES_A_BURST = 3.0
# The length of a slice of work.
SLICE_SECONDS = 0.01


class Pacer:
    """Gives turns in the order of requests. Belongs to one event loop.

    A turn is not held, so a caller that stalls after its turn blocks nobody. Pauses grow when the
    loop is busy: the work of turns takes about a fourth of its time, however many callers wait.
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
        """Gives every caller its turn at once, from now on."""
        self._closed = True
        while self._waiting:
            self._give()

    def _pause(self) -> None:
        if not self._pausing:
            self._pausing = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._measure, loop.time(), 1)

    def _measure(self, began: float, rounds: int) -> None:
        """Waits for two rounds of the loop, in which callers begin to send after their turn."""
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
        """Gives the first waiting caller its turn; returns 0 if it was cancelled, else 1."""
        first = self._waiting.popleft()
        if first.done():  # cancelled
            return 0
        first.set_result(None)
        return 1


class Slices:
    """Runs long work in slices of the loop's time, one slice at a time over all callers.

    Args:
        seconds: the length of a slice.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, seconds: float = SLICE_SECONDS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._mine = asyncio.Lock()

    async def run(self, work: Generator[None, None, T]) -> T:
        """Runs a generator that yields where it may be interrupted; returns its result."""
        while True:
            async with self._mine:
                # A round of the loop for everyone else, before each slice.
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
