"""The life of an operation, phase by phase: forget, rollback and erase.

Each function is one transaction on a store and one `Transition`, in the order in which they come:
request, begin, (anew), switch, close; or fail and cancel. What is built in between is in
`memory_store.branch_growth`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memory_store import (
    branch_growth,
    erasure,
    facts,
    head_switch,
    ledger,
    operations,
    past_versions,
    probes,
    rollback_states,
    tombstones,
    unsearched,
)
from memory_store.branches import Beginning, count_to_repeat, find_beginning, nothing_is_missing
from memory_store.encoding import write_json
from memory_store.errors import LedgerConflictError, WrongStateError
from memory_store.lines import Line, line_of
from memory_store.store import MemoryStore
from memory_store.vocabulary import (
    GIVEN_UP,
    EventKind,
    Fact,
    FactState,
    LedgerKind,
    NewProbe,
    NewUpdate,
    Operation,
    OperationKind,
    Phase,
    Transition,
    Update,
)

# States of facts that the weights do not hold: never learned, and never rehearsed; or forgotten.
NOT_HELD = (
    FactState.QUEUED,
    FactState.RESISTED,
    FactState.QUARANTINED,
    FactState.FORGOTTEN,
)


# --- Requested ------------------------------------------------------------------------------------


def request_forget(store: MemoryStore, fact_id: str, *, erase: bool = False) -> Operation:
    """Accepts a request to forget a fact; asked again, gives the request that there is.

    Raises:
        FactNotFoundError: no fact has this id.
    """
    with store.transaction():
        fact = store.fact(fact_id)
        earlier = operations.newest_of_fact(store, fact_id)
        if earlier is not None and earlier.phase not in GIVEN_UP and earlier.erase >= erase:
            return earlier
        operation = operations.insert(
            *(store, OperationKind.FORGET), fact_id=fact_id, erase=erase, position=fact.position
        )
        tombstones.erase_requested(store, operation)  # it waits for no weights
        return operation


def request_rollback(store: MemoryStore, to_version: int) -> Operation:
    """Accepts a request to serve the weights of an earlier version again.

    Raises:
        FactNotFoundError: the ledger has no such version.
        WrongStateError: that version was never served; or it holds a fact that was forgotten since.
    """
    with store.transaction():
        if to_version:
            store.update(to_version)
        past_versions.require_served(store, to_version)
        for fact_id in operations.to_be_forgotten(store):
            if past_versions.was_touched_before(store, fact_id, to_version):
                raise WrongStateError(
                    f"Version {to_version} holds the fact {fact_id}, which was to be "
                    "forgotten. Roll back to a version before it was taught, or after it was "
                    "forgotten."
                )
        return operations.insert(store, OperationKind.ROLLBACK, to_version=to_version)


# --- Building -------------------------------------------------------------------------------------


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
        operation = operations.get(store, operation_id)
        if operation.phase is Phase.BUILDING:
            return operation
        operations.require(store, operation_id, Transition.BEGIN)
        while branch_growth.remove_dropped(store):  # usually done before, in steps
            pass
        found = beginning or find_beginning(store, operation)
        store.emit(
            EventKind.REBUILDING,
            store.now(),
            fact_id=operation.fact_id,
            message=f"{operation.kind} begins from version {found.base}"
            + (f", since {because}" if because else ""),
        )
        begun = operations.change(
            *(store, operation_id, Transition.BEGIN),
            branch_version=found.base,
            base_version=found.base,
            first_position=found.first_position,
            first_review=found.first_review,
            position=found.first_position - 1,
            message=because,
        )
        if beginning is not None or operation.kind is OperationKind.ROLLBACK:
            return begun  # whoever looks for the beginning in parts counts later, too
        return operations.update(store, begun.id, total=count_to_repeat(store, begun))


def begin_anew(store: MemoryStore, operation_id: int) -> Operation:
    """Drops what an operation has built: it cannot go on from there.

    The rows are removed by `branch_growth.remove_dropped`.

    Raises:
        OperationEndedError: it is over.
        WrongStateError: it has built nothing, or its result is served.
    """
    with store.transaction():
        operation = operations.get(store, operation_id)
        position = store.fact(operation.fact_id).position if operation.fact_id else 0
        return operations.change(
            *(store, operation_id, Transition.BEGIN_ANEW),
            branch_version=None,
            base_version=None,
            first_position=None,
            first_review=0,
            never_saw=None,
            done=0,
            total=0,
            position=position,
        )


# --- Switched -------------------------------------------------------------------------------------


def finish_if_not_held(store: MemoryStore, operation_id: int) -> bool:
    """Forgets a fact that the weights do not hold: no branch is needed.

    Returns:
        False if they hold it, or its branch is being built; nothing was done then.

    Raises:
        OperationEndedError: it is over.
        WrongStateError: its result is served already.
    """
    with store.transaction():
        operation = operations.get(store, operation_id)
        if operation.phase is Phase.BUILDING:
            return False
        operations.require(store, operation_id, Transition.SKIP)
        if operation.kind is not OperationKind.FORGET:
            return False
        fact = store.fact(operation.fact_id)
        if fact.state not in NOT_HELD:
            return False
        # The head may have moved to weights that hold it since its state was changed, which is then
        # left alone: by an operation that had learned it again, or by a rollback.
        if fact.state is FactState.FORGOTTEN and past_versions.was_touched_before(
            store, fact.id, store.model_version()
        ):
            return False
        _forgotten(store, operation, fact)
        proof = write_json({"weights": "they do not hold it"})
        operations.change(store, operation_id, Transition.SKIP, proof=proof)
        return True


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
        operation = operations.require(store, operation_id, Transition.SWITCH)
        if last_review is not None and not nothing_is_missing(store, operation, last_review):
            raise LedgerConflictError("More was learned than is on the branch: repeat it first.")
        forgotten = store.fact(operation.fact_id)
        row = ledger.append(store.connection, LedgerKind.FORGET, end, at)
        keys = {facts.question_key((text or forgotten).question)}
        keys |= tombstones.keys_it_superseded(store, forgotten.id) if forgotten.erased else set()
        # Before the text is erased: what was measured last may repeat it too.
        probes.insert(store.connection, new_probes, row.model_version, forgotten.id, at)
        _forgotten(store, operation, text or forgotten)
        if line is not None:
            line = Line((*line.ranges, (row.model_version, row.model_version)))
        _switch(store, operation, row, proof, line, keys)
        return row


def _forgotten(store: MemoryStore, operation: Operation, fact: Fact) -> None:
    """The weights that are served do not hold the fact."""
    if store.fact(fact.id).state is not FactState.FORGOTTEN:
        facts.change_state(store.connection, fact.id, FactState.FORGOTTEN, store.now())
    if operation.erase:
        erasure.erase(store, fact)


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
        operation = operations.require(store, operation_id, Transition.SWITCH)
        if line is None:
            line, wanted = line_of(store.connection, end.base_version), None
            if end.base_version != operation.to_version:
                wanted = line_of(store.connection, operation.to_version)
            written = 0
            while written := rollback_states.write_down(store, operation, line, wanted, written):
                pass
        row = ledger.append(store.connection, LedgerKind.ROLLBACK, end, store.now())
        _switch(store, operation, row, proof, line, set())
        return row


def _switch(
    store: MemoryStore,
    operation: Operation,
    row: Update,
    proof: Mapping[str, Any],
    line: Line | None,
    question_keys: set[str],
) -> None:
    """The head has moved to this row: what was measured is kept, and facts get their new states."""
    written = write_json({**proof, "model_version": row.model_version})
    operations.change(store, operation.id, Transition.SWITCH, proof=written)
    head_switch.begin(store, operation, row, line, question_keys)


# --- Over -----------------------------------------------------------------------------------------


def note_clean_up_failed(store: MemoryStore, operation_id: int, reason: str) -> None:
    """Keeps why what a fact left behind cannot be removed now; the first time, with an event."""
    message = f"the clean-up failed, and is tried again: {reason}"
    with store.transaction():
        operation = operations.require(store, operation_id, Transition.CLOSE)
        if operation.message == message:
            return
        operations.update(store, operation_id, message=message)
        store.emit(
            EventKind.CLEAN_UP_FAILED, store.now(), fact_id=operation.fact_id, message=reason
        )


def close_forget(store: MemoryStore, operation_id: int, message: str = "") -> Operation:
    """Ends a forget after everything outside the tables was cleaned up.

    Args:
        store: the memory.
        operation_id: of the request.
        message: what is left, for people.

    Raises:
        OperationEndedError: it is over.
        WrongStateError: its result is not served yet.
    """
    with store.transaction():
        operation = operations.change(store, operation_id, Transition.CLOSE, message=message)
        store.emit(EventKind.FORGOTTEN, store.now(), fact_id=operation.fact_id, message=message)
        erasure.drop_kept(store, operation.fact_id)
        unsearched.drop(store, operation.fact_id)
        return operation


def fail_operation(store: MemoryStore, operation_id: int, reason: str) -> Operation:
    """Gives an operation up; what is served stays as it is.

    Raises:
        OperationEndedError: it is over.
        WrongStateError: its result is served already.
    """
    return _give_up(store, operation_id, Transition.FAIL, reason)


def cancel_operation(store: MemoryStore, operation_id: int) -> Operation:
    """Gives up an operation that somebody asked for; what is served stays as it is.

    Cancelled again, it stays as it is.

    Raises:
        FactNotFoundError: there is no such operation.
        WrongStateError: it is too late: its result is served already, or it is over.
    """
    operation = operations.get(store, operation_id)
    if operation.phase is Phase.CANCELLED:
        return operation
    return _give_up(store, operation_id, Transition.CANCEL, "cancelled")


def _give_up(
    store: MemoryStore, operation_id: int, transition: Transition, reason: str
) -> Operation:
    with store.transaction():
        operation = operations.change(store, operation_id, transition, message=reason)
        store.emit(
            EventKind.OPERATION_FAILED, store.now(), fact_id=operation.fact_id, message=reason
        )
        return operation
