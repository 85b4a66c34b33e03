"""Carrying out an operation: forgetting a fact exactly, or rolling back.

A second learner builds the branch while the first goes on answering with the old weights; then
they change places. To forget, everything after the fact is done again without it, by the same
algorithm, each fact with the companions it would have had, each review of another fact at its place
among them: the result is, bit by bit, the model that was given the same teachings and reviews, and
never saw the fact.
"""

from __future__ import annotations

import asyncio
import logging
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
    MemoryShortageError,
    StaleVersionError,
    UnreachableError,
)
from agent.server.loop.line_reader import read_line
from agent.server.loop.recovery import Replayed, adopt, bring_to
from agent.server.loop.reviewer import Examination
from agent.server.loop.turns import Turns
from agent.teaching.attempt import attempt_of, row_without_steps
from agent.teaching.learner_protocol import Learner
from agent.teaching.plan import Defaults, LessonPlan, plan
from agent.teaching.procedure import drain, probe_retention
from memory_store import branches, ledger, rollback_states, undo
from memory_store.attempts import begin_attempt, discount_attempt
from memory_store.branches import ROWS_AT_ONCE, Beginning, Search, count_to_repeat
from memory_store.companion_sampling import Candidates
from memory_store.facts import question_key
from memory_store.lines import Line
from memory_store.sought import Sought
from memory_store.store import CRASHED, MemoryStore
from memory_store.vocabulary import (
    Attempt,
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
    Verdict,
)
from memory_store.writer import StoreThreads

T = TypeVar("T")

logger = logging.getLogger(__name__)

# Facts that are probed for the proof: from before the forgotten one, and of those after it.
PROVEN_FACTS, PROVEN_RELEARNED = 64, 256
# Facts and reviews that are read at once, to be repeated.
INPUTS_AT_ONCE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSettings:
    """What an operation needs to know.

    Attributes:
        snapshots: folder of all snapshots.
        defaults: of the operator, for lessons.
        environment: fingerprint of the learner.
        max_attempts: a fact that fails this often is quarantined.
        algorithm: that the learner replays; empty: not known.
        latest_base: the branch begins from no later version than this; None: from the last one
            without the fact. Everything that follows is learned again.
    """

    snapshots: Path
    defaults: Defaults
    environment: Mapping[str, str]
    max_attempts: int
    algorithm: str = ""
    latest_base: int | None = None


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
        turns: of the learning that goes on meanwhile; None if there is none.
        text: of the fact that is forgotten, if it was erased and is still known, so that it can be
            measured; nothing is measured of an erased fact otherwise.
    """

    def __init__(
        self,
        operation: Operation,
        learner: Learner,
        store: StoreThreads,
        settings: OperationSettings,
        failures: Failures,
        progress: Callable[[str], None],
        turns: Turns | None = None,
        text: Sought | None = None,
    ) -> None:
        self._operation = operation
        self._learner = learner
        self._store = store
        self._settings = settings
        self._failures = failures
        self._progress = progress
        self._turns = turns or Turns()
        self._text = text
        self._started = time.monotonic()
        self._replayed_to, self._start_digest = 0, ""
        self._version = 0  # of the end of the branch
        self._line: Line | None = None  # that is served
        self._last_review = 0  # the last that was looked at

    async def run(self) -> Update:
        """Carries the operation out; returns the ledger row that is served from now on.

        Cancelled, it can be resumed: what is on the branch is stored. When it returns, the learning
        that goes on meanwhile is stopped (see `Turns.stop`), since another learner serves from now
        on.

        Raises:
            DriftError: the ledger does not replay to the recorded weights.
            LearningFailedError: the learner failed at something else than learning a fact.
            LearnerUnavailableError: the learner died; the operation can be resumed.
            OperationEndedError: somebody cancelled it.
        """
        self._operation, replayed = await self._reach_branch()
        operation = self._operation
        assert operation.branch_version is not None
        self._replayed_to = operation.branch_version
        self._start_digest = replayed.digest or await self._recorded(operation.branch_version)
        if operation.kind is OperationKind.FORGET:
            row = await self._forget()
        else:
            row = await self._roll_back()
        try:
            await adopt(self._learner, self._store, row)
        except (LearningFailedError, DriftError, StaleVersionError) as error:
            # The head has moved: only starting again, from the ledger, is right now.
            raise LearnerUnavailableError(f"it lost its place at the end: {error}") from error
        return row

    async def _reach_branch(self) -> tuple[Operation, Replayed]:
        """Begins the operation or resumes it, with the learner at the end of the branch.

        What cannot be reached, mostly since another release made it, is begun anew from the nearest
        version that can be. More is learned again then.

        Raises:
            LearnerUnavailableError: that takes a fresh learner.
        """
        latest, because = self._settings.latest_base, ""
        while True:
            operation = await self._begin(latest, because)
            assert operation.branch_version is not None
            try:
                replayed = await bring_to(
                    self._learner,
                    self._store,
                    operation.branch_version,
                    self._settings.snapshots,
                    lambda remaining: self._progress(f"{remaining} updates to replay"),
                    algorithm=self._settings.algorithm,
                )
            except UnreachableError as error:
                at_base = operation.branch_version == operation.base_version
                if at_base and error.nearest >= operation.branch_version:
                    raise
                logger.warning("operation %d begins anew: %s", operation.id, error)
                latest, because = (error.nearest, str(error)) if at_base else (None, "")
                await self._store.write(partial(undo.begin_anew, operation_id=operation.id))
                if error.at:
                    operation = await self._begin(latest, because)
                    if operation.branch_version == error.at:  # the learner is there already
                        return operation, Replayed(updates=0, digest=error.digest)
                    raise LearnerUnavailableError(f"another one is needed: {error}") from error
            else:
                return operation, replayed

    async def _begin(self, latest: int | None, because: str) -> Operation:
        """Finds where the branch begins, unless that is known from before.

        Args:
            latest: no later than from this version; None: as late as possible.
            because: why not later, for people.
        """
        operation = await self._store.read(
            partial(undo.operation_of, operation_id=self._operation.id)
        )
        if operation.branch_version is not None:
            return operation
        while await self._store.write(undo.remove_dropped):
            pass
        beginning = Beginning(operation.to_version if latest is None else latest, 0)
        if operation.kind is OperationKind.FORGET:
            self._progress("looking for the last version without the fact")
            beginning = await self._find_beginning(operation, latest)
        return await self._store.write(
            partial(
                undo.begin_operation,
                operation_id=operation.id,
                beginning=beginning,
                because=because,
            )
        )

    async def _find_beginning(self, operation: Operation, latest: int | None) -> Beginning:
        search = Search(operation.position, latest)
        head = await self._store.read(MemoryStore.model_version)
        self._line = await read_line(self._store, head)
        for first, last in self._line.parts(ROWS_AT_ONCE):
            found = await self._store.read(partial(search.look, first=first, last=last))
            if found is not None:
                return found
        return search.end()

    async def _forget(self) -> Update:
        fact = await self._store.read(partial(MemoryStore.fact, fact_id=self._operation.fact_id))
        if fact.erased and self._text is not None:
            told = self._text
            fact = replace(fact, question=told.question, answer=told.answer)
        at_base = self._operation.branch_version == self._operation.base_version
        if at_base and not fact.erased:
            never_saw = math.exp((await self._probe(fact, held=False)).log_probability)
            self._operation = replace(self._operation, never_saw=never_saw)
            await self._store.write(
                partial(
                    undo.note_never_saw,
                    operation_id=self._operation.id,
                    probability=never_saw,
                )
            )
        candidates, older_ids = await self._read_candidates(fact)
        self._version = self._operation.branch_version or 0
        await self._repeat(candidates)
        # What is left is what was learned on the head since the last look: nothing more from here.
        await self._turns.stop()
        await self._repeat(candidates)
        return await self._finish(fact, older_ids)

    async def _finish(self, fact: Fact, older_ids: Sequence[str]) -> Update:
        operation = self._operation
        self._progress("measuring what is held")
        probes, retained = await self._retained(fact, older_ids)
        forgotten = None if fact.erased else await self._probe(fact, held=False)
        end = await self._end_of_branch(self._version, fact.id)
        proof: dict[str, Any] = {
            "branch_from": operation.base_version,
            # Why not from the last version without the fact; empty if it is that one.
            "branch_from_because": operation.message,
            "relearned": await self._store.read(
                partial(branches.count_held, operation_id=operation.id)
            ),
            "probability_before_teaching": fact.learning.probability_before
            if fact.learning
            else None,
            "probability_taught": fact.learning.probability_after if fact.learning else None,
            # Of the weights that the branch grew from: they never saw the fact.
            "probability_on_branch_start": operation.never_saw,
            "probability_after": math.exp(forgotten.log_probability) if forgotten else None,
            "answers_it": forgotten.correct if forgotten else None,
            **await self._store.read(partial(undo.not_held_on_branch, operation_id=operation.id)),
            "retained": retained[0],
            "retained_of": retained[1],
            "digest_after": end.digest_after,
            "drift": await self._drift(end),
            "seconds": time.monotonic() - self._started,
        }
        line = await read_line(self._store, self._version)
        async with self._store.switching():
            return await self._store.write(
                partial(
                    undo.finish_forget,
                    operation_id=operation.id,
                    end=end,
                    proof=proof,
                    new_probes=[*([forgotten] if forgotten else []), *probes],
                    last_review=self._last_review,
                    text=None if fact.erased else fact,
                    line=line,
                )
            )

    async def _read_candidates(self, fact: Fact) -> tuple[Candidates, list[str]]:
        """Who is held where the branch stands, and ids of older facts for the proof."""
        self._progress("reading which facts are held")
        before = self._operation.first_position
        candidates, after = Candidates(), 0
        while part := await self._store.read(
            partial(branches.candidates_part, after=after, before=before)
        ):
            branches.add_candidates(candidates, part)
            after = part[-1][0]
        older_ids = candidates.sample(fact.id, question_key(fact.question), PROVEN_FACTS)
        after = 0
        while part := await self._store.read(
            partial(branches.relearned_part, operation_id=self._operation.id, after=after)
        ):
            branches.add_candidates(candidates, part)
            after = part[-1][0]
        return candidates, older_ids

    async def _repeat(self, candidates: Candidates) -> None:
        """Repeats in its order whatever follows and is not on the branch yet, until nothing is."""
        while True:
            self._operation = await self._counted()
            head = await self._store.read(MemoryStore.model_version)
            self._line = await read_line(self._store, head, self._line)
            inputs = await self._store.read(
                partial(
                    branches.next_inputs,
                    operation=self._operation,
                    line=self._line,
                    after_review=self._last_review,
                    limit=INPUTS_AT_ONCE,
                )
            )
            for number, repeated in enumerate(inputs.next, start=self._operation.done + 1):
                total = max(number, self._operation.total)
                self._progress(f"learning again {number} of {total}")
                if isinstance(repeated, Fact):
                    await self._relearn_one(repeated, candidates)
                else:
                    await self._review_again(repeated, candidates)
                self._turns.repeated()
                await self._turns.announce()
            self._last_review = inputs.last_review
            if inputs.complete and not inputs.next:
                return

    async def _counted(self) -> Operation:
        """The operation as it is now, with how many facts are to be repeated."""
        find = partial(undo.operation_of, operation_id=self._operation.id)
        to_repeat = await self._store.read(lambda store: count_to_repeat(store, find(store)))
        return await self._store.write(
            partial(undo.note_total, operation_id=self._operation.id, to_repeat=to_repeat)
        )

    async def _relearn_one(self, fact: Fact, candidates: Candidates) -> None:
        if (await self._store.read(partial(MemoryStore.fact, fact_id=fact.id))).erased:
            return  # since it was read
        started = time.monotonic()
        lesson = self._plan(fact, fact.tried_policy)
        older = await self._companions(fact, candidates, lesson.companions)
        lesson = lesson.accompanied_by(older)
        outcome = await self._tried(
            ("fact", fact.position),
            lambda: drain(self._learner.learn(lesson), lambda step, opening: None),
        )
        if outcome is None:
            attempt = Attempt(
                fact_id=fact.id,
                verdict=Verdict.FAILED,
                reason=self._failures["fact", fact.position][-1],
                policy=lesson.policy,
            )
        else:
            seconds = time.monotonic() - started
            attempt = attempt_of(lesson, outcome, self._settings.environment, seconds)
        operation_id = self._operation.id
        row = await self._store.write(
            partial(undo.record_relearned, operation_id=operation_id, attempt=attempt)
        )
        if attempt.verdict in (Verdict.LEARNED, Verdict.KNOWN):
            candidates.add(fact.id, question_key(fact.question))
        await self._commit(row)

    async def _review_again(self, again: Review, candidates: Candidates) -> None:
        """Carries a review out on the branch, where it may come to something else."""
        fact = await self._store.read(partial(MemoryStore.fact, fact_id=again.fact_id))
        examination = Examination(
            learner=self._learner,
            fact=fact,
            lesson=self._plan(fact, again.policy),
            environment=self._settings.environment,
            companions=partial(self._companions, fact, candidates),
        )
        if candidates.holds(fact.id) and not fact.erased:
            review = await self._tried(("review", again.id), examination.carry_out)
        else:  # it resisted or failed on the branch, or was erased: there is nothing to review
            review = replace(examination.review, outcome=ReviewOutcome.SKIPPED)
        if review is None:
            reason = self._failures["review", again.id][-1]
            review = replace(examination.review, reason=reason)
        row = await self._store.write(
            partial(
                undo.record_reviewed_again,
                operation_id=self._operation.id,
                again=again,
                review=review,
            )
        )
        await self._commit(row)

    async def _commit(self, row: Update | None) -> None:
        if row is not None:
            await self._learner.commit(row.model_version, row.digest_after)
            self._version = row.model_version

    def _plan(self, fact: Fact, recorded: Policy | None) -> LessonPlan:
        return plan(fact, self._version, self._settings.defaults, recorded, again=True)

    async def _companions(self, fact: Fact, candidates: Candidates, limit: int) -> list[Fact]:
        ids = candidates.sample(fact.id, question_key(fact.question), limit)
        older = await self._store.read(lambda store: [store.fact(id_) for id_ in ids])
        # Erased while the branch grows: what is learned from here is learned once more without it.
        return [fact for fact in older if not fact.erased]

    async def _tried(self, what: tuple[str, int], attempt: Callable[[], Awaitable[T]]) -> T | None:
        """Tries as often as a fact in the queue is tried; None if it failed each time.

        Raises:
            LearnerUnavailableError: the learner died at it, which counts as a failure too.
        """
        failures = self._failures[what]
        begin = partial(begin_attempt, operation_id=self._operation.id, what=what)
        while True:
            begun = await self._store.write(begin)
            failures += [CRASHED] * (begun - 1 - len(failures))
            if len(failures) >= self._settings.max_attempts:
                return None
            try:
                return await attempt()
            except MemoryShortageError as error:
                # Two learners at once may be too much: tried again while the head waits.
                if await self._turns.wait_for_head():
                    await self._store.write(discount_attempt)
                    continue
                failures.append(str(error))
            except LearningFailedError as error:
                failures.append(str(error))
            except LearnerUnavailableError as error:
                failures.append(f"the learner died: {error}")
                raise
            except BaseException:  # the server is stopped, or something else is to blame
                await asyncio.shield(self._store.write(discount_attempt))
                raise

    async def _retained(
        self, forgotten: Fact, older_ids: Sequence[str]
    ) -> tuple[list[NewProbe], tuple[int, int]]:
        """Probes what must still be known; returns the probes, and right ones of how many."""
        relearned = await self._store.read(
            partial(
                branches.held_on_branch, operation_id=self._operation.id, limit=PROVEN_RELEARNED
            )
        )
        older = await self._store.read(lambda store: [store.fact(id_) for id_ in older_ids])
        # An answer that a newer one has replaced is not expected any more.
        chosen = [
            fact
            for fact in (*relearned, *older)
            if fact.superseded_by in ("", forgotten.id)
            and fact.state is not FactState.FORGOTTEN
            and not fact.erased
        ]
        probes = [await self._probe(fact) for fact in chosen]
        return probes, (sum(probe.correct for probe in probes), len(probes))

    async def _roll_back(self) -> Update:
        operation = self._operation
        reached = operation.branch_version or 0
        end = await self._end_of_branch(reached)
        proof: dict[str, Any] = {"digest_after": end.digest_after, "drift": await self._drift(end)}
        line, wanted, written = await read_line(self._store, reached), None, 0
        if reached != operation.to_version:
            proof |= {"served": reached, "served_because": operation.message}
            wanted = await read_line(self._store, operation.to_version)
        self._progress("looking up what each fact was then")
        write_down = partial(
            rollback_states.write_down, operation=operation, line=line, wanted=wanted
        )
        while written := await self._store.write(partial(write_down, after=written)):
            pass
        async with self._store.switching():
            return await self._store.write(
                partial(
                    undo.finish_rollback,
                    operation_id=operation.id,
                    end=end,
                    proof=proof,
                    line=line,
                )
            )

    async def _probe(self, fact: Fact, *, held: bool = True) -> NewProbe:
        return (await probe_retention(self._learner, fact, held=held))[0]

    async def _drift(self, end: NewUpdate) -> str | None:
        """Says so if the branch does not grow from the recorded weights, but from what replays."""
        line = await self._store.read(
            lambda store: ledger.lineage(store.connection, version=end.base_version)
        )
        drifts = await self._store.read(lambda store: ledger.drifts(store.connection, line))
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
        started_there = version == self._replayed_to
        return row_without_steps(
            version,
            await self._recorded(head),
            self._start_digest if started_there else await self._recorded(version),
            self._settings.environment,
            fact_id=fact_id,
            seconds=time.monotonic() - self._started,
        )
