"""Repeating on a branch what followed a forgotten fact, by the algorithm that learned it first.

Each fact is learned with the companions that it would have had, and each review of another fact is
carried out at its place among them. So the result is, bit by bit, the model that was given the same
teachings and reviews, and never saw the fact.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from agent.errors import LearnerUnavailableError, LearningFailedError, MemoryShortageError
from agent.server.loop.line_reader import read_line
from agent.server.loop.reviewer import Examination
from agent.server.loop.serving import Serving
from agent.server.loop.undo.turns import Turns
from agent.teaching.attempt import attempt_of
from agent.teaching.learner_protocol import Learner
from agent.teaching.plan import LessonPlan, plan
from agent.teaching.procedure import drain
from memory_store import branch_growth, branches, operations
from memory_store.attempts import begin_attempt, discount_attempt
from memory_store.companion_sampling import HeldFacts
from memory_store.facts import question_key
from memory_store.lines import Line
from memory_store.store import CRASHED, MemoryStore
from memory_store.vocabulary import (
    Attempt,
    Fact,
    Operation,
    Policy,
    Review,
    ReviewOutcome,
    Update,
    Verdict,
)

T = TypeVar("T")

# Facts and reviews that are read at once, to be repeated.
INPUTS_AT_ONCE = 50
# Why attempts at repeating something failed: a fact by its position, or a review by its id.
Failures = defaultdict[tuple[str, int], list[str]]


@dataclass(kw_only=True, slots=True)
class BranchBuilder:
    """Adds facts and reviews to the branch of an operation.

    Attributes:
        serving: what is served meanwhile.
        operation: that has begun.
        learner: at the end of the branch.
        failures: kept by the caller from one try of the operation to the next, since a fact may
            take the learner with it.
        turns: of the learning that goes on meanwhile.
        held_facts: who is held at the end of the branch.
        version: the end of the branch.
        line: that is served, as far as it was read.
        last_review: the last that was looked at.
    """

    serving: Serving
    operation: Operation
    learner: Learner
    failures: Failures
    turns: Turns
    held_facts: HeldFacts
    version: int
    line: Line | None = None
    last_review: int = 0

    async def build(self) -> None:
        """Repeats, in its order, what follows and is not on the branch yet, until nothing is.

        Raises:
            LearnerUnavailableError: the learner died; what is on the branch is stored.
        """
        while True:
            operation = await self._counted()
            head = await self.serving.store.read(MemoryStore.model_version)
            self.line = await read_line(self.serving.store, head, self.line)
            inputs = await self.serving.store.read(
                partial(
                    branches.next_inputs,
                    operation=operation,
                    line=self.line,
                    after_review=self.last_review,
                    limit=INPUTS_AT_ONCE,
                )
            )
            for number, repeated in enumerate(inputs.next, start=operation.done + 1):
                what = f"learning again {number} of {max(number, operation.total)}"
                self.serving.report(operation, what)
                if isinstance(repeated, Fact):
                    await self._learn_again(repeated)
                else:
                    await self._review_again(repeated)
                self.turns.repeated()
                await self.turns.announce()
            self.last_review = inputs.last_review
            if inputs.complete and not inputs.next:
                return

    async def _counted(self) -> Operation:
        """The operation as it is now, with the number of facts that are to be repeated."""
        operation = await self.serving.store.read(
            partial(operations.get, operation_id=self.operation.id)
        )
        left = await self.serving.store.read(partial(branches.count_to_repeat, operation=operation))
        return await self.serving.store.write(
            partial(operations.update, operation_id=operation.id, total=operation.done + left)
        )

    async def _learn_again(self, fact: Fact) -> None:
        if (await self.serving.store.read(partial(MemoryStore.fact, fact_id=fact.id))).erased:
            return  # since it was read
        started = time.monotonic()
        lesson = self._plan(fact, fact.tried_policy)
        lesson = lesson.accompanied_by(await self._companions(fact, lesson.companions))
        outcome = await self._tried(
            ("fact", fact.position),
            lambda: drain(self.learner.learn(lesson), lambda step, opening: None),
        )
        if outcome is None:
            attempt = Attempt(
                fact_id=fact.id,
                verdict=Verdict.FAILED,
                reason=self.failures["fact", fact.position][-1],
                policy=lesson.policy,
            )
        else:
            seconds = time.monotonic() - started
            attempt = attempt_of(lesson, outcome, self.serving.environment(), seconds)
        row = await self.serving.store.write(
            partial(branch_growth.record_relearned, operation_id=self.operation.id, attempt=attempt)
        )
        if attempt.verdict in (Verdict.LEARNED, Verdict.KNOWN):
            self.held_facts.add(fact.id, question_key(fact.question))
        await self._commit(row)

    async def _review_again(self, again: Review) -> None:
        """Carries a review out on the branch, where its outcome may differ."""
        fact = await self.serving.store.read(partial(MemoryStore.fact, fact_id=again.fact_id))
        examination = Examination(
            learner=self.learner,
            fact=fact,
            lesson=self._plan(fact, again.policy),
            environment=self.serving.environment(),
            companions=partial(self._companions, fact),
        )
        if self.held_facts.holds(fact.id) and not fact.erased:
            review = await self._tried(("review", again.id), examination.carry_out)
        else:  # it resisted or failed on the branch, or was erased: there is nothing to review
            review = replace(examination.review, outcome=ReviewOutcome.SKIPPED)
        if review is None:
            reason = self.failures["review", again.id][-1]
            review = replace(examination.review, reason=reason)
        row = await self.serving.store.write(
            partial(
                branch_growth.record_reviewed_again,
                operation_id=self.operation.id,
                again=again,
                review=review,
            )
        )
        await self._commit(row)

    async def _commit(self, row: Update | None) -> None:
        if row is not None:
            await self.learner.commit(row.model_version, row.digest_after)
            self.version = row.model_version

    def _plan(self, fact: Fact, recorded: Policy | None) -> LessonPlan:
        return plan(fact, self.version, self.serving.defaults(), recorded, again=True)

    async def _companions(self, fact: Fact, limit: int) -> list[Fact]:
        ids = self.held_facts.sample(fact.id, question_key(fact.question), limit)
        older = await self.serving.store.read(lambda store: [store.fact(id_) for id_ in ids])
        # Erased while the branch grows: what is learned from here is learned once more without it.
        return [fact for fact in older if not fact.erased]

    async def _tried(self, what: tuple[str, int], attempt: Callable[[], Awaitable[T]]) -> T | None:
        """Tries as often as a fact in the queue is tried; None if it failed each time.

        Raises:
            LearnerUnavailableError: the learner died, which counts as a failure too.
        """
        failures = self.failures[what]
        begin = partial(begin_attempt, operation_id=self.operation.id, what=what)
        while True:
            begun = await self.serving.store.write(begin)
            failures += [CRASHED] * (begun - 1 - len(failures))
            if len(failures) >= self.serving.settings.max_attempts:
                return None
            try:
                return await attempt()
            except MemoryShortageError as error:
                # Two learners at once may be too much: tried again while the head waits.
                if await self.turns.wait_for_head():
                    await self.serving.store.write(discount_attempt)
                    continue
                failures.append(str(error))
            except LearningFailedError as error:
                failures.append(str(error))
            except LearnerUnavailableError as error:
                failures.append(f"the learner died: {error}")
                raise
            except BaseException:  # the server is stopped, or something else is to blame
                await asyncio.shield(self.serving.store.write(discount_attempt))
                raise
