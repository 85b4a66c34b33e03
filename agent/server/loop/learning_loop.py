"""The learning loop: takes facts from the queue, one at a time, and has them learned.

The order of what is durable makes every update happen exactly once:

    claim (database) -> learn (learner, working copy) -> ledger row (database) -> commit (learner)

Whatever dies in between, the ledger alone says whether the update happened. A learner that is
started again is the base checkpoint with the ledger replayed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agent.config import DEFAULT_MAX_ATTEMPTS
from agent.errors import (
    DriftError,
    LearnerUnavailableError,
    LearningFailedError,
    MemoryShortageError,
    ModelError,
    StaleVersionError,
    UnteachableError,
)
from agent.server.data.backups import Backups
from agent.server.loop.backoff import Rest
from agent.server.loop.branch_builder import Failures, OperationSettings
from agent.server.loop.clean_up import Cleaner
from agent.server.loop.erasure import KeepOnly
from agent.server.loop.forget import Forget
from agent.server.loop.memory_binding import GeneralTextBinding, bind
from agent.server.loop.recovery import bring_to_head
from agent.server.loop.reviewer import Reviewer
from agent.server.loop.rollback import Rollback
from agent.server.loop.turns import Turns
from agent.server.loop.undo import OperationRunner
from agent.server.shared_lock import SharedLock
from agent.snapshots import remove_others
from agent.teaching.attempt import attempt_of, learning_so_far
from agent.teaching.learner_protocol import Learner, StartLearner
from agent.teaching.plan import Defaults, plan
from agent.teaching.procedure import drain, with_samples
from agent.teaching.types import LearnerDescription, Opening
from memory_store import erasure, meta, operations, tombstones, undo
from memory_store.errors import (
    LedgerConflictError,
    OperationEndedError,
    StoreFailedError,
    StoreUnusableError,
)
from memory_store.facts import companions
from memory_store.sought import Sought
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    Event,
    EventKind,
    Fact,
    FactState,
    LearnerState,
    Operation,
    OperationKind,
    OperationState,
    Policy,
    Step,
    Update,
)
from memory_store.writer import StoreThreads

T = TypeVar("T")
# Writes a snapshot of a served version with this digest, unless there is one.
HoldSnapshot = Callable[[int, str], Awaitable[None]]

logger = logging.getLogger(__name__)

# Wait before a dead learner is started again: doubled each time, up to the last.
FIRST_RESTART_SECONDS, LAST_RESTART_SECONDS = 0.1, 30.0
# Wait before a write that found the disk full is tried again.
DISK_RETRY_SECONDS = 1.0
# Longest wait for a snapshot before a text is erased.
PREPARE_ERASE_SECONDS = 10.0
# Longest sleep of an idle loop.
IDLE_SECONDS = 5.0


class _NotDoneError(Exception):
    """An operation was broken off; it is resumed later, unless somebody cancelled it."""


class _HeadFailedError(Exception):
    """What is served cannot go on, whatever an operation does."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What the operator decides.

    Attributes:
        model: name or folder, as given.
        policy: for facts that bring none.
        gated: every update must pass the gate; see `Policy`.
        snapshots: folder of all snapshots.
        accept_drift: serve weights that replay differently from what was recorded.
        samples: sampled for each question of a fact after its update; 0 for none.
        max_attempts: a fact that fails this often is quarantined; the others go on.
    """

    model: str
    policy: Policy
    snapshots: Path
    gated: bool = False
    accept_drift: bool = False
    samples: int = 0
    max_attempts: int = DEFAULT_MAX_ATTEMPTS


class LearningLoop:
    """Keeps a learner alive and feeds it: operations first, then facts, then reviews.

    Attributes:
        learner: the one that can be asked now, or None.
        state: what it is doing.
        description: what it has loaded, once known.
        updates_to_replay: how far recovery has still to go.
        message: for people, what keeps it from being ready, such as why it was down last.
        operation: what an operation in hand is doing, for people; empty if there is none.
        memory: bytes that the learner takes, of its GPU or of RAM, and what there is of it.
        questions: shared by whoever asks the learner; a fact that failed is tried again alone.
        state_changed: set at every change of `state`.
    """

    def __init__(
        self,
        store: StoreThreads,
        start_learner: StartLearner,
        publish: Callable[[Event], None],
        settings: LoopSettings,
        on_update: Callable[[Update], None] = lambda update: None,
        keep_only: KeepOnly | None = None,
        on_loaded: Callable[[LearnerDescription], Awaitable[None]] | None = None,
        backups: Backups | None = None,
        around: Callable[[Fact], AbstractAsyncContextManager[None]] = lambda fact: nullcontext(),
        hold_snapshot: HoldSnapshot | None = None,
    ) -> None:
        """Prepares; `run` does it.

        Args:
            store: the memory.
            start_learner: makes a learner with the base checkpoint.
            publish: called with passing events.
            settings: see there.
            on_update: called when a row of the ledger is served.
            keep_only: removes snapshots, from whoever writes any meanwhile; see `SnapshotKeeper`.
            on_loaded: told of each learner once it is known to have this memory's model.
            backups: of this memory, removed when a fact is erased; None: none are known.
            around: entered with each claimed fact, while it is learned.
            hold_snapshot: makes sure that a snapshot of the served weights exists, before the
                learner ends in good order; see `SnapshotKeeper.hold`.
        """
        self._store = store
        self._start_learner = start_learner
        self._publish = publish
        self._settings = settings
        self._on_update = on_update
        self._cleaner = Cleaner(
            store,
            keep_only or self._remove_others,
            backups,
            self._when_writable,
            lambda: self.learner,
        )
        self._on_loaded = on_loaded
        self._around = around
        self._hold_snapshot = hold_snapshot
        self._general_text = GeneralTextBinding(store)
        self._woken, self._asked = asyncio.Event(), asyncio.Event()
        self._version = 0
        self._step_number = 0  # of the attempt in progress
        self._predictor: tuple[float, ...] | None = None
        self._taken_back_at = 0
        self._served = asyncio.Event()
        self._stopped = asyncio.Event()
        self._unasked: Awaitable[object] | None = None
        # By operation, and how far it had come: a long one may survive many deaths.
        self._operation_deaths: Counter[tuple[int, int, int, int]] = Counter()
        self._operation_failures: defaultdict[int, Failures] = defaultdict(
            partial(defaultdict, list)
        )
        self._rest = Rest()
        # Facts that failed while questions were being answered: these may be the cause.
        self._doubtful: set[str] = set()
        self._reviewer = Reviewer(
            store,
            self._defaults,
            self._environment,
            self._publish_step,
            self._when_writable,
            settings.samples,
            self._stopped,
        )
        self.learner: Learner | None = None
        self.state = LearnerState.STARTING
        self.state_changed = asyncio.Event()
        self.description: LearnerDescription | None = None
        self.updates_to_replay = 0
        self.message = ""
        self.operation = ""
        self.memory = (0, 0)
        self.questions = SharedLock()

    def wake(self) -> None:
        """A fact or an operation was accepted, or learning resumed: look at the queue now."""
        self._woken.set()
        self._asked.set()

    def predict_by(self, predictor: tuple[float, ...] | None, version: int) -> None:
        """From now on the policy `predicted` expects rates by this, which the ledger tells.

        Args:
            predictor: as in `Policy`; None if there is too little to tell.
            version: the head when the ledger was read. What has been taken back since would still
                have a say: then it is not used.
        """
        if version >= self._taken_back_at:
            self._predictor = predictor

    async def look_at_memory(self) -> None:
        """A tick: how much memory the learner takes now."""
        if (learner := self.learner) is None:
            self.memory = (0, 0)
            return
        try:
            self.memory = await learner.memory()
        except (LearnerUnavailableError, LearningFailedError) as error:
            logger.debug("its memory is not known: %s", error)

    async def review_due(self) -> None:
        """A tick: facts may be due for review. Between two facts there is one review at most."""
        self._reviewer.pending = True
        self._woken.set()

    def stop(self, unasked: Awaitable[object] | None = None) -> None:
        """Ends `run` once the update in hand is in the ledger.

        Args:
            unasked: done when nobody asks the learner any more; it is kept until then.
        """
        self._unasked = unasked
        self._stopped.set()
        self._woken.set()

    async def snapshot_head(self) -> None:
        """Makes sure that a snapshot holds what is served; does nothing while nothing is.

        At the end: another release may be unable to replay what this one learned.
        """
        if self._hold_snapshot is None or self.learner is None or not self._version:
            return
        served = await self._store.read(partial(MemoryStore.update, model_version=self._version))
        await self._hold_snapshot(served.model_version, served.digest_after)

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

    async def current(self) -> Learner:
        """The learner to be asked, once it serves all that is in the ledger now.

        A fact is seen to be learned when its row is committed, a moment before its weights are
        served. Whoever saw that and asks gets the new weights.

        Raises:
            LearnerUnavailableError: there is none now.
        """
        # While an operation gives facts their new states, nobody sees those, and the old weights
        # are served: questions go on.
        head = 0
        if not self._store.is_switching:
            head = await self._store.read(MemoryStore.model_version)
        while self.learner is not None and self._version < head:
            await self._served.wait()
        if self.learner is None:
            why = f" ({self.message})" if self.message else ""
            raise LearnerUnavailableError(
                f"the learner is {self.state}{why}: try again in a moment ('agent status' tells how"
                " far it is)"
            )
        return self.learner

    def _serves(self, learner: Learner | None, version: int) -> None:
        """Notes what is served from now on, and tells those who wait for it."""
        self.learner, self._version = learner, version
        # A new event each time: those who wait hold the old one.
        self._served.set()
        self._served = asyncio.Event()

    async def run(self) -> None:
        """Learns until `stop`.

        Raises:
            DriftError: the ledger does not replay to the recorded weights.
            ModelError: the model cannot be loaded.
            OtherModelError: the database belongs to another model, or tokenizer.
            StoreUnusableError: the disk failed; or it is full when the loop starts or is stopped.
        """
        attempts = self._settings.max_attempts
        await self._store.write(partial(MemoryStore.release_claims, max_attempts=attempts))
        cleaning = asyncio.create_task(self._cleaner.run())
        try:
            await self._keep_learning()
        finally:
            cleaning.cancel()
            await asyncio.gather(cleaning, return_exceptions=True)

    @property
    def clean_up_problem(self) -> str:
        """What a forgotten fact left behind and cannot be removed now; empty if nothing."""
        return self._cleaner.problem

    @property
    def clean_up_failures(self) -> int:
        """How many attempts at cleaning up failed since the start."""
        return self._cleaner.failures

    async def _keep_learning(self) -> None:
        """Starts a learner again whenever it ends, until `stop`."""
        pause = FIRST_RESTART_SECONDS
        while not self._stopped.is_set():
            self._set_state(LearnerState.STARTING)
            try:
                async with AsyncExitStack() as learners:
                    learner = await learners.enter_async_context(self._start_learner())
                    try:
                        await self._recover(learner)
                        pause = FIRST_RESTART_SECONDS
                        await self._serve(learner, learners)
                        await self.snapshot_head()
                        if self._unasked is not None:
                            await self._unasked
                    finally:
                        self._serves(None, self._version)
                        if not self._stopped.is_set():
                            # Now, not when it has ended: that may take some seconds.
                            self._set_state(LearnerState.DOWN)
            # The last two come from recovery and commit: it cannot follow the ledger as it is.
            except (LearnerUnavailableError, LearningFailedError, StaleVersionError) as error:
                self.message = f"{error}; starting it again in {pause:.1f} s"
                self._set_state(LearnerState.DOWN)
                logger.warning("the learner is down: %s", self.message)
                await self._record_event(EventKind.LEARNER_DOWN, str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_RESTART_SECONDS)

    async def _recover(self, learner: Learner) -> None:
        """Brings a fresh learner to the head of the ledger."""
        started = time.monotonic()
        description = await learner.describe()
        accept = self._settings.accept_drift
        await bind(self._store, self._settings.model, description, accept=accept)
        self.description = description
        if self._on_loaded is not None:
            await self._on_loaded(description)
        self._set_state(LearnerState.RECOVERING)
        before = self._version
        self._version = await self._store.read(MemoryStore.model_version)
        if 0 < before < self._version:  # maybe by an operation that did not see its end
            self._predictor, self._taken_back_at = None, self._version
        head = await bring_to_head(
            learner, self._store, description, self._settings.snapshots, self._replaying, accept
        )
        self._version = head.version
        ready = (
            f"{self._settings.model} on {description.device}, version {self._version}: replayed"
            f" {head.replayed} updates, {time.monotonic() - started:.1f} s"
        )
        await self._record_event(EventKind.LEARNER_READY, ready)
        logger.info("ready: %s", ready)
        self._serves(learner, self._version)
        self.message = ""
        self._set_state(LearnerState.READY)

    def _replaying(self, remaining: int) -> None:
        self.updates_to_replay = remaining

    async def _serve(self, learner: Learner, learners: AsyncExitStack) -> None:
        """Does what waits, until `stop`; an operation puts another learner in place of this one."""
        while not self._stopped.is_set():
            operation = await self._learn_queue(learner)
            if operation is None:
                continue
            if operation.erase:  # a fact that was being learned when that was asked for
                erase = partial(tombstones.erase_requested, operation=operation)
                await self._when_writable(erase)
                self._cleaner.wake()
            if await self._finish_if_not_held(operation):
                self._cleaner.wake()
                continue
            before, successor = learner, AsyncExitStack()
            try:
                learner = await self._operate(learner, operation, successor)
            except BaseException:
                await successor.aclose()
                raise
            if learner is before:  # nothing came of it, and its learner is not needed
                await successor.aclose()
                continue
            predecessor = learners.pop_all()
            learners.push_async_exit(successor)
            await predecessor.aclose()

    async def _finish_if_not_held(self, operation: Operation) -> bool:
        """Forgets a fact that the served weights do not hold; False if they hold it."""
        finish = partial(undo.finish_if_not_held, operation_id=operation.id)
        try:
            return await self._when_writable(finish)
        except OperationEndedError:  # somebody has just cancelled it
            return True

    async def _remove_others(self, kept: Collection[int]) -> None:
        await asyncio.to_thread(remove_others, self._settings.snapshots, kept)

    async def _learn_queue(self, learner: Learner) -> Operation | None:
        """Learns until `stop`, or until there is an operation to be done, which is returned."""
        dead = asyncio.ensure_future(learner.wait_dead())
        try:
            while not self._stopped.is_set():
                # Cleared before the look, so that a fact accepted after it wakes us again.
                self._woken.clear()
                if dead.done():
                    raise LearnerUnavailableError(f"the learner ended with code {dead.result()}")
                operation, paused = await self._store.read(
                    lambda store: (
                        operations.oldest_not_served(store),
                        meta.learning_paused(store.connection),
                    )
                )
                if operation is not None:
                    return operation
                if not paused and await self._learn_next(learner, dead):
                    continue
                woken = asyncio.ensure_future(self._woken.wait())
                # Idle seconds are for clients that gave up while their fact was being written.
                seconds = self._rest.seconds_left() or IDLE_SECONDS
                await asyncio.wait(
                    [woken, dead], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
                )
                woken.cancel()
        finally:
            dead.cancel()
        return None

    async def _learn_next(self, learner: Learner, dead: asyncio.Future[int]) -> bool:
        """Learns the fact that is next, if any, and reviews one; False if nothing waits."""
        learned = await self._learn_oldest(learner, dead)
        return await self._review(learner) or learned

    async def _learn_oldest(self, learner: Learner, dead: asyncio.Future[int]) -> bool:
        """Learns the fact that has waited longest; False if none waits."""
        resting = self._rest.seconds_left() > 0
        fact = None if resting else await self._when_writable(MemoryStore.claim)
        if fact is None:
            return False
        try:
            async with self._around(fact):
                await self._learn(learner, fact, dead)
        except asyncio.CancelledError:
            # The server is being stopped: that is not the fact's failure.
            await asyncio.shield(self._given_up(fact))
            raise
        if self._cleaner.waits_for_fact:
            self._cleaner.wake()
        return True

    async def _learn_meanwhile(
        self, learner: Learner, dead: asyncio.Future[int], turns: Turns
    ) -> None:
        """Learns and reviews on the head while a branch grows, until `stop`."""
        while not self._stopped.is_set():
            self._woken.clear()
            async with turns.turn() as processed:
                if not await self._store.read(lambda store: meta.learning_paused(store.connection)):
                    if await self._learn_oldest(learner, dead):
                        processed.append("a fact")
                    elif self._reviewer.pending:
                        await self._review(learner)
                        processed.append("a review")
            if not processed:
                woken = asyncio.ensure_future(self._woken.wait())
                await asyncio.wait([woken], timeout=self._rest.seconds_left() or IDLE_SECONDS)
                woken.cancel()

    async def _operate(
        self, learner: Learner, operation: Operation, successor: AsyncExitStack
    ) -> Learner:
        """Carries an operation out; returns the learner that serves from now on."""
        turns = Turns()
        dead = asyncio.ensure_future(learner.wait_dead())
        try:
            row, new_learner = await self._beside_learning(
                learner, dead, turns, operation, self._run_operation(operation, turns, successor)
            )
        except _NotDoneError:
            return learner
        except _HeadFailedError as failure:
            raise failure.error from None
        except OperationEndedError as error:
            logger.info("operation %d: %s", operation.id, error)
            return learner
        except (LearningFailedError, DriftError, LedgerConflictError, ModelError) as error:
            await self._give_up(operation, str(error))
            return learner
        except LearnerUnavailableError as error:
            await self._try_again(operation, error, served_by_dead=dead.done())
            return learner
        except StoreUnusableError as error:
            if isinstance(error, StoreFailedError):
                raise
            logger.error("operation %d cannot be written: %s", operation.id, error)
            await asyncio.sleep(DISK_RETRY_SECONDS)
            return learner
        finally:
            self.operation = ""
            dead.cancel()
            self._cleaner.wake()  # the head may have moved, even if a learner died right after
        self._predictor, self._taken_back_at = None, row.model_version
        self._serves(new_learner, row.model_version)
        self._on_update(row)
        return new_learner

    async def _beside_learning(
        self,
        learner: Learner,
        dead: asyncio.Future[int],
        turns: Turns,
        operation: Operation,
        operating: Coroutine[Any, Any, T],
    ) -> T:
        """Carries an operation out while facts are learned on the head.

        Rolling back is quick, and what is learned meanwhile would only be undone.

        Raises:
            _NotDoneError: the server is being stopped, or the operation was cancelled.
            _HeadFailedError: the served learner died, or lost its place.
        """
        work = asyncio.ensure_future(operating)
        stopped = asyncio.ensure_future(self._stopped.wait())
        ended = asyncio.ensure_future(self._until_cancelled(operation.id))
        learning = asyncio.ensure_future(
            self._learn_meanwhile(learner, dead, turns)
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
            raise _HeadFailedError(failure)
        if not work.cancelled():
            return work.result()
        if dead.done():
            died = LearnerUnavailableError(f"the learner ended with code {dead.result()}")
            raise _HeadFailedError(died)
        raise _NotDoneError

    async def _until_cancelled(self, operation_id: int) -> None:
        """Ends when somebody has cancelled an operation."""
        while True:
            self._asked.clear()
            operation = await self._store.read(partial(operations.get, operation_id=operation_id))
            if operation.state is OperationState.CANCELLED:
                return
            await self._asked.wait()

    async def _give_up(self, operation: Operation, reason: str) -> None:
        logger.error("operation %d failed: %s", operation.id, reason)
        with suppress(OperationEndedError):  # somebody has just cancelled it
            await self._when_writable(
                partial(undo.fail_operation, operation_id=operation.id, reason=reason)
            )

    async def _try_again(
        self, operation: Operation, error: LearnerUnavailableError, *, served_by_dead: bool
    ) -> None:
        """After the second learner died: the first goes on, and the operation comes again.

        Raises:
            LearnerUnavailableError: the first is dead too, or the head has moved meanwhile.
        """
        head = await self._store.read(MemoryStore.model_version)
        if served_by_dead or head != self._version:
            raise error
        operation = await self._store.read(partial(operations.get, operation_id=operation.id))
        # The failure of a fact is progress: it is quarantined in the end, and the others go on.
        failures = sum(map(len, self._operation_failures[operation.id].values()))
        branch = operation.branch_version or 0
        progress = (operation.id, operation.position, branch, failures)
        self._operation_deaths[progress] += 1
        if self._operation_deaths[progress] >= (attempts := self._settings.max_attempts):
            await self._give_up(operation, f"its learner died {attempts} times: {error}")
        else:
            await asyncio.sleep(FIRST_RESTART_SECONDS)

    async def _run_operation(
        self, operation: Operation, turns: Turns, successor: AsyncExitStack
    ) -> tuple[Update, Learner]:
        self._operating(operation, "starting a second learner")
        learner = await successor.enter_async_context(self._start_learner())
        needed: dict[str, Any] = {
            "operation": operation,
            "learner": learner,
            "store": self._store,
            "settings": OperationSettings(
                snapshots=self._settings.snapshots,
                defaults=self._defaults(),
                environment=self._environment(),
                max_attempts=self._settings.max_attempts,
                algorithm=self.description.algorithm if self.description else "",
            ),
            "progress": partial(self._operating, operation),
        }
        runner: OperationRunner = (
            Rollback(**needed)
            if operation.kind is OperationKind.ROLLBACK
            else Forget(
                **needed,
                failures=self._operation_failures[operation.id],
                turns=turns,
                text=await self._text_of(operation),
            )
        )
        return await runner.run(), learner

    async def _text_of(self, operation: Operation) -> Sought | None:
        """What was erased, if that is still known."""
        pending = await self._store.read(erasure.pending)
        texts = {sought.fact_id: sought for sought in pending}
        return texts.get(operation.fact_id) or self._cleaner.texts.get(operation.fact_id)

    def _operating(self, operation: Operation, what: str) -> None:
        self.operation = f"{operation.kind} {operation.fact_id}: {what}"
        self._publish(
            Event(
                sequence=0,
                kind=EventKind.REBUILDING,
                at=datetime.now(UTC),
                fact_id=operation.fact_id,
                model_version=self._version,
                message=what,
            )
        )

    def _environment(self) -> Mapping[str, str]:
        return self.description.environment if self.description else {}

    async def _learn(self, learner: Learner, fact: Fact, dead: asyncio.Future[int]) -> None:
        """Learns one claimed fact and leaves it in its next state, whatever happens.

        What failed is tried again alone, without questions, and only a fact that fails alone is
        charged with a shortage of memory or the learner's death.
        """
        alone = fact.failed_attempts > 0 or fact.id in self._doubtful
        async with self.questions.exclusive() if alone else nullcontext():
            if dead.done():  # of the last question, before it was given the fact
                await self._when_writable(lambda store: store.release(fact.id))
                raise LearnerUnavailableError(f"the learner ended with code {dead.result()}")
            update = await self._attempt(learner, fact, alone=alone)
        if update is not None:
            await self._commit(learner, update)

    async def _attempt(self, learner: Learner, fact: Fact, *, alone: bool) -> Update | None:
        """One attempt; the row of the ledger that is to be served, if there is one."""
        entries = self.questions.entries
        if not alone:  # whoever is being answered already is company too
            entries -= self.questions.holders
        try:
            update = await self._learn_once(learner, fact)
        except UnteachableError as error:
            await self._fail(fact, str(error), for_good=True)
        except MemoryShortageError as error:
            await self._fail(fact, str(error), charged=self.questions.entries == entries)
        except LearningFailedError as error:
            await self._fail(fact, str(error))
        except StaleVersionError as error:
            await self._when_writable(lambda store: store.release(fact.id))
            raise LearnerUnavailableError(f"the learner lost its place: {error}") from error
        except LearnerUnavailableError as error:
            charged = self.questions.entries == entries
            await self._fail(fact, f"the learner died: {error}", charged=charged)
            raise
        except StoreUnusableError as error:
            logger.error("cannot write the update of %s: %s", fact.id, error)
            await self._when_writable(lambda store: store.release(fact.id))
        else:
            self._is_settled(fact)
            return update
        return None

    async def _commit(self, learner: Learner, update: Update) -> None:
        # The ledger has it: if the learner dies here, replay brings it to this version.
        await learner.commit(update.model_version, update.digest_after)
        self._serves(learner, update.model_version)
        self._on_update(update)

    async def _review(self, learner: Learner) -> bool:
        """Reviews a fact if one is due; False if none is."""
        if not self._reviewer.pending or self._stopped.is_set():
            return False
        update = await self._reviewer.review_next(learner, self._version)
        if update is not None:
            await self._commit(learner, update)
        return self._reviewer.pending

    async def _learn_once(self, learner: Learner, fact: Fact) -> Update | None:
        """Has the fact learned and records the attempt; the row of the ledger, if there is one."""
        started = time.monotonic()
        lesson = plan(fact, self._version, self._defaults())
        count = lesson.companions
        older = await self._store.read(lambda store: companions(store.connection, fact, count))
        lesson = lesson.accompanied_by(older)
        outcome = await drain(learner.learn(lesson), partial(self._publish_step, fact))
        await self._general_text.seen(outcome.general_text)
        seconds = time.monotonic() - started  # without the samples: no replay takes them
        samples = self._settings.samples
        outcome = await with_samples(learner, lesson.example, outcome, samples, self._stopped)
        attempt = attempt_of(lesson, outcome, self._environment(), seconds)
        return await self._store.write(partial(MemoryStore.record, attempt=attempt))

    async def _fail(
        self, fact: Fact, reason: str, *, charged: bool = True, for_good: bool = False
    ) -> None:
        """Queues the fact again, or quarantines it, `for_good` at once; learning rests a while."""
        logger.warning("learning %s failed: %s", fact.id, reason)
        if charged:
            policy = plan(fact, self._version, self._defaults()).policy
            attempts = 1 if for_good else self._settings.max_attempts
            left = await self._when_writable(
                lambda store: store.record_failure(fact.id, reason, attempts, policy)
            )
        else:
            self._doubtful.add(fact.id)
            why = f"not counted, since questions were being answered: {reason}"
            left = await self._when_writable(lambda store: store.release(fact.id, why))
        if left.state is FactState.QUEUED:
            self._rest.after_failure()
        else:
            self._is_settled(fact)

    def _is_settled(self, fact: Fact) -> None:
        """Another fact is next."""
        self._doubtful.discard(fact.id)
        self._rest.end()

    async def _given_up(self, fact: Fact) -> None:
        """Gives a claim back, unless the attempt has ended meanwhile."""

        def release(store: MemoryStore) -> None:
            if store.fact(fact.id).state is FactState.LEARNING:
                store.release(fact.id)

        try:
            await self._store.write(release)
        except StoreUnusableError as error:
            logger.error("cannot release %s: %s", fact.id, error)

    def _defaults(self) -> Defaults:
        return Defaults(
            policy=self._settings.policy,
            gated=self._settings.gated,
            predictor=self._predictor,
            device=self.description.device if self.description else "cpu",
        )

    async def _when_writable(self, operation: Callable[[MemoryStore], T]) -> T:
        """Tries until the database takes it, or `stop`: a full disk may be emptied."""
        while True:
            try:
                return await self._store.write(operation)
            except StoreUnusableError as error:
                if self._stopped.is_set() or isinstance(error, StoreFailedError):
                    raise
                logger.error("the database cannot be written: %s", error)
                await asyncio.sleep(DISK_RETRY_SECONDS)

    def _set_state(self, state: LearnerState) -> None:
        self.state = state
        self.state_changed.set()

    async def _record_event(self, kind: EventKind, message: str) -> None:
        version = self._version
        await self._when_writable(lambda store: store.record_event(kind, message, version))

    def _publish_step(self, fact: Fact, step: Step, opening: Opening | None) -> None:
        self._step_number = 1 if opening else self._step_number + 1
        self._publish(
            Event(
                sequence=0,
                kind=EventKind.STEP,
                at=datetime.now(UTC),
                fact_id=fact.id,
                model_version=self._version,
                step=step,
                learning=learning_so_far(opening, step) if opening else None,
                step_number=self._step_number,
            )
        )
