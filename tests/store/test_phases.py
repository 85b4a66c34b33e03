"""Operations as a state machine: every transition from every phase, and the table in the docs."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from memory_store import branch_growth, erasure, operations, rollback_states, undo
from memory_store.errors import OperationEndedError, WrongStateError
from memory_store.lines import line_of
from memory_store.store import MemoryStore
from memory_store.tables import NOT_SERVED, OPEN, SWITCHED
from memory_store.vocabulary import FactState, Operation, Phase, Transition
from tests.store.builders import (
    end_of_branch,
    learning,
    new_attempt,
    new_update,
    teach_claimed,
    teach_learned,
)

DESIGN = Path(__file__).parents[2] / "docs" / "design.md"


def requested(store: MemoryStore) -> Operation:
    fact = teach_learned(store, "first?")
    teach_learned(store, "second?")
    return undo.request_forget(store, fact.id)


def building(store: MemoryStore) -> Operation:
    return undo.begin_operation(store, requested(store).id)


def switched(store: MemoryStore) -> Operation:
    operation = building(store)
    undo.finish_forget(store, operation.id, end_of_branch(0, operation.fact_id), {}, [])
    return operations.get(store, operation.id)


def done(store: MemoryStore) -> Operation:
    return undo.close_forget(store, switched(store).id)


def failed(store: MemoryStore) -> Operation:
    return undo.fail_operation(store, building(store).id, "drift")


def cancelled(store: MemoryStore) -> Operation:
    return undo.cancel_operation(store, building(store).id)


IN_PHASE: dict[Phase, Callable[[MemoryStore], Operation]] = {
    Phase.REQUESTED: requested,
    Phase.BUILDING: building,
    Phase.SWITCHED: switched,
    Phase.DONE: done,
    Phase.FAILED: failed,
    Phase.CANCELLED: cancelled,
}


def grow(store: MemoryStore, operation: Operation) -> None:
    second = store.facts(after_position=1, limit=1)[0]
    attempt = new_attempt(
        second.id, learning(), update=new_update(second.id, operation.branch_version or 0)
    )
    branch_growth.record_relearned(store, operation.id, attempt)


def switch(store: MemoryStore, operation: Operation) -> None:
    end = end_of_branch(operation.branch_version or 0, operation.fact_id)
    undo.finish_forget(store, operation.id, end, {}, [])


def everything(store: MemoryStore) -> list[object]:
    tables = store.connection.database.table_names()
    return [list(map(dict, store.connection.execute(f"SELECT * FROM {each}"))) for each in tables]


TRANSITIONS: dict[Transition, Callable[[MemoryStore, Operation], object]] = {
    Transition.BEGIN: lambda store, operation: undo.begin_operation(store, operation.id),
    Transition.BEGIN_ANEW: lambda store, operation: undo.begin_anew(store, operation.id),
    Transition.GROW: grow,
    Transition.SWITCH: switch,
    Transition.CLOSE: lambda store, operation: undo.close_forget(store, operation.id),
    Transition.FAIL: lambda store, operation: undo.fail_operation(store, operation.id, "drift"),
    Transition.CANCEL: lambda store, operation: undo.cancel_operation(store, operation.id),
}
# Asked for once more, they change nothing: a begun operation is resumed.
REPEATED = {(Transition.BEGIN, Phase.BUILDING), (Transition.CANCEL, Phase.CANCELLED)}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("transition", TRANSITIONS)
def test_a_transition_is_made_from_its_sources_and_refused_elsewhere(
    store: MemoryStore, transition: Transition, phase: Phase
) -> None:
    operation = IN_PHASE[phase](store)
    assert operation.phase is phase
    if phase in transition.sources:
        TRANSITIONS[transition](store, operation)
        assert operations.get(store, operation.id).phase is transition.target
        return
    before = everything(store)
    if (transition, phase) in REPEATED:
        assert TRANSITIONS[transition](store, operation) == operation
    else:
        ended = operation.finished_at is not None
        error = OperationEndedError if ended else WrongStateError
        reason = f"is {phase} already" if ended else f"cannot {transition.action} now: "
        with pytest.raises(error, match=reason):
            TRANSITIONS[transition](store, operation)
    assert everything(store) == before


def test_what_the_weights_do_not_hold_skips_its_branch(store: MemoryStore) -> None:
    fact = teach_claimed(store)
    store.record_failure(fact.id, "NaN", 1)
    operation = undo.request_forget(store, fact.id)
    assert undo.finish_if_not_held(store, operation.id)
    assert operations.get(store, operation.id).phase is Phase.SWITCHED
    for phase in (Phase.SWITCHED, Phase.DONE):
        assert operations.get(store, operation.id).phase is phase
        with pytest.raises(WrongStateError):
            undo.finish_if_not_held(store, operation.id)
        if phase is Phase.SWITCHED:
            undo.close_forget(store, operation.id)


def test_a_forgotten_twin_of_an_erased_fact_is_done_with_it(store: MemoryStore) -> None:
    twin = teach_learned(store, "same?")
    undo.close_forget(store, _forget(store, twin.id).id)
    again = teach_learned(store, "same?")
    erased = undo.request_forget(store, again.id, erase=True)
    joined = operations.newest_of_fact(store, twin.id)
    assert joined is not None
    assert (joined.phase, joined.id) == (Phase.DONE, erased.id + 1)
    assert store.fact(twin.id).erased
    with pytest.raises(OperationEndedError):
        operations.change(store, joined.id, Transition.JOIN)
    assert [sought.fact_id for sought in erasure.pending(store)] == [again.id]


def _forget(store: MemoryStore, fact_id: str) -> Operation:
    operation = undo.request_forget(store, fact_id)
    begun = undo.begin_operation(store, operation.id)
    end = end_of_branch(begun.branch_version or 0, fact_id)
    undo.finish_forget(store, operation.id, end, {}, [])
    return operation


def test_a_rollback_goes_through_the_same_phases(store: MemoryStore) -> None:
    fact = teach_learned(store)
    operation = undo.request_rollback(store, 0)
    write_down = partial(rollback_states.write_down, store, line=line_of(store.connection, 0))
    with pytest.raises(WrongStateError, match="has not begun"):
        write_down(operation)
    with pytest.raises(WrongStateError, match="has not begun"):
        undo.finish_rollback(store, operation.id, end_of_branch(0), {})
    begun = undo.begin_operation(store, operation.id)
    assert begun.phase is Phase.BUILDING
    assert write_down(begun)
    undo.finish_rollback(store, operation.id, end_of_branch(0), {})
    # The last step of its switch closes it: there is nothing to be cleaned up.
    assert operations.get(store, operation.id).phase is Phase.DONE
    assert store.fact(fact.id).state is FactState.FORGOTTEN
    with pytest.raises(OperationEndedError):
        write_down(begun)


@pytest.mark.parametrize("phase", Phase)
def test_the_state_and_conditions_of_sql_say_the_same_as_the_phase(
    store: MemoryStore, phase: Phase
) -> None:
    assert IN_PHASE[phase](store).state is phase.state
    expected = {
        OPEN: {Phase.REQUESTED, Phase.BUILDING, Phase.SWITCHED},
        NOT_SERVED: {Phase.REQUESTED, Phase.BUILDING},
        SWITCHED: {Phase.SWITCHED},
    }
    for condition, phases in expected.items():
        found = store.connection.execute(f"SELECT 1 FROM operations WHERE {condition}")
        assert bool(found) is (phase in phases), condition


def test_the_design_has_the_same_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| (\w+) \|", DESIGN.read_text("utf-8"), re.M)
    written = {name: (tuple(sources.split(", ")), target) for name, sources, target in rows}
    assert written == {
        each.name.lower(): (tuple(map(str, each.sources)), str(each.target)) for each in Transition
    }
