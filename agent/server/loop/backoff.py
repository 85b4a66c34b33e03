"""Pauses after failures: of attempts at a fact, of learners, and of the disk."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from memory_store.errors import StoreFailedError, StoreUnusableError
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Seconds before the next attempt at a fact: four times as long after each further failure.
FIRST_REST_SECONDS, LAST_REST_SECONDS = 1.0, 60.0
GROWTH = 4.0
# Wait before a dead learner is started again: doubled each time, up to the last.
FIRST_RESTART_SECONDS, LAST_RESTART_SECONDS = 0.1, 30.0
# Wait before a write that found the disk full is tried again.
DISK_RETRY_SECONDS = 1.0


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


class PatientWriter:
    """Writes to the memory, and tries again while the disk is full.

    Args:
        store: the memory.
        stopped: set when the server is being stopped: nothing is tried again then.
    """

    def __init__(self, store: StoreThreads, stopped: asyncio.Event) -> None:
        self._store = store
        self._stopped = stopped

    async def __call__(self, operation: Callable[[MemoryStore], T]) -> T:
        """Writes; returns the result of the operation.

        Raises:
            StoreFailedError: disk or database failed.
            StoreUnusableError: the disk is full, and the server is being stopped.
        """
        while True:
            try:
                return await self._store.write(operation)
            except StoreUnusableError as error:
                if self._stopped.is_set() or isinstance(error, StoreFailedError):
                    raise
                logger.error("the database cannot be written: %s", error)
                await asyncio.sleep(DISK_RETRY_SECONDS)
