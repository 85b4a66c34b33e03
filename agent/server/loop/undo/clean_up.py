"""Cleaning up after facts that were forgotten, while everything else goes on.

What cannot be removed now is tried again later, with growing pauses, for as long as it takes. The
operation stays open until then, and says why; nothing waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from agent.errors import LearnerError
from agent.server.data.backups import Backups
from agent.server.loop.undo.erasure import KeepOnly, remove_text, remove_traces
from agent.teaching.learner_protocol import Learner
from memory_store import erasure, operations, tombstones, undo
from memory_store.errors import StoreFailedError, StoreUnusableError
from memory_store.sought import Sought
from memory_store.store import MemoryStore
from memory_store.vocabulary import Operation
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 300.0

# Writes to the memory, and tries again while the disk is full.
Write = Callable[[Callable[[MemoryStore], Any]], Awaitable[Any]]


class Cleaner:
    """Ends each forgetting whose fact the served weights do not hold any more.

    Attributes:
        problem: what cannot be cleaned up now, for people; empty if nothing.
        failures: attempts that failed since the start.
        texts: what is being erased, by fact id, for whoever measures that the weights do not hold
            it; only in memory, and only until the operation is over.
        waits_for_fact: a fact that is being learned is to be erased when that has ended.
    """

    def __init__(
        self,
        store: StoreThreads,
        keep_only: KeepOnly,
        backups: Backups | None,
        write: Write,
        learner: Callable[[], Learner | None] = lambda: None,
    ) -> None:
        """Prepares; `run` does it.

        Args:
            store: the memory.
            keep_only: removes snapshots; see `SnapshotKeeper.keep_only`.
            backups: of this memory; None: nobody makes any.
            write: see there.
            learner: the one that serves now, or None.
        """
        self._store = store
        self._keep_only = keep_only
        self._backups = backups
        self._write = write
        self._learner = learner
        self._woken = asyncio.Event()
        self._pause = FIRST_PAUSE_SECONDS
        self.problem = ""
        self.failures = 0
        self.texts: dict[str, Sought] = {}
        self.waits_for_fact = False

    def wake(self) -> None:
        """A fact was forgotten: look now."""
        self._woken.set()

    async def run(self) -> None:
        """Cleans up until it is cancelled.

        Raises:
            StoreFailedError: disk or database failed.
        """
        while True:
            self._woken.clear()
            try:
                done = await self._all_cleaned_up()
            except StoreFailedError:
                raise
            except Exception as error:
                self.failures += 1
                self.problem = f"the clean-up after forgetting failed: {error!r}"
                logger.exception("the clean-up after forgetting failed")
                done = False
            if done:
                self.problem, self._pause = "", FIRST_PAUSE_SECONDS
                await self._woken.wait()
                continue
            try:
                await asyncio.wait_for(self._woken.wait(), self._pause)
            except TimeoutError:
                self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    async def _all_cleaned_up(self) -> bool:
        """Looks at everything once; False if something is left to be tried again."""
        served = await self._store.read(operations.switched)
        done = [await self._erase_texts(served)]
        for operation in served:
            done.append(await self._clean_up(operation))
        return all(done)

    async def _erase_texts(self, served: Sequence[Operation]) -> bool:
        """Removes texts that are to be erased, long before the weights forget; False if it failed.

        This waits for no learner: it may be that none can be started. Nor does it matter whether
        the operation was cancelled since. What those need whose result is `served` is done, and
        reported, by their clean-up.
        """
        self.waits_for_fact = False
        erasures = await self._store.read(operations.erasures_not_served)
        for operation in erasures:
            gone = await self._write(partial(tombstones.erase_requested, operation=operation))
            self.waits_for_fact |= not gone
        cleaned_up = {operation.fact_id for operation in served}
        measured = cleaned_up | {operation.fact_id for operation in erasures}
        pending = {each.fact_id: each for each in await self._store.read(erasure.pending)}
        known = self.texts | pending
        self.texts = {fact_id: known[fact_id] for fact_id in measured & known.keys()}
        if pending.keys() <= cleaned_up and not await self._store.read(erasure.in_copies):
            return True
        try:
            left = await remove_text(self._store, self._backups)
        except (OSError, StoreUnusableError) as error:
            if isinstance(error, StoreFailedError):
                raise
            self.failures += 1
            self.problem = f"an erased text cannot be removed everywhere yet: {error}"
            logger.error("%s", self.problem)
            return False
        for reason in left:
            logger.warning("erased text: %s", reason)
        return not await self._store.read(erasure.in_copies)

    async def _clean_up(self, operation: Operation) -> bool:
        """Cleans up after one operation; False if that failed."""
        try:
            left = await remove_traces(self._store, self._keep_only, self._backups, operation)
            if operation.erase and (learner := self._learner()) is not None:
                # It was asked for the fact, and may run for months. One that is gone keeps nothing.
                with suppress(LearnerError):
                    await learner.forget_texts()
        except (OSError, StoreUnusableError) as error:
            if isinstance(error, StoreFailedError):
                raise
            self.failures += 1
            self.problem = (
                f"the clean-up after forgetting {operation.fact_id} failed: {error}; it is tried"
                f" again in {self._pause:.0f} s"
            )
            logger.error("%s", self.problem)
            await self._write(
                partial(
                    undo.note_clean_up_failed,
                    operation_id=operation.id,
                    reason=str(error),
                )
            )
            return False
        await self._write(partial(undo.close_forget, operation_id=operation.id, message=left))
        self.texts.pop(operation.fact_id, None)
        return True
