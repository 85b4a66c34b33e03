"""H3: what was acknowledged is kept, whatever is taken back before and after (faults.md)."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from memory_store import operations, undo
from memory_store.connection import IN_MEMORY
from memory_store.errors import FactExistsError, WrongStateError
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState, NewFact, Operation, OperationKind
from tests.store.builders import (
    Clock,
    end_of_branch,
    facts_to_relearn,
    learning,
    new_fact,
    new_update,
    record_known,
    record_learned,
    record_relearned,
    record_resisted,
    teach_claimed,
    teach_learned,
)

WAITING = (FactState.QUEUED, FactState.LEARNING)


def learn(store: MemoryStore, verdict: str = "learned") -> str:
    """Learns the fact that waits longest; its id."""
    fact = store.claim()
    assert fact is not None
    finish(store, fact.id, verdict)
    return fact.id


def finish(store: MemoryStore, fact_id: str, verdict: str) -> None:
    if verdict == "learned":
        record_learned(store, new_update(fact_id, store.model_version()), learning())
    elif verdict == "known":
        record_known(store, fact_id, learning())
    else:
        record_resisted(store, fact_id, "too hard", learning())


def carry_out(store: MemoryStore, operation: Operation) -> None:
    """Does what the learning loop does with an operation, without weights."""
    if operation.kind is OperationKind.ROLLBACK:
        begun = undo.begin_operation(store, operation.id)
        assert begun.branch_version is not None
        undo.finish_rollback(store, operation.id, end_of_branch(begun.branch_version), {})
        return
    if not undo.finish_if_not_held(store, operation.id):
        begun = undo.begin_operation(store, operation.id)
        branch = begun.branch_version or 0
        for fact in facts_to_relearn(store, begun):
            row = record_relearned(
                store,
                operation.id,
                fact,
                FactState.LEARNED,
                "",
                learning(),
                new_update(fact.id, branch),
            )
            assert row is not None
            branch = row.model_version
        end = end_of_branch(branch, operation.fact_id)
        undo.finish_forget(store, operation.id, end, {}, [])
    undo.close_forget(store, operation.id)


def test_the_same_fact_taught_while_it_is_to_be_forgotten_is_a_new_one(store: MemoryStore) -> None:
    """H3."""
    old = teach_learned(store)
    operation = undo.request_forget(store, old.id)
    again = store.teach(new_fact())
    assert again.created
    assert again.fact.id != old.id
    assert again.replaces == old.id
    # And once more: that is the same as the new one.
    assert store.teach(new_fact()).fact == again.fact
    carry_out(store, operation)
    assert store.fact(again.fact.id).state is FactState.QUEUED
    assert store.fact(old.id).state is FactState.FORGOTTEN
    assert learn(store) == again.fact.id


@pytest.mark.parametrize("verdict", ["learned", "known"])
def test_a_fact_that_a_rollback_will_undo_is_taught_anew(store: MemoryStore, verdict: str) -> None:
    """H3."""
    kept = teach_learned(store, "kept")
    teach_learned(store, "between")
    lost = teach_claimed(store, "lost")
    finish(store, lost.id, verdict)
    operation = undo.request_rollback(store, 1)
    assert not store.teach(new_fact("kept")).created
    again = store.teach(new_fact("lost"))
    assert again.created
    carry_out(store, operation)
    assert store.fact(again.fact.id).state is FactState.QUEUED
    assert store.fact(lost.id).state is FactState.FORGOTTEN
    assert store.fact(kept.id).state is FactState.LEARNED


def test_a_rollback_queues_again_what_was_learned_since_it_was_requested(
    store: MemoryStore,
) -> None:
    """H3: accepted before or after the request, and still to be learned then."""
    undone = teach_learned(store, "undone")
    claimed = teach_claimed(store, "claimed")
    operation = undo.request_rollback(store, 0)
    finish(store, claimed.id, "learned")
    later = teach_learned(store, "later")
    carry_out(store, operation)
    states = {fact.id: fact.state for fact in store.facts()}
    assert states == {
        undone.id: FactState.FORGOTTEN,
        claimed.id: FactState.QUEUED,
        later.id: FactState.QUEUED,
    }
    assert [learn(store), learn(store)] == [claimed.id, later.id]


def test_a_fact_queued_again_that_a_second_rollback_will_undo_is_taught_anew(
    store: MemoryStore,
) -> None:
    """H3: the second rollback was requested when the first had not queued it again yet."""
    first = undo.request_rollback(store, 0)
    lost = teach_learned(store)
    second = undo.request_rollback(store, 0)
    carry_out(store, first)
    assert store.fact(lost.id).state is FactState.QUEUED
    again = store.teach(new_fact())
    assert again.created
    assert again.fact.id != lost.id
    assert learn(store) == lost.id
    carry_out(store, second)
    assert store.fact(lost.id).state is FactState.FORGOTTEN
    assert store.fact(again.fact.id).state is FactState.QUEUED


def test_a_rollback_leaves_alone_what_waited_when_it_was_requested(store: MemoryStore) -> None:
    """H3: it had been learned, and queued again by another rollback, before the request."""
    first, second = undo.request_rollback(store, 0), undo.request_rollback(store, 0)
    kept = teach_learned(store)
    carry_out(store, first)
    third = undo.request_rollback(store, 0)
    assert not store.teach(new_fact()).created
    assert learn(store) == kept.id
    carry_out(store, second)
    carry_out(store, third)
    assert store.fact(kept.id).state is FactState.QUEUED


def test_the_same_id_is_refused_with_the_reason(store: MemoryStore) -> None:
    """H3: nothing is acknowledged that would be lost."""
    store.teach(new_fact(fact_id="mine"))
    finish(store, store.claim().id, "learned")  # type: ignore[union-attr]
    undo.request_forget(store, "mine")
    with pytest.raises(FactExistsError, match="about to be forgotten"):
        store.teach(new_fact(fact_id="mine"))


def test_many_at_once_are_one_new_fact(store: MemoryStore) -> None:
    """H3: as one after the other."""
    old = teach_learned(store)
    undo.request_forget(store, old.id)
    first, second = store.teach_many([new_fact(), new_fact()])
    assert not isinstance(first, Exception)
    assert not isinstance(second, Exception)
    assert (first.created, second.created) == (True, False)
    assert first.fact == second.fact != old


class Kept(RuleBasedStateMachine):
    """H3: a promise is broken only by who asks for it afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore.open(IN_MEMORY, now=Clock())
        self.promised: set[str] = set()
        self.operations: list[Operation] = []
        self.claimed = ""

    def teardown(self) -> None:
        self.store.close()

    @rule(
        question=st.sampled_from(["one?", "two?"]),
        answer=st.sampled_from(["A", "A", "A", "B"]),
        request=st.none() | st.sampled_from(["r1", "r2"]),
    )
    def teach(self, question: str, answer: str, request: str | None) -> None:
        # A request id stands for its content here, so that it is never refused.
        request_id = request and f"{request} {question} {answer}"
        accepted = self.store.teach(
            NewFact(question=question, answer=answer, request_id=request_id)
        )
        if not accepted.repeated:
            self.promised.add(accepted.fact.id)

    @rule()
    def claim(self) -> None:
        if not self.claimed and (fact := self.store.claim()) is not None:
            self.claimed = fact.id

    @rule(verdict=st.sampled_from(["learned", "known", "resisted"]))
    def finish(self, verdict: str) -> None:
        if self.claimed:
            finish(self.store, self.claimed, verdict)
            self.claimed = ""

    @rule(question=st.sampled_from(["one?", "two?"]))
    def learn(self, question: str) -> None:
        self.teach(question, "A", None)
        self.claim()
        self.finish("learned")

    @rule(choice=st.integers(0, 10**6))
    def forget(self, choice: int) -> None:
        known = self.store.facts()
        if known:
            fact = known[choice % len(known)]
            self._request(undo.request_forget(self.store, fact.id))
            self.promised.discard(fact.id)

    @rule(choice=st.integers(0, 10**6))
    def roll_back(self, choice: int) -> None:
        try:
            to_version = choice % (self.store.model_version() + 1)
            self._request(undo.request_rollback(self.store, to_version))
        except WrongStateError:
            return
        self.promised -= {f.id for f in self.store.facts() if f.state not in WAITING}

    def _request(self, operation: Operation) -> None:
        if operation.id not in {known.id for known in self.operations}:
            self.operations.append(operation)

    @rule()
    def carry_out(self) -> None:
        operation = operations.oldest_open(self.store)
        if operation is not None and not self.claimed:  # it begins between two facts
            carry_out(self.store, operation)

    @invariant()
    def keeps_what_it_promised(self) -> None:
        states = {fact.id: fact.state for fact in self.store.facts()}
        lost = {i for i in self.promised if states[i] is FactState.FORGOTTEN}
        assert not lost


TestKept = Kept.TestCase
TestKept.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)
