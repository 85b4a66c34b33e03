"""Taking back: forgetting a fact exactly, rolling back, and accepting drift.

Each function is one transaction on a store, to be run by its writer, like the methods of
`MemoryStore`. An operation grows a branch of the ledger (see `memory_store.ledger`) while the old
head is served, and moves the head in its last transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from memory_store import (
    erasure,
    facts,
    head_switch,
    ledger,
    meta,
    operations,
    probes,
    reviews,
    rollback_states,
    tombstones,
    unsearched,
)
from memory_store.branches import (
    Beginning,
    count_to_repeat,
    find_beginning,
    nothing_is_missing,
)
from memory_store.encoding import write_json
from memory_store.errors import (
    LedgerConflictError,
    WrongStateError,
)
from memory_store.lines import Line, line_of
from memory_store.paging import decode_page_token, encode_page_token
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    GIVEN_UP,
    Attempt,
    EventKind,
    Fact,
    FactState,
    LedgerKind,
    NewProbe,
    NewReview,
    NewUpdate,
    Operation,
    OperationKind,
    OperationState,
    Review,
    Update,
    Verdict,
)

# States of facts that the weights do not hold: never learned, and never rehearsed; or forgotten.
NOT_HELD = (
    FactState.QUEUED,
    FactState.RESISTED,
    FactState.QUARANTINED,
    FactState.FORGOTTEN,
)


def request_forget(store: MemoryStore, fact_id: str, *, erase: bool = False) -> Operation:
    """Accepts a request to forget a fact; asked again, gives the request that there is.

    Raises:
        FactNotFoundError: no fact has this id.
    """
    with store.transaction():
        fact = store.fact(fact_id)
        earlier = operations.newest_of_fact(store.connection, fact_id)
        given_up = earlier is None or earlier.state in GIVEN_UP
        if earlier is not None and not given_up and earlier.erase >= erase:
            return earlier
        operation = operations.insert(
            store.connection,
            OperationKind.FORGET,
            store.now(),
            fact_id=fact_id,
            erase=erase,
            position=fact.position,
        )
        tombstones.erase_requested(store, operation)  # it waits for no weights
        return operation


def finish_if_not_held(store: MemoryStore, operation_id: int) -> bool:
    """Forgets a fact that the weights do not hold: no branch is needed.

    Returns:
        False if they hold it, and nothing was done.
    """
    with store.transaction():
        operation = operations.require_open(store.connection, operation_id)
        if operation.kind is not OperationKind.FORGET or operation.branch_version is not None:
            return False
        fact = store.fact(operation.fact_id)
        if fact.state not in NOT_HELD:
            return False
        # The head may have moved to weights that hold it since its state was changed, which is then
        # left alone: by an operation that had learned it again, or by a rollback.
        if fact.state is FactState.FORGOTTEN and _was_touched_before(
            store, fact.id, store.model_version()
        ):
            return False
        _forgotten(store, operation, fact, {"weights": "they do not hold it"})
        return True


def request_rollback(store: MemoryStore, to_version: int) -> Operation:
    """Accepts a request to serve the weights of an earlier version again.

    Raises:
        FactNotFoundError: the ledger has no such version.
        WrongStateError: that version was never served; or it holds a fact that was forgotten since.
    """
    with store.transaction():
        if to_version:
            store.update(to_version)
        _require_served(store, to_version)
        for fact_id in operations.to_be_forgotten(store.connection):
            if _was_touched_before(store, fact_id, to_version):
                raise WrongStateError(
                    f"Version {to_version} holds the fact {fact_id}, which was to be "
                    "forgotten. Roll back to a version before it was taught, or after it was "
                    "forgotten."
                )
        return operations.insert(
            store.connection, OperationKind.ROLLBACK, store.now(), to_version=to_version
        )


def _require_served(store: MemoryStore, version: int) -> None:
    """Checks that a version was served, or is on the way to one that was.

    Raises:
        WrongStateError: it is on a branch that was never finished.
    """
    rows = store.connection.execute(
        "SELECT kind = 'relearn' AS on_branch, (SELECT min(model_version) FROM updates"
        "  WHERE kind = 'forget' AND model_version > row.model_version) AS end"
        " FROM updates AS row WHERE model_version = ?",
        [version],
    )
    if not rows or not rows[0]["on_branch"]:
        return
    # Operations follow one another, so this branch was finished only by the first end after it.
    if rows[0]["end"] and version in line_of(store.connection, rows[0]["end"]):
        return
    served = line_of(store.connection, store.model_version())
    raise WrongStateError(
        f"Version {version} is on a branch that is not finished, or was given up: it was never"
        f" served. Roll back to one of these versions: 0, {served}."
    )


def _was_touched_before(store: MemoryStore, fact_id: str, version: int) -> bool:
    """Whether the weights of a version were taught a fact, or may have rehearsed it."""
    rows = store.connection.execute(
        "SELECT model_version AS version, kind FROM updates WHERE fact_id = ?1"
        # A fact that was known was never taught, but later ones rehearsed it.
        " UNION ALL SELECT model_version, kind FROM events WHERE fact_id = ?1 AND kind = 'known'"
        " UNION ALL SELECT relearned.model_version, verdict FROM facts JOIN relearned"
        "  USING (position) WHERE facts.id = ?1 AND verdict = 'known'",
        [fact_id],
    )
    before = [(row["version"], row["kind"]) for row in rows if row["version"] <= version]
    if not before:
        return False
    line = line_of(store.connection, version)
    if any(kind in ("teach", "relearn") and at in line for at, kind in before):
        return True
    known = [at for at, kind in before if kind == "known"]
    if not known:
        return False
    # Nothing rehearses it from the row on that ended its forgetting.
    ended = [row["version"] for row in rows if row["kind"] == "forget"]
    rehearsed = store.connection.execute(
        "SELECT model_version FROM updates WHERE model_version > ? AND model_version <= ?"
        " AND instr(steps, ?) > 0",
        [min(known), min([version, *ended]), write_json(fact_id)],
    )
    return any(row["model_version"] in line for row in rehearsed)


def open_operation(store: MemoryStore) -> Operation | None:
    """The next operation to be done or resumed."""
    return operations.oldest_open(store.connection)


def next_operation(store: MemoryStore) -> Operation | None:
    """The next operation whose result is not served yet."""
    return operations.oldest_not_served(store.connection)


def erasures_in_progress(store: MemoryStore) -> list[Operation]:
    """The operations that erase a fact, and whose result is not served yet."""
    return operations.open_erasures(store.connection)


def operations_to_clean_up(store: MemoryStore) -> list[Operation]:
    """The operations whose result is served, and after which something is left to be removed."""
    return operations.served_and_open(store.connection)


def note_clean_up_failed(store: MemoryStore, operation_id: int, reason: str) -> None:
    """Keeps why what a fact left behind cannot be removed now; the first time, with an event."""
    message = f"the clean-up failed, and is tried again: {reason}"
    with store.transaction():
        operation = operation_of(store, operation_id)
        if operation.message == message:
            return
        operations.note_message(store.connection, operation_id, message)
        store.emit(
            EventKind.CLEAN_UP_FAILED, store.now(), fact_id=operation.fact_id, message=reason
        )


def operation_of(store: MemoryStore, operation_id: int) -> Operation:
    """The operation with this id.

    Raises:
        FactNotFoundError: there is none.
    """
    return operations.get(store.connection, operation_id)


def forgetting_of(store: MemoryStore, fact_id: str) -> Operation | None:
    """The last request to forget this fact, with its proof once it is done."""
    return operations.newest_of_fact(store.connection, fact_id)


def begin_operation(
    store: MemoryStore, operation_id: int, beginning: Beginning | None = None, because: str = ""
) -> Operation:
    """Fixes the version that the branch grows from; resumes one that has begun.

    Args:
        store: the memory.
        operation_id: of the request.
        beginning: as found in parts, which holds nobody up; None: it is looked for here.
        because: why it is not later, for people; kept as the operation's message.

    Raises:
        WrongStateError: the operation was cancelled.
    """
    with store.transaction():
        operation = operations.require_open(store.connection, operation_id)
        if operation.branch_version is not None:
            return operation
        while remove_dropped(store):  # usually done before, in steps
            pass
        found = beginning or find_beginning(store, operation)
        store.emit(
            EventKind.REBUILDING,
            store.now(),
            fact_id=operation.fact_id,
            message=f"{operation.kind} begins from version {found.base}"
            + (f", since {because}" if because else ""),
        )
        operations.note_message(store.connection, operation_id, because)
        begun = operations.begin(
            store.connection, operation_id, found.base, found.first_position, found.first_review
        )
        # Whoever looks for the beginning in parts counts later, too.
        return begun if beginning else note_total(store, begun.id)


def begin_anew(store: MemoryStore, operation_id: int) -> None:
    """Drops what an operation has built: it cannot go on from there.

    Raises:
        OperationEndedError: it is over.
    """
    with store.transaction():
        operations.require_open(store.connection, operation_id)
        operations.begin_anew(store.connection, operation_id)


def remove_dropped(store: MemoryStore) -> bool:
    """Removes some of what operations had built before they were to begin anew.

    Returns:
        Whether more may be left.
    """
    with store.transaction():
        return operations.remove_dropped(store.connection, head_switch.ROWS_AT_ONCE)


def note_total(store: MemoryStore, operation_id: int, to_repeat: int | None = None) -> Operation:
    """Notes how many facts are to be on the branch: more may have been learned meanwhile.

    Args:
        store: the memory.
        operation_id: of the request.
        to_repeat: how many are not on it yet; None: they are counted here.
    """
    with store.transaction():
        operation = operation_of(store, operation_id)
        if operation.kind is OperationKind.FORGET:
            count = count_to_repeat(store, operation) if to_repeat is None else to_repeat
            operations.note_total(store.connection, operation_id, count)
        return operation_of(store, operation_id)


def note_never_saw(store: MemoryStore, operation_id: int, probability: float) -> None:
    """Keeps how probable the answer is to weights that never saw the fact."""
    with store.transaction():
        operations.note_never_saw(store.connection, operation_id, probability)


def record_relearned(store: MemoryStore, operation_id: int, attempt: Attempt) -> Update | None:
    """Adds a fact to the branch of an operation, with its row of the ledger if it has one.

    A fact whose attempt failed is quarantined there.

    Raises:
        LedgerConflictError: the update was not made on the end of the branch.
    """
    with store.transaction():
        operation = operations.require_open(store.connection, operation_id)
        position = store.fact(attempt.fact_id).position
        row, branch = _grow(store, operation, attempt.update)
        learning = attempt.learning
        if row is not None and learning is not None:
            learning = replace(learning, model_version=branch)
        failed = attempt.verdict is Verdict.FAILED
        verdict = FactState.QUARANTINED if failed else FactState(attempt.verdict)
        facts.note_policy(store.connection, attempt.fact_id, attempt.policy)
        operations.note_relearned(
            store.connection, operation_id, position, verdict, attempt.reason, learning, branch
        )
        operations.advance(store.connection, operation_id, branch, position)
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
        operation = operations.require_open(store.connection, operation_id)
        row, branch, learning = None, operation.branch_version or 0, None
        if (attempt := review.attempt) is not None:
            row, branch = _grow(store, operation, attempt.update)
            learning = attempt.learning and replace(attempt.learning, model_version=branch)
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
    last_review: int | None = None,
    text: Fact | None = None,
    line: Line | None = None,
) -> Update:
    """Serves the branch without the fact, from this row on.

    Args:
        store: the memory.
        operation_id: of the request.
        end: the row that ends the branch, without steps.
        proof: what was measured, JSON values.
        new_probes: of the new weights.
        last_review: id of the last review that was looked at for the branch; None: nothing is
            learned meanwhile, and nothing can be missing.
        text: the fact as it was before its text was erased, if that is still known: what was said
            since may repeat it, and is looked for once more.
        line: of the branch, if it is at hand.

    Raises:
        LedgerConflictError: the head has processed something that is not on the branch.
        OperationEndedError: it was cancelled.
    """
    with store.transaction():
        at = store.now()
        operation = operations.require_open(store.connection, operation_id)
        if last_review is not None and not nothing_is_missing(store, operation, last_review):
            raise LedgerConflictError("More was learned than is on the branch: repeat it first.")
        forgotten = store.fact(operation.fact_id)
        row = ledger.append(store.connection, LedgerKind.FORGET, end, at)
        keys = {facts.question_key((text or forgotten).question)}
        keys |= tombstones.keys_it_superseded(store, forgotten.id) if forgotten.erased else set()
        # Before the text is erased: what was measured last may repeat it too.
        probes.insert(store.connection, new_probes, row.model_version, forgotten.id, at)
        proof = {**proof, "model_version": row.model_version}
        _forgotten(store, operation, text or forgotten, proof)
        if line is not None:
            line = Line((*line.ranges, (row.model_version, row.model_version)))
        head_switch.begin(store, operation, row, line, keys)
        return row


def _forgotten(
    store: MemoryStore, operation: Operation, fact: Fact, proof: Mapping[str, Any]
) -> None:
    """The weights that are served do not hold the fact; cleaning up is left to be done."""
    if store.fact(fact.id).state is not FactState.FORGOTTEN:
        facts.change_state(store.connection, fact.id, FactState.FORGOTTEN, store.now())
    if operation.erase:
        erasure.erase(store, fact)
    operations.prove(store.connection, operation.id, proof)


def close_forget(store: MemoryStore, operation_id: int, message: str = "") -> None:
    """Ends a forget after everything outside the tables was cleaned up."""
    with store.transaction():
        at = store.now()
        operation = operation_of(store, operation_id)
        store.emit(EventKind.FORGOTTEN, at, fact_id=operation.fact_id, message=message)
        erasure.drop_kept(store, operation.fact_id)
        unsearched.drop(store, operation.fact_id)
        operations.finish(store.connection, operation_id, OperationState.DONE, at, message=message)


def finish_rollback(
    store: MemoryStore,
    operation_id: int,
    end: NewUpdate,
    proof: Mapping[str, Any],
    line: Line | None = None,
) -> Update:
    """Serves the weights of the earlier version; each fact is again what it was then.

    What was first tried after it is forgotten, whatever came of it. But facts that were tried since
    the rollback was requested, and so were no part of what it was to undo, are queued again. So are
    facts that the version held and the nearest one that could be reached (`end.base_version`) does
    not: they are learned again.

    Args:
        store: the memory.
        operation_id: of the request.
        end: the row that moves the head, without steps.
        proof: what was measured, JSON values.
        line: of `end.base_version`, with which all facts were written down before (see
            `rollback_states.write_down`); None: they are now.
    """
    with store.transaction():
        operation = operations.require_open(store.connection, operation_id)
        if line is None:
            line, wanted = line_of(store.connection, end.base_version), None
            if end.base_version != operation.to_version:
                wanted = line_of(store.connection, operation.to_version)
            written = 0
            while written := rollback_states.write_down(store, operation, line, wanted, written):
                pass
        row = ledger.append(store.connection, LedgerKind.ROLLBACK, end, store.now())
        operations.prove(
            store.connection, operation_id, {**proof, "model_version": row.model_version}
        )
        head_switch.begin(store, operation, row, line, set())
        return row


def fail_operation(store: MemoryStore, operation_id: int, reason: str) -> Operation:
    """Gives an operation up; what is served stays as it is."""
    with store.transaction():
        at = store.now()
        operation = operation_of(store, operation_id)
        store.emit(EventKind.OPERATION_FAILED, at, fact_id=operation.fact_id, message=reason)
        return operations.finish(
            store.connection, operation_id, OperationState.FAILED, at, message=reason
        )


def cancel_operation(store: MemoryStore, operation_id: int) -> Operation:
    """Gives up an operation that somebody asked for; what is served stays as it is.

    Cancelled again, it stays as it is.

    Raises:
        FactNotFoundError: there is no such operation.
        WrongStateError: it is too late: its result is served already, or it is over.
    """
    with store.transaction():
        operation = operation_of(store, operation_id)
        if operation.state is OperationState.CANCELLED:
            return operation
        if operation.finished_at is not None:
            raise WrongStateError(f"Operation {operation_id} is {operation.state} already.")
        if operation.proof is not None:
            raise WrongStateError(
                f"Operation {operation_id} cannot be cancelled any more: its result is served, and"
                " only the clean-up is left."
            )
        at = store.now()
        store.emit(EventKind.OPERATION_FAILED, at, fact_id=operation.fact_id, message="cancelled")
        return operations.cancel(store.connection, operation_id, at)


def list_operations(
    store: MemoryStore,
    page_size: int,
    page_token: str = "",
    fits: Callable[[Operation], bool] = lambda operation: True,
) -> tuple[list[Operation], str]:
    """A page of operations, newest first, and the token of the next page (empty on the last).

    Args:
        store: the memory.
        page_size: at least 1; limits are the caller's.
        page_token: of the page before; empty for the first.
        fits: as in `MemoryStore.page`.

    Raises:
        InvalidPageTokenError: the token is not of this list.
    """
    with store.transaction():
        secret = meta.page_token_secret(store.connection)
        before = decode_page_token(page_token, ("operations",), secret) if page_token else 0
        found = operations.newest(store.connection, before, page_size + 1)
    page: list[Operation] = []
    for operation in found[:page_size]:
        if not fits(operation) and page:
            break
        page.append(operation)
    if len(found) == len(page):
        return page, ""
    return page, encode_page_token(page[-1].id, ("operations",), secret)


def not_held_on_branch(store: MemoryStore, operation_id: int) -> dict[str, int]:
    """How many facts resisted there, and how many failed."""
    rows = store.connection.execute(
        "SELECT verdict, count(*) AS count FROM relearned WHERE operation_id = ? GROUP BY verdict",
        [operation_id],
    )
    found = {row["verdict"]: int(row["count"]) for row in rows}
    states = (FactState.RESISTED, FactState.QUARANTINED)
    return {state.value: found.get(state.value, 0) for state in states}


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
