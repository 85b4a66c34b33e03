"""The learning loop: keeps a learner alive, and does what waits, one thing after the other.

Operations come first, then facts, then reviews. A learner that is started again is the base
checkpoint with the ledger replayed, so nothing that was learned depends on its life.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Collection
from contextlib import AsyncExitStack, suppress
from functools import partial

from agent.errors import LearnerUnavailableError, LearningFailedError, StaleVersionError
from agent.server.data.backups import Backups
from agent.server.loop import backoff
from agent.server.loop.fact_learner import FactLearner
from agent.server.loop.memory_binding import bind
from agent.server.loop.recovery import bring_to_head
from agent.server.loop.serving import Hooks, LoopSettings, Serving
from agent.server.loop.undo.clean_up import Cleaner
from agent.server.loop.undo.executor import UndoExecutor
from agent.snapshots import remove_others
from agent.teaching.learner_protocol import Learner, StartLearner
from memory_store import meta, operations
from memory_store.errors import StoreUnusableError
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, LearnerState, Operation
from memory_store.writer import StoreThreads

logger = logging.getLogger(__name__)

# Longest wait for a snapshot before a text is erased.
PREPARE_ERASE_SECONDS = 10.0


class LearningLoop(Serving):
    """Keeps a learner alive and feeds it: operations first, then facts, then reviews."""

    def __init__(
        self,
        store: StoreThreads,
        start_learner: StartLearner,
        settings: LoopSettings,
        hooks: Hooks,
        backups: Backups | None = None,
    ) -> None:
        """Prepares; `run` does it.

        Args:
            store: the memory.
            start_learner: makes a learner with the base checkpoint.
            settings: see there.
            hooks: see there.
            backups: of this memory, removed when a fact is erased; None: none are known.
        """
        super().__init__(store, settings, hooks)
        self._start_learner = start_learner
        self._unasked: Awaitable[object] | None = None
        keep_only = hooks.keep_only or self._remove_others
        self._cleaner = Cleaner(store, keep_only, backups, self.write, lambda: self.learner)
        self._facts = FactLearner(self, self._cleaner)
        self._undo = UndoExecutor(self, start_learner, self._facts, self._cleaner)

    # --- Requests from outside ------------------------------------------------------------------

    def wake(self) -> None:
        """A fact or an operation was accepted, or learning resumed: look at the queue now."""
        self.woken.set()
        self._undo.wake()

    async def review_due(self) -> None:
        """A tick: facts may be due for review."""
        self._facts.review_due()

    def stop(self, unasked: Awaitable[object] | None = None) -> None:
        """Ends `run` once the current update is in the ledger.

        Args:
            unasked: done when nobody asks the learner any more; it is kept until then.
        """
        self._unasked = unasked
        self.stopped.set()
        self.woken.set()

    async def snapshot_head(self) -> None:
        """Makes sure that a snapshot holds what is served; does nothing while nothing is.

        At the end: another release may be unable to replay what this one learned.
        """
        if self.learner is None or not self.version:
            return
        served = await self.store.read(partial(MemoryStore.update, model_version=self.version))
        await self.hooks.hold_snapshot(served.model_version, served.digest_after)

    async def prepare_erase(self) -> None:
        """Before a text is erased: a snapshot of the head, whose replay might need the text.

        Best effort, and not for long: without one, the next start after a crash learns more again.
        """
        with suppress(TimeoutError, StoreUnusableError):
            async with asyncio.timeout(PREPARE_ERASE_SECONDS):
                await self.snapshot_head()

    def text_erased(self) -> None:
        """A text was erased in its rows: remove it everywhere else, whatever the learner does."""
        self._cleaner.wake()

    @property
    def clean_up_problem(self) -> str:
        """What a forgotten fact left behind and cannot be removed now; empty if nothing."""
        return self._cleaner.problem

    @property
    def clean_up_failures(self) -> int:
        """How many attempts at cleaning up failed since the start."""
        return self._cleaner.failures

    # --- The loop -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Learns until `stop`.

        Raises:
            DriftError: the ledger does not replay to the recorded weights.
            ModelError: the model cannot be loaded.
            OtherModelError: the database belongs to another model, or tokenizer.
            StoreUnusableError: the disk failed; or it is full when the loop starts or is stopped.
        """
        attempts = self.settings.max_attempts
        await self.store.write(partial(MemoryStore.release_claims, max_attempts=attempts))
        cleaning = asyncio.create_task(self._cleaner.run())
        try:
            await self._keep_learning()
        finally:
            cleaning.cancel()
            await asyncio.gather(cleaning, return_exceptions=True)

    async def _keep_learning(self) -> None:
        """Starts a learner again whenever it ends, until `stop`."""
        pause = backoff.FIRST_RESTART_SECONDS
        while not self.stopped.is_set():
            self.becomes(LearnerState.STARTING)
            try:
                async with AsyncExitStack() as learners:
                    learner = await learners.enter_async_context(self._start_learner())
                    try:
                        await self._recover(learner)
                        pause = backoff.FIRST_RESTART_SECONDS
                        await self._serve(learner, learners)
                        await self.snapshot_head()
                        if self._unasked is not None:
                            await self._unasked
                    finally:
                        self.serves(None, self.version)
                        if not self.stopped.is_set():
                            # Now, not when it has ended: that may take some seconds.
                            self.becomes(LearnerState.DOWN)
            # The last two come from recovery and commit: it cannot follow the ledger as it is.
            except (LearnerUnavailableError, LearningFailedError, StaleVersionError) as error:
                self.message = f"{error}; starting it again in {pause:.1f} s"
                self.becomes(LearnerState.DOWN)
                logger.warning("the learner is down: %s", self.message)
                await self._record_event(EventKind.LEARNER_DOWN, str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, backoff.LAST_RESTART_SECONDS)

    async def _recover(self, learner: Learner) -> None:
        """Brings a fresh learner to the head of the ledger."""
        started = time.monotonic()
        description = await learner.describe()
        accept = self.settings.accept_drift
        await bind(self.store, self.settings.model, description, accept=accept)
        self.description = description
        await self.hooks.on_loaded(description)
        self.becomes(LearnerState.RECOVERING)
        before = self.version
        self.version = await self.store.read(MemoryStore.model_version)
        if 0 < before < self.version:  # maybe by an operation that did not see its end
            self.head_moved(self.version)
        head = await bring_to_head(
            learner, self.store, description, self.settings.snapshots, self._replaying, accept
        )
        self.version = head.version
        ready = (
            f"{self.settings.model} on {description.device}, version {self.version}: replayed"
            f" {head.replayed} updates, {time.monotonic() - started:.1f} s"
        )
        await self._record_event(EventKind.LEARNER_READY, ready)
        logger.info("ready: %s", ready)
        self.serves(learner, self.version)
        self.message = ""
        self.becomes(LearnerState.READY)

    def _replaying(self, remaining: int) -> None:
        self.updates_to_replay = remaining

    async def _serve(self, learner: Learner, learners: AsyncExitStack) -> None:
        """Does what waits, until `stop`; an operation puts another learner in place of this one."""
        while not self.stopped.is_set():
            operation = await self._learn_queue(learner)
            if operation is not None:
                learner = await self._undo.carry_out(learner, operation, learners)

    async def _learn_queue(self, learner: Learner) -> Operation | None:
        """Learns until `stop`, or until there is an operation to be done, which is returned."""
        dead = asyncio.ensure_future(learner.wait_dead())
        try:
            while not self.stopped.is_set():
                # Cleared before the look, so that a fact accepted after it wakes us again.
                self.woken.clear()
                if dead.done():
                    raise LearnerUnavailableError(f"the learner ended with code {dead.result()}")
                operation, paused = await self.store.read(
                    lambda store: (
                        operations.oldest_not_served(store),
                        meta.learning_paused(store.connection),
                    )
                )
                if operation is not None:
                    return operation
                if paused or not await self._facts.learn_next(learner, dead):
                    await self._facts.wait(dead)
        finally:
            dead.cancel()
        return None

    async def _record_event(self, kind: EventKind, message: str) -> None:
        version = self.version
        await self.write(lambda store: store.record_event(kind, message, version))

    async def _remove_others(self, kept: Collection[int]) -> None:
        await asyncio.to_thread(remove_others, self.settings.snapshots, kept)
