"""Rehearsal on a schedule: asking held facts again, and teaching again what the weights have lost.

A review is one probe of the fact's own question and, if its answer has fallen, one update of its
own with that fact alone, by the policy it was taught with. The order of what is durable is that of
a taught fact: ledger row (database), then commit (learner). No claim is needed, because the fact
stays held: a review that was broken off is due still.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from agent.errors import LearnerUnavailableError, LearningFailedError, StaleVersionError
from agent.server.loop.serving import Serving
from agent.teaching.attempt import attempt_of
from agent.teaching.learner_protocol import Learner
from agent.teaching.plan import LessonPlan, plan
from agent.teaching.procedure import OnStep, drain, probe_retention, with_samples
from agent.teaching.rates import HELD_PROBABILITY
from agent.teaching.types import Opening
from memory_store import reviews
from memory_store.errors import WrongStateError
from memory_store.facts import companions
from memory_store.vocabulary import Fact, NewReview, ReviewOutcome, Step, Update, Verdict

logger = logging.getLogger(__name__)

# Finds the companions of a fact that is taught again: older facts, up to a number.
Companions = Callable[[int], Awaitable[Sequence[Fact]]]


@dataclass(kw_only=True, slots=True)
class Examination:
    """One review, while it is carried out.

    Attributes:
        learner: that is asked.
        fact: that is asked about.
        lesson: by which it is taught again; still without companions.
        environment: fingerprint of the learner.
        companions: see there.
        on_step: called with each step of an update.
        samples: sampled for each question after an update; 0 for none.
        stopped: set when the server is stopped: nothing is sampled any more.
        review: its result so far; `FAILED` until it is over.
    """

    learner: Learner
    fact: Fact
    lesson: LessonPlan
    environment: Mapping[str, str]
    companions: Companions
    on_step: OnStep = lambda step, opening: None
    samples: int = 0
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    review: NewReview = field(init=False)

    def __post_init__(self) -> None:
        self.review = NewReview(
            fact_id=self.fact.id,
            model_version=self.lesson.base_version,
            outcome=ReviewOutcome.FAILED,
            policy=self.lesson.policy,
        )

    async def carry_out(self) -> NewReview:
        """Asks, and teaches again what has fallen.

        Raises:
            LearnerUnavailableError: the learner died.
            LearningFailedError: it failed at this fact.
            StaleVersionError: it is at another version.
        """
        # Its own question alone: other rows of a batch can change the last bits of a number.
        alone = replace(self.fact, correlated_questions=())
        probe, _ = await probe_retention(self.learner, alone)
        self._found(probe=probe)
        if math.exp(probe.log_probability) >= HELD_PROBABILITY:
            self._found(outcome=ReviewOutcome.HELD)
        else:
            await self._teach_again()
        return self.review

    async def _teach_again(self) -> None:
        started = time.monotonic()
        lesson = self.lesson.accompanied_by(await self.companions(self.lesson.companions))
        outcome = await drain(self.learner.learn(lesson), self.on_step)
        if outcome.verdict is Verdict.LEARNED:
            seconds = time.monotonic() - started  # what a replay bounds: without the samples
            outcome = await with_samples(
                self.learner, lesson.example, outcome, self.samples, self.stopped
            )
            attempt = attempt_of(lesson, outcome, self.environment, seconds)
            self._found(outcome=ReviewOutcome.RETAUGHT, attempt=attempt)
        elif outcome.verdict is Verdict.KNOWN:
            self._found(outcome=ReviewOutcome.HELD)
        else:
            self._found(outcome=ReviewOutcome.RESISTED, reason=outcome.reason)

    def _found(self, **found: Any) -> None:
        self.review = replace(self.review, **found)


class Reviewer:
    """Reviews facts that are due, one at a time, as often as the learning loop has time for it.

    Attributes:
        pending: whether facts may be due: from a tick until none is found.
    """

    def __init__(
        self, serving: Serving, on_step: Callable[[Fact, Step, Opening | None], None]
    ) -> None:
        """Connects it with the learning loop.

        Args:
            serving: the served learner.
            on_step: called with each step of an update.
        """
        self._serving = serving
        self._on_step = on_step
        self.pending = False

    async def review_next(self, learner: Learner) -> Update | None:
        """Reviews the fact that has been due longest, and writes down the result.

        Args:
            learner: that serves the head.

        Returns:
            The row of the ledger, to be committed, if the fact was taught again.

        Raises:
            LearnerUnavailableError: the learner died; that counts as a failed review, so that a
                fact that kills learners does not do so at once again.
            StaleVersionError: the learner is at another version; nothing was written down.
        """
        self.pending = False  # before the look, so that a tick during it is not lost
        fact = await self._serving.store.read(reviews.next_due)
        if fact is None:
            return None
        self.pending = True
        await self._serving.write(partial(reviews.begin_review, fact_id=fact.id))
        examination = Examination(
            learner=learner,
            fact=fact,
            lesson=plan(fact, self._serving.version, self._serving.defaults(), fact.tried_policy),
            environment=self._serving.environment(),
            companions=partial(self._companions, fact),
            on_step=partial(self._on_step, fact),
            samples=self._serving.settings.samples,
            stopped=self._serving.stopped,
        )
        try:
            review = await examination.carry_out()
        except (StaleVersionError, asyncio.CancelledError):
            give_back = partial(reviews.give_back_review, fact_id=fact.id)
            await asyncio.shield(self._serving.write(give_back))
            raise
        except LearningFailedError as error:
            review = replace(examination.review, reason=str(error))
        except LearnerUnavailableError as error:
            await self._write(replace(examination.review, reason=f"the learner died: {error}"))
            raise
        return await self._write(review)

    async def _companions(self, fact: Fact, limit: int) -> Sequence[Fact]:
        return await self._serving.store.read(
            lambda store: companions(store.connection, fact, limit)
        )

    async def _write(self, review: NewReview) -> Update | None:
        if review.outcome is ReviewOutcome.RETAUGHT:
            logger.info("%s had fallen and was taught again", review.fact_id)
        elif review.outcome is not ReviewOutcome.HELD:
            logger.warning("review of %s: %s, %s", review.fact_id, review.outcome, review.reason)
        try:
            return await self._serving.write(partial(reviews.record_review, review=review))
        except WrongStateError as error:  # its text was erased during the review
            logger.info("a review has no result: %s", error)
            return None
