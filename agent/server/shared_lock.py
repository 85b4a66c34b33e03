"""A lock for any number of sharers or one exclusive holder, in one asyncio loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SharedLock:
    """Held by any number of sharers, or by one exclusive holder, which precedes new sharers.

    Attributes:
        entries: how often it was acquired; never decreases.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._exclusive = 0  # the exclusive holder and those who wait for it
        self._held = False
        self._sharers = 0
        self.entries = 0

    @property
    def holders(self) -> int:
        """The current number of holders."""
        return self._sharers + self._held

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Shares the lock; waits for an exclusive holder, and for those who wait to be one."""
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
        """Holds the lock alone; waits for all holders to leave."""
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
        # Replaced each time: waiters hold the old one.
        self._changed.set()
        self._changed = asyncio.Event()
