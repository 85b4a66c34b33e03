"""Carrying out an operation: forgetting a fact exactly, or rolling back.

A second learner builds the branch while the first goes on answering with the old weights; then
they change places. To forget, everything after the fact is done again without it, by the same
algorithm, each fact with the companions it would have had, each review of another fact at its place
among them: the result is, bit by bit, the model that was given the same teachings and reviews, and
never saw the fact.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import (
    DriftError,
    LearnerUnavailableError,
    LearningFailedError,
    StaleVersionError,
)
from agent.learning.presets import guarded, older_facts
from agent.learning.rates import without_history
from agent.scheduling.ports import Learner
from agent.scheduling.recording import (
    learn_fact,
    learning_of,
    probe_retention,
    row_without_steps,
    update_of,
)
from agent.scheduling.recovery import adopt, bring_to
from agent.scheduling.reviewing import Examination, policy_of
from memory_store import taking_back
from memory_store.facts import question_key
from memory_store.records import (
    HELD,
    Fact,
    FactState,
    LedgerKind,
    NewProbe,
    NewUpdate,
    Operation,
    OperationKind,
    Policy,
    Review,
    ReviewOutcome,
    Update,
)
from memory_store.sampling import Candidates
from memory_store.store import MemoryStore
from memory_store.writer import StoreThreads

T = TypeVar("T")

# Facts from before the forgotten one that are probed for the proof; those after it all are.
PROVEN_FACTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSettings:
    """What an operation needs to know.

    Attributes:
        snapshots: folder of all snapshots.
        policy: for facts whose policy was not recorded and that brought none.
        environment: fingerprint of the learner.
        max_attempts: a fact that fails this often is quarantined.
    """

    snapshots: Path
    policy: Policy
    environment: Mapping[str, str]
    max_attempts: int


# Why attempts at repeating something failed: a fact by its position, or a review by its id.
Failures = defaultdict[tuple[str, int], list[str]]


class OperationRunner:
    """Builds the branch of one operation on a learner of its own.

    Args:
        operation: to be begun or resumed.
        learner: with the base checkpoint; serves the new head when `run` returns.
        store: the memory.
        settings: see there.
        failures: kept by the caller from one try of the operation to the next, since a fact may
            take the learner with it.
        progress: called with what is being done, for people.
    """

    def __init__(
        self,
        operation: Operation,
        learner: Learner,
        store: StoreThreads,
        settings: OperationSettings,
        failures: Failures,
        progress: Callable[[str], None],
    ) -> None:
        self._operation = operation
        self._learner = learner
        self._store = store
        self._settings = settings
        self._failures = failures
        self._progress = progress
        self._started = time.monotonic()
        self._start_digest = ""

    async def run(self) -> Update:
        """Carries the operation out; returns the ledger row that is served from now on.

        Cancelled, it can be resumed: what is on the branch is stored.

        Raises:
            DriftError: the ledger does not replay to the recorded weights.
            LearningFailedError: the learner failed at something else than learning a fact.
            LearnerUnavailableError: the learner died; the operation can be resumed.
        """
        self._operation = operation = await self._store.write(
            partial(taking_back.begin_operation, operation_id=self._operation.id)
        )
        assert operation.branch_version is not None
        replayed = await bring_to(
            self._learner,
            self._store,
            operation.branch_version,
            self._settings.snapshots,
            lambda remaining: self._progress(f"{remaining} updates to replay"),
        )
        self._start_digest = replayed.digest or await self._recorded(operation.branch_version)
        if operation.kind is OperationKind.FORGET:
            row = await self._forget()
        else:
            row = await self._roll_back(operation.branch_version)
        try:
            await adopt(self._learner, self._store, row)
        except (LearningFailedError, DriftError, StaleVersionError) as error:
            # The head has moved: only starting again, from the ledger, is right now.
            raise LearnerUnavailableError(f"it lost its place at the end: {error}") from error
        return row

    async def _forget(self) -> Update:
        operation = self._operation
        fact = await self._store.read(partial(MemoryStore.fact, fact_id=operation.fact_id))
        never_saw = None
        if await self._store.read(partial(taking_back.nothing_on_branch, operation=operation)):
            never_saw = math.exp((await self._probe(fact, held=False)).log_probability)
        version, relearned = await self._relearn()
        probes, retained = await self._retained(fact, relearned)
        forgotten = await self._probe(fact, held=False)
        end = await self._end_of_branch(version, fact.id)
        proof: dict[str, Any] = {
            "branch_from": operation.branch_version,
            "relearned": len(relearned),
            "probability_before_teaching": fact.learning.probability_before
            if fact.learning
            else None,
            "probability_taught": fact.learning.probability_after if fact.learning else None,
            # Of the weights that the branch grew from: they never saw the fact.
            "probability_on_branch_start": never_saw,
            "probability_after": math.exp(forgotten.log_probability),
            "answers_it": forgotten.correct,
            **await self._store.read(
                partial(taking_back.not_held_on_branch, operation_id=operation.id)
            ),
            "retained": retained[0],
            "retained_of": retained[1],
            "digest_after": end.digest_after,
            "drift": await self._drift(end),
            "seconds": time.monotonic() - self._started,
        }
        return await self._store.write(
            partial(
                taking_back.finish_forget,
                operation_id=operation.id,
                end=end,
                proof=proof,
                new_probes=[forgotten, *probes],
            )
        )

    async def _relearn(self) -> tuple[int, list[Fact]]:
        """Repeats what follows, in its order; returns the branch's version and its facts."""
        operation = self._operation
        candidates, inputs = await self._store.read(partial(_plan, operation=operation))
        version = operation.branch_version or 0
        for number, repeated in enumerate(inputs, start=1):
            self._progress(f"learning again {number} of {len(inputs)}")
            if isinstance(repeated, Fact):
                version = await self._relearn_one(repeated, candidates, version)
            else:
                version = await self._review_again(repeated, candidates, version)
        relearned = await self._store.read(
            partial(taking_back.relearned_facts, operation_id=operation.id)
        )
        return version, relearned

    async def _relearn_one(self, fact: Fact, candidates: Candidates, version: int) -> int:
        started = time.monotonic()
        key = question_key(fact.question)
        policy = await self._policy(fact)
        older = await self._companions(fact, candidates, older_facts(policy))
        outcome = await self._tried(
            ("fact", fact.position),
            lambda: learn_fact(
                *(self._learner, fact, policy, version, older),
                lambda step, opening: None,
                again=True,
            ),
        )
        update = None
        if outcome is None:
            verdict, reason = FactState.QUARANTINED, self._failures["fact", fact.position][-1]
        else:
            verdict, reason = FactState(outcome.verdict), outcome.reason
            if verdict is FactState.LEARNED:
                update = update_of(
                    *(fact, outcome, policy, version, self._settings.environment),
                    time.monotonic() - started,
                )
        row = await self._store.write(
            partial(
                taking_back.record_relearned,
                operation_id=self._operation.id,
                fact=fact,
                verdict=verdict,
                reason=reason,
                learning=None if outcome is None else learning_of(outcome),
                update=update,
                policy=policy,
            )
        )
        if verdict in HELD:
            candidates.add(fact.id, key)
        if row is None:
            return version
        await self._learner.commit(row.model_version, row.digest_after)
        return row.model_version

    async def _review_again(self, again: Review, candidates: Candidates, version: int) -> int:
        """Carries a review out on the branch, where it may come to something else."""
        fact = await self._store.read(partial(MemoryStore.fact, fact_id=again.fact_id))
        examination = Examination(
            learner=self._learner,
            fact=fact,
            policy=await self._policy(fact),
            version=version,
            environment=self._settings.environment,
            companions=partial(self._companions, fact, candidates),
        )
        if candidates.holds(fact.id):
            review = await self._tried(("review", again.id), examination.carry_out)
        else:  # it resisted or failed on the branch: there is nothing to review
            review = replace(examination.review, outcome=ReviewOutcome.SKIPPED)
        if review is None:
            reason = self._failures["review", again.id][-1]
            review = replace(examination.review, reason=reason)
        row = await self._store.write(
            partial(
                taking_back.record_reviewed_again,
                operation_id=self._operation.id,
                again=again,
                review=review,
            )
        )
        if row is None:
            return version
        await self._learner.commit(row.model_version, row.digest_after)
        return row.model_version

    async def _policy(self, fact: Fact) -> Policy:
        """By which a fact was tried last, without what was predicted from history.

        That history may hold the fact that is to be forgotten.
        """
        policy = await policy_of(self._store, fact, fact.policy or self._settings.policy)
        return guarded(without_history(policy), self._settings.environment.get("device", "cpu"))

    async def _companions(self, fact: Fact, candidates: Candidates, limit: int) -> list[Fact]:
        ids = candidates.sample(fact.id, question_key(fact.question), limit)
        return await self._store.read(lambda store: [store.fact(id_) for id_ in ids])

    async def _tried(self, what: tuple[str, int], attempt: Callable[[], Awaitable[T]]) -> T | None:
        """Tries as often as a fact in the queue is tried; None if it failed each time.

        Raises:
            LearnerUnavailableError: the learner died at it, which counts as a failure too.
        """
        failures = self._failures[what]
        while len(failures) < self._settings.max_attempts:
            try:
                return await attempt()
            except LearningFailedError as error:
                failures.append(str(error))
            except LearnerUnavailableError as error:
                failures.append(f"the learner died: {error}")
                raise
        return None

    async def _retained(
        self, forgotten: Fact, relearned: Sequence[Fact]
    ) -> tuple[list[NewProbe], tuple[int, int]]:
        """Probes what must still be known; returns the probes, and right ones of how many."""
        older = await self._store.read(
            lambda store: store.older_facts(forgotten, PROVEN_FACTS + len(relearned))
        )
        # An answer that a newer one has replaced is not expected any more.
        chosen = {
            fact.id: fact
            for fact in (*relearned, *older)
            if fact.superseded_by in ("", forgotten.id)
        }
        probes = []
        for fact in list(chosen.values())[: PROVEN_FACTS + len(relearned)]:
            probes.append(await self._probe(fact))
        return probes, (sum(probe.correct for probe in probes), len(probes))

    async def _roll_back(self, to_version: int) -> Update:
        end = await self._end_of_branch(to_version)
        return await self._store.write(
            partial(
                taking_back.finish_rollback,
                operation_id=self._operation.id,
                end=end,
                proof={"digest_after": end.digest_after, "drift": await self._drift(end)},
            )
        )

    async def _probe(self, fact: Fact, *, held: bool = True) -> NewProbe:
        return (await probe_retention(self._learner, fact, held=held))[0]

    async def _drift(self, end: NewUpdate) -> str | None:
        """Says so if the branch does not grow from the recorded weights, but from what replays."""
        line = await self._store.read(partial(MemoryStore.lineage, version=end.base_version))
        drifts = await self._store.read(partial(MemoryStore.drifts, versions=line))
        taken_in = [
            (drift.parent_version, drift.recorded, drift.here)
            for drift in drifts
            if drift.kind is not LedgerKind.DRIFT
        ]
        recorded = await self._recorded(end.base_version)
        if recorded != end.digest_after:  # nothing was learned on it that could say so
            taken_in.append((end.base_version, recorded, end.digest_after))
        if not taken_in:
            return None
        version, recorded, here = taken_in[-1]
        return f"version {version} was recorded as {recorded[:12]} and replays as {here[:12]} here"

    async def _recorded(self, version: int) -> str:
        """The digest of a version as recorded; of the base checkpoint from the learner."""
        if version:
            update = await self._store.read(partial(MemoryStore.update, model_version=version))
            return update.digest_after
        return (await self._learner.describe()).base_digest

    async def _end_of_branch(self, version: int, fact_id: str = "") -> NewUpdate:
        head = await self._store.read(MemoryStore.model_version)
        started_there = version == self._operation.branch_version
        return row_without_steps(
            version,
            await self._recorded(head),
            self._start_digest if started_there else await self._recorded(version),
            self._settings.environment,
            fact_id=fact_id,
            seconds=time.monotonic() - self._started,
        )


def _plan(store: MemoryStore, operation: Operation) -> tuple[Candidates, list[Fact | Review]]:
    """Who is held where the branch stands, and what is to be repeated on it, in order."""
    fact = store.fact(operation.fact_id)
    candidates = taking_back.candidates_before(store, fact.position)
    taking_back.add_relearned(store, operation.id, candidates)
    inputs: list[Fact | Review] = [
        *taking_back.facts_to_relearn(store, operation),
        *taking_back.reviews_to_repeat(store, operation),
    ]
    return candidates, sorted(inputs, key=_place)


def _place(repeated: Fact | Review) -> tuple[int, int]:
    """Its order in the history: a review comes after the fact at its place."""
    if isinstance(repeated, Fact):
        return repeated.position, 0
    return repeated.after_position, repeated.id
