"""Thinning the memory in the background: a piece, a pause, the next piece."""

from __future__ import annotations

import asyncio
import logging

from memory_store.compaction import compaction, give_back, postponed, space
from memory_store.errors import StoreClosedError, StoreFailedError, StoreUnusableError
from memory_store.history_thinning import Removed, Thinning
from memory_store.vocabulary import Compaction
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

# Between two pieces, so that facts and updates are written between them.
PAUSE_SECONDS = 0.02


class Thinner:
    """Carries out the rule of `memory_store.history_thinning` on a memory that is in use.

    Args:
        store: the memory.
        keep_events: the newest events that stay as they are.
    """

    def __init__(self, store: StoreThreads, keep_events: int) -> None:
        self._store = store
        self._keep_events = keep_events
        self._thinning = Thinning(keep_events)
        self._working = asyncio.Lock()
        self._postponed = ""

    async def tick(self) -> None:
        """Does what there is to do now."""
        try:
            async with self._working:
                removed = await self._finish(self._thinning)
            await self._report_postponed()
        except StoreClosedError:
            return  # the server stops
        except StoreUnusableError as error:
            if isinstance(error, StoreFailedError):
                raise
            logger.warning("the memory cannot be thinned now: %s", error)
            return
        if removed != Removed():
            logger.info("thinned: removed %d probes, %d events", removed.probes, removed.events)

    async def compact(self) -> Compaction:
        """Looks at all facts, however few probes are new, and gives free space back.

        Raises:
            StoreUnusableError: it cannot be written; what was done until then is.
        """
        async with self._working:
            before = await self._store.read(space)
            self._thinning = Thinning(self._keep_events, fully=True)
            removed = await self._finish(self._thinning)
            while await self._store.write(give_back):
                await asyncio.sleep(PAUSE_SECONDS)
            why = await self._store.read(postponed)
            return compaction(before, await self._store.read(space), removed, why)

    async def _report_postponed(self) -> None:
        """Logs why nothing is thinned, once."""
        before, self._postponed = self._postponed, await self._store.read(postponed)
        if self._postponed and not before:
            logger.info("thinning waits: %s", self._postponed)

    async def _finish(self, thinning: Thinning) -> Removed:
        removed = Removed()
        while (piece := await self._store.write(thinning.piece)) is not None:
            removed += piece
            await asyncio.sleep(PAUSE_SECONDS)
        return removed
