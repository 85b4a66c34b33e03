"""Running operations while another learner serves: resuming, cancelling and giving them up."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

from agent.errors import (
    DriftError,
    LearnerUnavailableError,
    LearningFailedError,
    ModelError,
)
from agent.server.loop import backoff
from agent.server.loop.fact_learner import FactLearner
from agent.server.loop.serving import Serving
from agent.server.loop.undo.branch_builder import Failures
from agent.server.loop.undo.clean_up import Cleaner
from agent.server.loop.undo.forget import Forget
from agent.server.loop.undo.operation_runner import OperationRunner
from agent.server.loop.undo.rollback import Rollback
from agent.server.loop.undo.turns import Turns
from agent.teaching.learner_protocol import Learner, StartLearner
from memory_store import erasure, operations, tombstones, undo
from memory_store.errors import (
    LedgerConflictError,
    OperationEndedError,
    StoreFailedError,
    StoreUnusableError,
)
from memory_store.sought import Sought
from memory_store.store import MemoryStore
from memory_store.vocabulary import Operation, OperationKind, Phase, Update

logger = logging.getLogger(__name__)

# Errors of the operation itself: trying again would come to the same.
GIVEN_UP_AFTER = (LearningFailedError, DriftError, LedgerConflictError, ModelError)
RUNNERS: dict[OperationKind, Callable[..., OperationRunner]] = {
    OperationKind.FORGET: Forget,
    OperationKind.ROLLBACK: Rollback,
}


class UndoExecutor:
    """Carries operations out, each on a learner of its own that then takes the place of the first.

    Args:
        serving: the served learner.
        start_learner: makes a learner with the base checkpoint.
        facts: learns on the head meanwhile.
        cleaner: cleans up after what was forgotten.
    """

    def __init__(
        self, serving: Serving, start_learner: StartLearner, facts: FactLearner, cleaner: Cleaner
    ) -> None:
        self._serving = serving
        self._start_learner = start_learner
        self._facts = facts
        self._cleaner = cleaner
        self._asked = asyncio.Event()
        # By operation, and how far it had come: a long one may survive many deaths.
        self._deaths: Counter[tuple[int, int, int, int]] = Counter()
        self._failures: defaultdict[int, Failures] = defaultdict(partial(defaultdict, list))

    def wake(self) -> None:
        """An operation may have been cancelled: look now."""
        self._asked.set()

    async def carry_out(
        self, learner: Learner, operation: Operation, learners: AsyncExitStack
    ) -> Learner:
        """Takes an operation as far as it gets.

        Args:
            learner: that serves.
            operation: to be begun or resumed.
            learners: holds `learner`; afterwards the one that serves then.

        Returns:
            The learner that serves from now on.

        Raises:
            LearnerUnavailableError: the learner that serves died, or the head has moved and no
                learner is there.
        """
        if operation.erase:  # a fact that was being learned when that was asked for
            await self._serving.write(partial(tombstones.erase_requested, operation=operation))
            self._cleaner.wake()
        if await self._finish_if_not_held(operation):
            self._cleaner.wake()
            return learner
        successor = AsyncExitStack()
        try:
            serves = await self._operate(learner, operation, successor)
        except BaseException:
            await successor.aclose()
            raise
        if serves is learner:  # nothing came of it, and its learner is not needed
            await successor.aclose()
        else:
            predecessor = learners.pop_all()
            learners.push_async_exit(successor)
            await predecessor.aclose()
        return serves

    async def _finish_if_not_held(self, operation: Operation) -> bool:
        """Forgets a fact that the served weights do not hold; False if they hold it."""
        finish = partial(undo.finish_if_not_held, operation_id=operation.id)
        try:
            return await self._serving.write(finish)
        except OperationEndedError:  # somebody has just cancelled it
            return True

    async def _operate(
        self, learner: Learner, operation: Operation, successor: AsyncExitStack
    ) -> Learner:
        """Builds and switches; returns the learner that serves from now on."""
        dead = asyncio.ensure_future(learner.wait_dead())
        try:
            work = await self._beside_learning(learner, dead, operation, successor)
            if work.cancelled():  # it is resumed later, unless somebody cancelled it
                return learner
            if (error := work.exception()) is not None:
                await self._failed(operation, error, served_by_dead=dead.done())
                return learner
        finally:
            self._serving.operation = ""
            dead.cancel()
            self._cleaner.wake()  # the head may have moved, even if a learner died right after
        row, new_learner = work.result()
        self._serving.head_moved(row.model_version)
        self._serving.serves(new_learner, row.model_version)
        self._serving.hooks.on_update(row)
        return new_learner

    async def _beside_learning(
        self,
        learner: Learner,
        dead: asyncio.Future[int],
        operation: Operation,
        successor: AsyncExitStack,
    ) -> asyncio.Future[tuple[Update, Learner]]:
        """Carries an operation out while facts are learned on the head.

        Rolling back is quick, and what is learned meanwhile would only be undone.

        Returns:
            The work, which is over; cancelled if the server is being stopped or the operation was
            cancelled.

        Raises:
            LearnerUnavailableError: the served learner died, or lost its place.
        """
        turns = Turns()
        work = asyncio.ensure_future(self._run(operation, turns, successor))
        stopped = asyncio.ensure_future(self._serving.stopped.wait())
        ended = asyncio.ensure_future(self._until_cancelled(operation.id))
        learning = asyncio.ensure_future(
            self._facts.learn_in_turns(learner, dead, turns)
            if operation.kind is OperationKind.FORGET
            else asyncio.Event().wait()
        )
        tasks: list[asyncio.Future[Any]] = [work, ended, stopped, learning]
        try:
            await asyncio.wait([*tasks, dead], return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()  # what is on the branch is stored: the operation is resumed
                await asyncio.wait([work])
            await turns.stop()  # the update that is being made is finished
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not learning.cancelled() and (failure := learning.exception()) is not None:
            raise failure
        if work.cancelled() and dead.done():
            raise LearnerUnavailableError(f"the learner ended with code {dead.result()}")
        return work

    async def _failed(
        self, operation: Operation, error: BaseException, *, served_by_dead: bool
    ) -> None:
        """Gives an operation up, or sees to it that it is tried again.

        Raises:
            BaseException: the error, if the loop cannot go on after it.
        """
        if isinstance(error, OperationEndedError):
            logger.info("operation %d: %s", operation.id, error)
        elif isinstance(error, LearnerUnavailableError):
            await self._try_again(operation, error, served_by_dead=served_by_dead)
        elif isinstance(error, GIVEN_UP_AFTER):
            await self._give_up(operation, str(error))
        elif isinstance(error, StoreUnusableError) and not isinstance(error, StoreFailedError):
            logger.error("operation %d cannot be written: %s", operation.id, error)
            await asyncio.sleep(backoff.DISK_RETRY_SECONDS)
        else:
            raise error

    async def _run(
        self, operation: Operation, turns: Turns, successor: AsyncExitStack
    ) -> tuple[Update, Learner]:
        """Starts a second learner, and takes the operation to `switched` with it."""
        self._serving.report(operation, "starting a second learner")
        learner = await successor.enter_async_context(self._start_learner())
        runner = RUNNERS[operation.kind](
            serving=self._serving,
            operation=operation,
            learner=learner,
            failures=self._failures[operation.id],
            turns=turns,
            text=await self._text_of(operation),
        )
        return await runner.run(), learner

    async def _text_of(self, operation: Operation) -> Sought | None:
        """What was erased, if that is still known."""
        pending = await self._serving.store.read(erasure.pending)
        texts = {sought.fact_id: sought for sought in pending}
        return texts.get(operation.fact_id) or self._cleaner.texts.get(operation.fact_id)

    async def _until_cancelled(self, operation_id: int) -> None:
        """Ends when somebody has cancelled an operation."""
        find = partial(operations.get, operation_id=operation_id)
        while True:
            self._asked.clear()
            if (await self._serving.store.read(find)).phase is Phase.CANCELLED:
                return
            await self._asked.wait()

    async def _give_up(self, operation: Operation, reason: str) -> None:
        logger.error("operation %d failed: %s", operation.id, reason)
        with suppress(OperationEndedError):  # somebody has just cancelled it
            await self._serving.write(
                partial(undo.fail_operation, operation_id=operation.id, reason=reason)
            )

    async def _try_again(
        self, operation: Operation, error: LearnerUnavailableError, *, served_by_dead: bool
    ) -> None:
        """After the second learner died: the first goes on, and the operation comes again.

        Raises:
            LearnerUnavailableError: the first is dead too, or the head has moved meanwhile.
        """
        serving = self._serving
        head = await serving.store.read(MemoryStore.model_version)
        if served_by_dead or head != serving.version:
            raise error
        operation = await serving.store.read(partial(operations.get, operation_id=operation.id))
        # The failure of a fact is progress: it is quarantined in the end, and the others go on.
        failures = sum(map(len, self._failures[operation.id].values()))
        progress = (operation.id, operation.position, operation.branch_version or 0, failures)
        self._deaths[progress] += 1
        if self._deaths[progress] >= (attempts := serving.settings.max_attempts):
            await self._give_up(operation, f"its learner died {attempts} times: {error}")
        else:
            await asyncio.sleep(backoff.FIRST_RESTART_SECONDS)
