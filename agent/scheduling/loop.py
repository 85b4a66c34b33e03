"""The learning loop: takes facts from the queue, one at a time, and has them learned.

The order of what is durable makes every update happen exactly once:

    claim (database) -> learn (learner, working copy) -> ledger row (database) -> commit (learner)

Whatever dies in between, the ledger alone says whether the update happened. A learner that is
started again is the base checkpoint with the ledger replayed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import TypeVar

from agent.errors import LearnerUnavailableError, LearningFailedError, StaleVersionError
from agent.learning.records import Example, LearnerDescription, Outcome, ReplayedUpdate
from agent.scheduling.ports import Learner, StartLearner
from memory_store.errors import StoreFailedError, StoreUnusableError
from memory_store.records import (
    Event,
    EventKind,
    Fact,
    Learning,
    NewProbe,
    NewUpdate,
    Policy,
    ProbeKind,
    Step,
    Update,
)
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads

T = TypeVar("T")

logger = logging.getLogger(__name__)

# A fact that fails this often is quarantined; the others go on.
MAX_ATTEMPTS = 3
# Older facts given to the learner with each new one.
OLDER_FACTS = 32
REPLAY_PAGE = 100
# Wait before a dead learner is started again: doubled each time, up to the last.
FIRST_RESTART_SECONDS, LAST_RESTART_SECONDS = 0.1, 30.0
# Wait before a write that found the disk full is tried again.
DISK_RETRY_SECONDS = 1.0


class LearnerState(StrEnum):
    """What the learner is doing."""

    STARTING = "starting"
    RECOVERING = "recovering"
    READY = "ready"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What the operator decides.

    Attributes:
        model: name or folder, as given.
        policy: for facts that bring none.
    """

    model: str
    policy: Policy


class LearningLoop:
    """Keeps a learner alive and feeds it.

    Attributes:
        learner: the one that can be asked now, or None.
        state: what it is doing.
        description: what it has loaded, once known.
        updates_to_replay: how far recovery has still to go.
        state_changed: set at every change of `state`.
    """

    def __init__(
        self,
        store: StoreThreads,
        start_learner: StartLearner,
        publish: Callable[[Event], None],
        settings: LoopSettings,
    ) -> None:
        self._store = store
        self._start_learner = start_learner
        self._publish = publish
        self._settings = settings
        self._woken = asyncio.Event()
        self._stopping = False
        self._version = 0
        self.learner: Learner | None = None
        self.state = LearnerState.STARTING
        self.state_changed = asyncio.Event()
        self.description: LearnerDescription | None = None
        self.updates_to_replay = 0

    def wake(self) -> None:
        """A fact was accepted: look at the queue now."""
        self._woken.set()

    def stop(self) -> None:
        """Ends `run` once the update in hand is in the ledger."""
        self._stopping = True
        self._woken.set()

    async def run(self) -> None:
        """Learns until `stop`.

        Raises:
            DriftError: the ledger does not replay to the recorded weights.
            ModelError: the model cannot be loaded.
            OtherModelError: the database belongs to another model.
            StoreUnusableError: the disk failed; or it is full when the loop starts or is stopped.
        """
        await self._store.write(MemoryStore.release_claims)
        pause = FIRST_RESTART_SECONDS
        while not self._stopping:
            self._set_state(LearnerState.STARTING)
            try:
                async with self._start_learner() as learner:
                    try:
                        await self._recover(learner)
                        pause = FIRST_RESTART_SECONDS
                        await self._learn_queue(learner)
                    finally:
                        self.learner = None
            # The last two come from recovery and commit: it cannot follow the ledger as it is.
            except (LearnerUnavailableError, LearningFailedError, StaleVersionError) as error:
                self._set_state(LearnerState.DOWN)
                logger.warning("the learner is down: %s; starting it again in %.1f s", error, pause)
                await self._record_event(EventKind.LEARNER_DOWN, str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_RESTART_SECONDS)

    async def _recover(self, learner: Learner) -> None:
        """Brings a fresh learner to the newest position of the ledger."""
        started = time.monotonic()
        self.description = description = await learner.describe()
        await self._store.write(
            lambda store: store.bind_model(self._settings.model, description.base_digest)
        )
        self._set_state(LearnerState.RECOVERING)
        newest = await self._store.read(MemoryStore.model_version)
        self._version, self.updates_to_replay = 0, newest
        while self._version < newest:
            rows = await self._store.read(partial(_replayed_updates, self._version))
            async for self._version in learner.replay(rows):
                self.updates_to_replay = newest - self._version
        self.learner = learner
        self._set_state(LearnerState.READY)
        await self._record_event(
            EventKind.LEARNER_READY,
            f"{self._settings.model} on {description.device}; replayed {newest} updates"
            f" in {time.monotonic() - started:.1f} s",
        )

    async def _learn_queue(self, learner: Learner) -> None:
        dead = asyncio.ensure_future(learner.wait_dead())
        try:
            while not self._stopping:
                # Cleared before the look, so that a fact accepted after it wakes us again.
                self._woken.clear()
                if dead.done():
                    raise LearnerUnavailableError(f"the learner ended with code {dead.result()}")
                fact = await self._when_writable(MemoryStore.claim)
                if fact is not None:
                    await self._learn(learner, fact)
                    continue
                woken = asyncio.ensure_future(self._woken.wait())
                await asyncio.wait([woken, dead], return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
        finally:
            dead.cancel()

    async def _learn(self, learner: Learner, fact: Fact) -> None:
        """Learns one claimed fact and leaves it in its next state, whatever happens."""
        try:
            update = await self._learn_once(learner, fact)
        except LearningFailedError as error:
            await self._fail(fact, str(error))
        except StaleVersionError as error:
            await self._when_writable(lambda store: store.release(fact.id))
            raise LearnerUnavailableError(f"the learner lost its place: {error}") from error
        except LearnerUnavailableError as error:
            await self._fail(fact, f"the learner died: {error}")
            raise
        except StoreUnusableError as error:
            logger.error("cannot write the update of %s: %s", fact.id, error)
            await self._when_writable(lambda store: store.release(fact.id))
        else:
            if update is not None:
                # The ledger has it: if the learner dies here, replay brings it to this version.
                await learner.commit(update.model_version, update.digest_after)
                self._version = update.model_version

    async def _learn_once(self, learner: Learner, fact: Fact) -> Update | None:
        """Has the fact learned and writes down what came of it; the ledger row, if there is one."""
        started = time.monotonic()
        older = await self._store.read(lambda store: store.older_facts(fact, OLDER_FACTS))
        policy = fact.policy or self._settings.policy
        outcome: Outcome | None = None
        async for progress in learner.learn(
            Example.of(fact), policy, self._version, [Example.of(other) for other in older]
        ):
            if isinstance(progress, Step):
                self._publish(self._step_event(fact, progress))
            else:
                outcome = progress
        if outcome is None:
            raise LearnerUnavailableError("it ended without an outcome")
        probes = _probes(fact, older, outcome)
        learning = Learning(
            learning_rates=tuple(step.learning_rate for step in outcome.steps),
            probability_before=math.exp(outcome.before.log_probability),
            probability_after=math.exp(outcome.after.log_probability),
            answer_before=outcome.before.text,
            answer_after=outcome.after.text,
        )
        if outcome.verdict == "learned":
            new = NewUpdate(
                fact_id=fact.id,
                base_version=self._version,
                steps=outcome.steps,
                digest_before=outcome.digest_before,
                digest_after=outcome.digest_after,
                algorithm=outcome.algorithm,
                environment=self.description.environment if self.description else {},
                seconds=time.monotonic() - started,
            )
            return await self._store.write(
                lambda store: store.record_learned(new, learning, probes)
            )
        if outcome.verdict == "known":
            await self._store.write(lambda store: store.record_known(fact.id, learning, probes))
        else:
            await self._store.write(
                lambda store: store.record_resisted(fact.id, outcome.reason, learning, probes)
            )
        return None

    async def _fail(self, fact: Fact, reason: str) -> None:
        logger.warning("learning %s failed: %s", fact.id, reason)
        await self._when_writable(lambda store: store.record_failure(fact.id, reason, MAX_ATTEMPTS))

    async def _when_writable(self, operation: Callable[[MemoryStore], T]) -> T:
        """Tries until the database takes it, or `stop`: a full disk may be emptied."""
        while True:
            try:
                return await self._store.write(operation)
            except StoreUnusableError as error:
                if self._stopping or isinstance(error, StoreFailedError):
                    raise
                logger.error("the database cannot be written: %s", error)
                await asyncio.sleep(DISK_RETRY_SECONDS)

    def _set_state(self, state: LearnerState) -> None:
        self.state = state
        self.state_changed.set()

    async def _record_event(self, kind: EventKind, message: str) -> None:
        version = self._version
        await self._when_writable(lambda store: store.record_event(kind, message, version))

    def _step_event(self, fact: Fact, step: Step) -> Event:
        return Event(
            sequence=0,
            kind=EventKind.STEP,
            at=datetime.now(UTC),
            fact_id=fact.id,
            model_version=self._version,
            step=step,
        )


def _replayed_updates(after_version: int, store: MemoryStore) -> list[ReplayedUpdate]:
    """The next page of the ledger, with the texts that its steps need."""
    examples: dict[str, Example] = {}

    def example(fact_id: str) -> Example:
        if fact_id not in examples:
            examples[fact_id] = Example.of(store.fact(fact_id))
        return examples[fact_id]

    rows = []
    for update in store.updates(after_version=after_version, limit=REPLAY_PAGE):
        rehearsed = dict.fromkeys(id_ for step in update.steps for id_ in step.rehearsed_fact_ids)
        rows.append(
            ReplayedUpdate(
                update=update,
                example=example(update.fact_id),
                rehearsed=tuple(map(example, rehearsed)),
            )
        )
    return rows


def _probes(fact: Fact, older: Sequence[Fact], outcome: Outcome) -> list[NewProbe]:
    """What the learner measured, as rows: the fact itself, its correlates, older facts."""
    rows = [outcome.after.as_probe(ProbeKind.RETENTION, fact, fact.question)]
    for question, answer in zip(fact.correlated_questions, outcome.transfer, strict=True):
        rows.append(answer.as_probe(ProbeKind.TRANSFER, fact, question))
    # Empty if no update was made.
    for other, answer in zip(older, outcome.forgetting, strict=False):
        rows.append(answer.as_probe(ProbeKind.FORGETTING, other, other.question))
    return rows
