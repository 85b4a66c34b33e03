"""A lock that many hold together or one holds alone, for one asyncio loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SharedLock:
    """Held by any number of sharers, or by one exclusive holder, who goes before new sharers.

    Attributes:
        sharers: how many hold it together now.
        entries: how often it was shared so far; it never shrinks.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._exclusive = 0  # the holder, and those who wait to be it
        self._held = False
        self.sharers = 0
        self.entries = 0

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Together with others; waits for an exclusive holder, and for those who wait to be it."""
        while self._exclusive:
            await self._changed.wait()
        self.sharers += 1
        self.entries += 1
        try:
            yield
        finally:
            self.sharers -= 1
            self._notify()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Alone; waits for all holders to leave."""
        self._exclusive += 1
        try:
            while self._held or self.sharers:
                await self._changed.wait()
            self._held = True
            try:
                yield
            finally:
                self._held = False
        finally:
            self._exclusive -= 1
            self._notify()

    def _notify(self) -> None:
        # A new event each time: those who wait hold the old one.
        self._changed.set()
        self._changed = asyncio.Event()
