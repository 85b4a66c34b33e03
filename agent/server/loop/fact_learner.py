"""Learning facts from the queue, one at a time, and reviewing in between.

The order of what is durable makes every update happen exactly once:

    claim (database) -> learn (learner, working copy) -> ledger row (database) -> commit (learner)

Whatever dies in between, the ledger alone says whether the update happened.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import nullcontext
from functools import partial
from typing import Any

from agent.errors import (
    LearnerUnavailableError,
    LearningFailedError,
    MemoryShortageError,
    StaleVersionError,
    UnteachableError,
)
from agent.server.loop.backoff import Rest
from agent.server.loop.memory_binding import GeneralTextBinding
from agent.server.loop.reviewer import Reviewer
from agent.server.loop.serving import Serving
from agent.server.loop.undo.clean_up import Cleaner
from agent.server.loop.undo.turns import Turns
from agent.teaching.attempt import attempt_of, learning_so_far
from agent.teaching.learner_protocol import Learner
from agent.teaching.plan import plan
from agent.teaching.procedure import drain, with_samples
from agent.teaching.types import Opening
from memory_store import meta
from memory_store.errors import StoreUnusableError
from memory_store.facts import companions
from memory_store.store import MemoryStore
from memory_store.vocabulary import EventKind, Fact, FactState, Step, Update

logger = logging.getLogger(__name__)

# Longest sleep of an idle loop.
IDLE_SECONDS = 5.0


class FactLearner:
    """Has the served learner learn and review.

    Args:
        serving: the served learner.
        cleaner: woken when a fact that was to be erased is no longer being learned.
    """

    def __init__(self, serving: Serving, cleaner: Cleaner) -> None:
        self._serving = serving
        self._cleaner = cleaner
        self._general_text = GeneralTextBinding(serving.store)
        self._rest = Rest()
        # Facts that failed while questions were being answered: these may be the cause.
        self._doubtful: set[str] = set()
        self._step_number = 0  # of the attempt in progress
        self._reviewer = Reviewer(serving, self._publish_step)

    def review_due(self) -> None:
        """Facts may be due for review. Between two facts there is one review at most."""
        self._reviewer.pending = True
        self._serving.woken.set()

    # --- What is next ---------------------------------------------------------------------------

    async def learn_next(self, learner: Learner, dead: asyncio.Future[int]) -> bool:
        """Learns the fact that is next, if any, and reviews one; False if nothing waits.

        Args:
            learner: that serves.
            dead: done when it has died.

        Raises:
            LearnerUnavailableError: it died, or lost its place.
        """
        learned = await self._learn_oldest(learner, dead)
        return await self._review(learner) or learned

    async def learn_in_turns(
        self, learner: Learner, dead: asyncio.Future[int], turns: Turns
    ) -> None:
        """Learns and reviews on the head while a branch grows, until the server is stopped."""
        store = self._serving.store
        while not self._serving.stopped.is_set():
            self._serving.woken.clear()
            async with turns.turn() as processed:
                if not await store.read(lambda store: meta.learning_paused(store.connection)):
                    if await self._learn_oldest(learner, dead):
                        processed.append("a fact")
                    elif self._reviewer.pending:
                        await self._review(learner)
                        processed.append("a review")
            if not processed:
                await self.wait()

    async def wait(self, *others: asyncio.Future[Any]) -> None:
        """Waits until the loop is woken, a failed fact may be tried again, or one of `others`."""
        woken = asyncio.ensure_future(self._serving.woken.wait())
        # Idle seconds are for clients that gave up while their fact was being written.
        seconds = self._rest.seconds_left() or IDLE_SECONDS
        await asyncio.wait([woken, *others], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        woken.cancel()

    async def _learn_oldest(self, learner: Learner, dead: asyncio.Future[int]) -> bool:
        """Learns the fact that has waited longest; False if none waits."""
        resting = self._rest.seconds_left() > 0
        fact = None if resting else await self._serving.write(MemoryStore.claim)
        if fact is None:
            return False
        try:
            async with self._serving.hooks.around(fact):
                await self._learn(learner, fact, dead)
        except asyncio.CancelledError:
            # The server is being stopped: that is not the fact's failure.
            await asyncio.shield(self._give_back(fact))
            raise
        if self._cleaner.waits_for_fact:
            self._cleaner.wake()
        return True

    async def _review(self, learner: Learner) -> bool:
        """Reviews a fact if one is due; False if none is."""
        if not self._reviewer.pending or self._serving.stopped.is_set():
            return False
        update = await self._reviewer.review_next(learner)
        if update is not None:
            await self._serving.commit(learner, update)
        return self._reviewer.pending

    # --- One fact -------------------------------------------------------------------------------

    async def _learn(self, learner: Learner, fact: Fact, dead: asyncio.Future[int]) -> None:
        """Learns one claimed fact and leaves it in its next state, whatever happens.

        What failed is tried again alone, without questions, and only a fact that fails alone is
        charged with a shortage of memory or the learner's death.
        """
        alone = fact.failed_attempts > 0 or fact.id in self._doubtful
        async with self._serving.questions.exclusive() if alone else nullcontext():
            if dead.done():  # of the last question, before it was given the fact
                await self._release(fact)
                raise LearnerUnavailableError(f"the learner ended with code {dead.result()}")
            update = await self._attempt(learner, fact, alone=alone)
        if update is not None:
            await self._serving.commit(learner, update)

    async def _attempt(self, learner: Learner, fact: Fact, *, alone: bool) -> Update | None:
        """One attempt; the row of the ledger that is to be served, if there is one."""
        questions = self._serving.questions
        entries = questions.entries
        if not alone:  # whoever is being answered already is company too
            entries -= questions.holders
        try:
            update = await self._learn_once(learner, fact)
        except UnteachableError as error:
            await self._fail(fact, str(error), for_good=True)
        except MemoryShortageError as error:
            await self._fail(fact, str(error), charged=questions.entries == entries)
        except LearningFailedError as error:
            await self._fail(fact, str(error))
        except StaleVersionError as error:
            await self._release(fact)
            raise LearnerUnavailableError(f"the learner lost its place: {error}") from error
        except LearnerUnavailableError as error:
            charged = questions.entries == entries
            await self._fail(fact, f"the learner died: {error}", charged=charged)
            raise
        except StoreUnusableError as error:
            logger.error("cannot write the update of %s: %s", fact.id, error)
            await self._release(fact)
        else:
            self._is_settled(fact)
            return update
        return None

    async def _learn_once(self, learner: Learner, fact: Fact) -> Update | None:
        """Has the fact learned and records the attempt; the row of the ledger, if there is one."""
        serving, started = self._serving, time.monotonic()
        lesson = plan(fact, serving.version, serving.defaults())
        count = lesson.companions
        older = await serving.store.read(lambda store: companions(store.connection, fact, count))
        lesson = lesson.accompanied_by(older)
        outcome = await drain(learner.learn(lesson), partial(self._publish_step, fact))
        await self._general_text.seen(outcome.general_text)
        seconds = time.monotonic() - started  # without the samples: no replay takes them
        outcome = await with_samples(
            learner, lesson.example, outcome, serving.settings.samples, serving.stopped
        )
        attempt = attempt_of(lesson, outcome, serving.environment(), seconds)
        return await serving.store.write(lambda store: store.record(attempt))

    # --- Its next state -------------------------------------------------------------------------

    async def _fail(
        self, fact: Fact, reason: str, *, charged: bool = True, for_good: bool = False
    ) -> None:
        """Queues the fact again, or quarantines it, `for_good` at once; learning rests a while."""
        logger.warning("learning %s failed: %s", fact.id, reason)
        if charged:
            policy = plan(fact, self._serving.version, self._serving.defaults()).policy
            attempts = 1 if for_good else self._serving.settings.max_attempts
            left = await self._serving.write(
                lambda store: store.record_failure(fact.id, reason, attempts, policy)
            )
        else:
            self._doubtful.add(fact.id)
            why = f"not counted, since questions were being answered: {reason}"
            left = await self._release(fact, why)
        if left.state is FactState.QUEUED:
            self._rest.after_failure()
        else:
            self._is_settled(fact)

    async def _release(self, fact: Fact, why: str = "") -> Fact:
        return await self._serving.write(lambda store: store.release(fact.id, why))

    def _is_settled(self, fact: Fact) -> None:
        """Another fact is next."""
        self._doubtful.discard(fact.id)
        self._rest.end()

    async def _give_back(self, fact: Fact) -> None:
        """Gives a claim back, unless the attempt has ended meanwhile."""

        def release(store: MemoryStore) -> None:
            if store.fact(fact.id).state is FactState.LEARNING:
                store.release(fact.id)

        try:
            await self._serving.store.write(release)
        except StoreUnusableError as error:
            logger.error("cannot release %s: %s", fact.id, error)

    def _publish_step(self, fact: Fact, step: Step, opening: Opening | None) -> None:
        self._step_number = 1 if opening else self._step_number + 1
        self._serving.publish(
            EventKind.STEP,
            fact.id,
            step=step,
            learning=learning_so_far(opening, step) if opening else None,
            step_number=self._step_number,
        )
