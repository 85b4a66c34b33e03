"""A lock that many hold together or one holds alone, for one asyncio loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SharedLock:
    """Held by any number of sharers, or by one exclusive holder, who goes before new sharers.

    Attributes:
        entries: how often it was taken so far; it never shrinks.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._exclusive = 0  # the holder, and those who wait to be it
        self._held = False
        self._sharers = 0
        self.entries = 0

    @property
    def holders(self) -> int:
        """How many hold it now."""
        return self._sharers + self._held

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Together with others; waits for an exclusive holder, and for those who wait to be it."""
        while self._exclusive:
            await self._changed.wait()
        self._sharers += 1
        self.entries += 1
        try:
            yield
        finally:
            self._sharers -= 1
            self._notify()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Alone; waits for all holders to leave."""
        self._exclusive += 1
        try:
            while self._held or self._sharers:
                await self._changed.wait()
            self._held = True
            self.entries += 1
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
