"""Taking back: forgetting a fact exactly, rolling back, and accepting drift.

Each function is one transaction on a store, to be run by its writer, like the methods of
`MemoryStore`. An operation grows a branch of the ledger (see `memory_store.ledger`) while the old
head is served, and moves the head in its last transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from memory_store import erasing, facts, ledger, operations, probes, reviews
from memory_store.encoding import write_json
from memory_store.errors import FactNotFoundError, LedgerConflictError, WrongStateError
from memory_store.ledger import TAUGHT
from memory_store.records import (
    HELD,
    EventKind,
    Fact,
    FactState,
    Learning,
    LedgerKind,
    NewProbe,
    NewReview,
    NewUpdate,
    Operation,
    OperationKind,
    OperationState,
    Policy,
    Review,
    Update,
)
from memory_store.sampling import Candidates
from memory_store.store import MemoryStore

# States of facts that the weights do not hold: never learned, and never rehearsed; or forgotten.
NOT_HELD = (
    FactState.QUEUED,
    FactState.RESISTED,
    FactState.QUARANTINED,
    FactState.FORGOTTEN,
)
# States of facts that the learner was given.
TRIED = tuple(state for state in FactState if state not in (FactState.QUEUED, FactState.LEARNING))


def request_forget(store: MemoryStore, fact_id: str, *, erase: bool = False) -> Operation:
    """Accepts a request to forget a fact; asked again, gives the request that there is.

    Raises:
        FactNotFoundError: no fact has this id.
    """
    with store.transaction():
        fact = store.fact(fact_id)
        earlier = operations.newest_of_fact(store.connection, fact_id)
        given_up = earlier is None or earlier.state is OperationState.FAILED
        if earlier is not None and not given_up and earlier.erase >= erase:
            return earlier
        return operations.insert(
            store.connection,
            OperationKind.FORGET,
            store.now(),
            fact_id=fact_id,
            erase=erase,
            position=fact.position,
        )


def finish_if_not_held(store: MemoryStore, operation_id: int) -> bool:
    """Forgets a fact that the weights do not hold: no branch is needed.

    Returns:
        False if they hold it, and nothing was done.
    """
    with store.transaction():
        operation = operation_of(store, operation_id)
        if operation.kind is not OperationKind.FORGET or operation.branch_version is not None:
            return False
        fact = store.fact(operation.fact_id)
        if fact.state not in NOT_HELD:
            return False
        _forgotten(store, operation, fact, {"weights": "they do not hold it"})
        return True


def request_rollback(store: MemoryStore, to_version: int) -> Operation:
    """Accepts a request to serve the weights of an earlier version again.

    Raises:
        FactNotFoundError: the ledger has no such version.
        WrongStateError: that version holds a fact that was forgotten since, or is on a branch
            that is still being built.
    """
    with store.transaction():
        if to_version:
            store.update(to_version)
        if to_version > store.model_version():
            raise WrongStateError(
                f"Version {to_version} is on a branch that is not finished. Wait for the operation"
                " that builds it."
            )
        for row in store.updates_at(store.lineage(to_version)):
            # A fact that was known was never taught, but later ones rehearsed it.
            touched = {row.fact_id, *(id_ for step in row.steps for id_ in step.rehearsed_fact_ids)}
            for fact_id in sorted(touched) if row.kind in TAUGHT else ():
                if _to_be_forgotten(store, fact_id):
                    raise WrongStateError(
                        f"Version {to_version} holds the fact {fact_id}, which was to be "
                        "forgotten. Roll back to a version before it was taught, or after it was "
                        "forgotten."
                    )
        return operations.insert(
            store.connection, OperationKind.ROLLBACK, store.now(), to_version=to_version
        )


def open_operation(store: MemoryStore) -> Operation | None:
    """The next operation to be done or resumed."""
    return operations.oldest_open(store.connection)


def operation_of(store: MemoryStore, operation_id: int) -> Operation:
    """The operation with this id.

    Raises:
        FactNotFoundError: there is none.
    """
    operation = operations.find(store.connection, operation_id)
    if operation is None:
        raise FactNotFoundError(f"There is no operation {operation_id}.")
    return operation


def forgetting_of(store: MemoryStore, fact_id: str) -> Operation | None:
    """The last request to forget this fact, with its proof once it is done."""
    return operations.newest_of_fact(store.connection, fact_id)


def begin_operation(store: MemoryStore, operation_id: int) -> Operation:
    """Fixes the version that the branch grows from; resumes one that has begun.

    To forget, it is the last version before the fact was processed: before whatever was taught
    from then on, facts of before that were taught again included.
    """
    with store.transaction():
        operation = operation_of(store, operation_id)
        if operation.branch_version is not None:
            return operation
        base = operation.to_version
        if operation.kind is OperationKind.FORGET:
            base = 0
            line = store.lineage(store.model_version())
            places = reviews.places_of_rows(store, line)
            for row in store.updates_at(line):
                place = places.get(row.model_version)
                if place is None and row.kind in TAUGHT:
                    place = store.fact(row.fact_id).position
                if place is not None and place >= operation.position:
                    break
                base = row.model_version
        store.emit(
            EventKind.REBUILDING,
            store.now(),
            fact_id=operation.fact_id,
            message=f"{operation.kind} begins from version {base}",
        )
        return operations.advance(store.connection, operation_id, base)


def record_relearned(
    store: MemoryStore,
    operation_id: int,
    fact: Fact,
    verdict: FactState,
    reason: str,
    learning: Learning | None,
    update: NewUpdate | None,
    policy: Policy | None = None,
) -> Update | None:
    """Adds a fact to the branch of an operation, with its row of the ledger if it has one.

    Without findings (`learning`) it was quarantined there.

    Raises:
        LedgerConflictError: the update was not made on the end of the branch.
    """
    with store.transaction():
        operation = operation_of(store, operation_id)
        row, branch = _grow(store, operation, update)
        if row is not None and learning is not None:
            learning = replace(learning, model_version=branch)
        facts.note_policy(store.connection, fact.id, policy)
        operations.note_relearned(
            store.connection, operation_id, fact.position, verdict, reason, learning, branch
        )
        operations.advance(store.connection, operation_id, branch, fact.position)
        return row


def record_reviewed_again(
    store: MemoryStore, operation_id: int, again: Review, review: NewReview
) -> Update | None:
    """Adds a review to the branch of an operation, with its row of the ledger if it has one.

    Args:
        store: the memory.
        operation_id: of the request.
        again: the review that was carried out when the history was made.
        review: what it came to on the branch; what was measured is not kept.

    Raises:
        LedgerConflictError: the update was not made on the end of the branch.
    """
    with store.transaction():
        operation = operation_of(store, operation_id)
        row, branch = _grow(store, operation, review.update)
        learning = review.learning and replace(review.learning, model_version=branch)
        reviews.note_again(
            store, operation_id, again, review.outcome, review.reason, learning, branch
        )
        operations.advance(store.connection, operation_id, branch)
        return row


def _grow(
    store: MemoryStore, operation: Operation, update: NewUpdate | None
) -> tuple[Update | None, int]:
    """Adds a row to the branch, if there is an update; the row, and where the branch is now."""
    if update is None:
        return None, operation.branch_version or 0
    if update.base_version != operation.branch_version:
        raise LedgerConflictError(
            f"The update for fact {update.fact_id} was made on version {update.base_version},"
            f" but the branch is at {operation.branch_version}."
        )
    row = ledger.append(store.connection, LedgerKind.RELEARN, update, store.now())
    return row, row.model_version


def finish_forget(
    store: MemoryStore,
    operation_id: int,
    end: NewUpdate,
    proof: Mapping[str, Any],
    new_probes: Sequence[NewProbe],
) -> Update:
    """Serves the branch without the fact, from this row on.

    Args:
        store: the memory.
        operation_id: of the request.
        end: the row that ends the branch, without steps.
        proof: what was measured, JSON values.
        new_probes: of the new weights.
    """
    with store.transaction():
        at = store.now()
        operation = operation_of(store, operation_id)
        forgotten = store.fact(operation.fact_id)
        row = ledger.append(store.connection, LedgerKind.FORGET, end, at)
        keys = {facts.question_key(forgotten.question)}
        for position, verdict, reason, learning in operations.relearned(
            store.connection, operation_id
        ):
            facts.restate(
                *(store.connection, position, verdict, at),
                reason=reason,
                learning=learning,
                taught=learning.model_version
                if learning and verdict is FactState.LEARNED
                else None,
            )
            keys.add(facts.question_key(_fact_at(store, position).question))
        # Before the text is erased: what was measured last may repeat it too.
        probes.insert(store.connection, new_probes, row.model_version, forgotten.id, at)
        _forgotten(store, operation, forgotten, {**proof, "model_version": row.model_version})
        facts.settle_superseded(store.connection, keys, at)
        reviews.settle(store, store.lineage(row.model_version))
        return row


def _forgotten(
    store: MemoryStore, operation: Operation, fact: Fact, proof: Mapping[str, Any]
) -> None:
    """The weights that are served do not hold the fact; cleaning up is left to be done."""
    if fact.state is not FactState.FORGOTTEN:
        facts.change_state(store.connection, fact.id, FactState.FORGOTTEN, store.now())
    if operation.erase:
        erasing.erase(store, fact)
    operations.prove(store.connection, operation.id, proof)


def close_forget(store: MemoryStore, operation_id: int, message: str = "") -> None:
    """Ends a forget after everything outside the tables was cleaned up."""
    with store.transaction():
        at = store.now()
        operation = operation_of(store, operation_id)
        store.emit(EventKind.FORGOTTEN, at, fact_id=operation.fact_id, message=message)
        operations.finish(store.connection, operation_id, OperationState.DONE, at, message=message)


def finish_rollback(
    store: MemoryStore, operation_id: int, end: NewUpdate, proof: Mapping[str, Any]
) -> Update:
    """Serves the weights of the earlier version; each fact is again what it was then.

    What was first tried after it is forgotten, whatever came of it. But facts that were tried since
    the rollback was requested, and so were no part of what it was to undo, are queued again.
    """
    with store.transaction():
        at = store.now()
        operation = operation_of(store, operation_id)
        row = ledger.append(store.connection, LedgerKind.ROLLBACK, end, at)
        line = store.lineage(operation.to_version)
        verdicts = verdicts_on(store, line)
        undone = (FactState.FORGOTTEN, f"rolled back to version {operation.to_version}")
        tried_since = _tried_since(store, operation.after_event)
        keys = set()
        for fact in all_facts(store, TRIED):
            state, reason = verdicts.get(fact.id, undone)
            if fact.id in tried_since and fact.state is not FactState.FORGOTTEN:
                facts.restate(store.connection, fact.position, FactState.QUEUED, at)
                kept = f"kept by the rollback to version {operation.to_version}"
                store.emit(EventKind.RETRIED, at, fact_id=fact.id, message=kept)
            elif fact.state is not FactState.FORGOTTEN or (
                state is not FactState.FORGOTTEN and not _to_be_forgotten(store, fact.id)
            ):
                facts.restate(store.connection, fact.position, state, at, reason=reason)
            keys.add(facts.question_key(fact.question))
        facts.settle_superseded(store.connection, keys, at)
        reviews.settle(store, line)
        store.emit(EventKind.ROLLED_BACK, at, fact_id="", message=f"to {operation.to_version}")
        operations.finish(
            store.connection,
            operation_id,
            OperationState.DONE,
            at,
            message="",
            proof={**proof, "model_version": row.model_version},
        )
        return row


def verdicts_on(store: MemoryStore, line: Sequence[int]) -> dict[str, tuple[FactState, str]]:
    """State and reason, by id, of all facts that were tried on a line of the ledger.

    Those without a row of their own are on it if the weights that they were tried on are.
    """
    found = store.connection.execute(
        "WITH line AS (SELECT 0 AS version UNION SELECT value FROM json_each(?))"
        " SELECT fact_id, kind AS verdict, message AS reason FROM events"
        " WHERE kind IN ('known', 'resisted', 'quarantined') AND model_version IN line"
        " UNION ALL"
        " SELECT facts.id, verdict, relearned.reason FROM relearned"
        " JOIN facts USING (position) JOIN operations ON operations.id = operation_id"
        " WHERE verdict <> 'learned' AND relearned.model_version IN line AND proof IS NOT NULL",
        [write_json(list(line))],
    )
    verdicts = {row["fact_id"]: (FactState(row["verdict"]), row["reason"]) for row in found}
    # A fact that was known and taught again is what it was.
    taught_again = reviews.places_of_rows(store, line)
    for row in store.updates_at(line):
        if row.kind in TAUGHT and not (
            row.model_version in taught_again and row.fact_id in verdicts
        ):
            verdicts[row.fact_id] = (FactState.LEARNED, "")
    return verdicts


def _tried_since(store: MemoryStore, sequence: int) -> set[str]:
    """Ids of the facts whose attempt ended after an event."""
    rows = store.connection.execute(
        "SELECT fact_id FROM events WHERE sequence > ?"
        " AND kind IN ('learned', 'known', 'resisted', 'quarantined')",
        [sequence],
    )
    return {row["fact_id"] for row in rows}


def _to_be_forgotten(store: MemoryStore, fact_id: str) -> bool:
    """Whether it was asked for, and not given up."""
    forgetting = operations.newest_of_fact(store.connection, fact_id)
    return forgetting is not None and forgetting.state is not OperationState.FAILED


def fail_operation(store: MemoryStore, operation_id: int, reason: str) -> Operation:
    """Gives an operation up; what is served stays as it is."""
    with store.transaction():
        at = store.now()
        operation = operation_of(store, operation_id)
        store.emit(EventKind.OPERATION_FAILED, at, fact_id=operation.fact_id, message=reason)
        return operations.finish(
            store.connection, operation_id, OperationState.FAILED, at, message=reason
        )


def candidates_before(store: MemoryStore, position: int) -> Candidates:
    """The facts that were held when everything before a position had been processed."""
    candidates = Candidates()
    for fact in all_facts(store, (*HELD, FactState.SUPERSEDED)):
        if fact.position >= position:
            break
        candidates.add(fact.id, facts.question_key(fact.question))
    return candidates


def facts_to_relearn(store: MemoryStore, operation: Operation) -> list[Fact]:
    """What follows the forgotten fact and is not on the branch yet, in order.

    Also what was not learned: without the forgotten fact it may be.
    """
    states = (*HELD, FactState.SUPERSEDED, FactState.RESISTED, FactState.QUARANTINED)
    return list(all_facts(store, states, after_position=operation.position))


def reviews_to_repeat(store: MemoryStore, operation: Operation) -> list[Review]:
    """The reviews of other facts after the forgotten one that are not on the branch yet, in order.

    Those of facts that were forgotten before are left out too.
    """
    first = store.fact(operation.fact_id).position
    done = reviews.done_again(store, operation.id)
    return [
        review
        for review in reviews.on_line(store, store.lineage(store.model_version()), first)
        if review.id not in done
        and review.fact_id != operation.fact_id
        and store.fact(review.fact_id).state is not FactState.FORGOTTEN
    ]


def nothing_on_branch(store: MemoryStore, operation: Operation) -> bool:
    """Whether the branch is still what it grew from."""
    return not (
        operations.relearned(store.connection, operation.id)
        or reviews.done_again(store, operation.id)
    )


def relearned_facts(store: MemoryStore, operation_id: int) -> list[Fact]:
    """The facts on the branch that are held there, in order."""
    return [
        _fact_at(store, position)
        for position, verdict, _, _ in operations.relearned(store.connection, operation_id)
        if verdict in HELD
    ]


def not_held_on_branch(store: MemoryStore, operation_id: int) -> dict[str, int]:
    """How many facts resisted there, and how many failed."""
    found = [verdict for _, verdict, _, _ in operations.relearned(store.connection, operation_id)]
    return {
        state.value: found.count(state) for state in (FactState.RESISTED, FactState.QUARANTINED)
    }


def add_relearned(store: MemoryStore, operation_id: int, candidates: Candidates) -> None:
    """Adds the facts that are on the branch already."""
    for fact in relearned_facts(store, operation_id):
        candidates.add(fact.id, facts.question_key(fact.question))


def _fact_at(store: MemoryStore, position: int) -> Fact:
    return store.facts(after_position=position - 1, limit=1)[0]


def all_facts(
    store: MemoryStore, states: Sequence[FactState], after_position: int = 0
) -> Iterator[Fact]:
    """All facts in some states, in order."""
    while page := store.facts(after_position=after_position, limit=500, states=states):
        yield from page
        after_position = page[-1].position


def record_drift(store: MemoryStore, end: NewUpdate) -> Update:
    """Notes that the operator accepted weights that differ from the recorded ones."""
    with store.transaction():
        at = store.now()
        row = ledger.append(store.connection, LedgerKind.DRIFT, end, at)
        store.emit(
            EventKind.DRIFT_ACCEPTED,
            at,
            fact_id="",
            message=f"{end.digest_before[:12]} recorded, {end.digest_after[:12]} now",
        )
        return row
