"""Any sequence of operations, crashes included, leaves the store as a simple model says."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from memory_store.errors import FactExistsError, LedgerConflictError, WrongStateError
from memory_store.facts import TRANSITIONS, companions, count_by_state
from memory_store.store import MemoryStore
from memory_store.vocabulary import Accepted, EventKind, FactState, NewFact
from tests.store import integrity
from tests.store.builders import (
    Clock,
    ids,
    learning,
    ledger_rows,
    new_probe,
    new_update,
    record_known,
    record_learned,
    record_resisted,
)

LIVE = {FactState.QUEUED, FactState.LEARNING, FactState.LEARNED, FactState.KNOWN}
IN_WEIGHTS = {FactState.LEARNED, FactState.KNOWN}
MAX_ATTEMPTS = 2
QUESTIONS = st.sampled_from(["Q one?", "q ONE?", "Q two?", "Q three?"])
ANSWERS = st.sampled_from(["A", " A ", "a", "B"])
REQUEST_IDS = st.none() | st.sampled_from(["r1", "r2", "r3"])
FACT_IDS = st.none() | st.sampled_from(["id-1", "id-2", "id-3"])
CHOICES = st.integers(0, 10**6)


@dataclass
class ModelFact:
    id: str
    question: str
    answer: str
    state: FactState = FactState.QUEUED
    attempts: int = 0
    superseded_by: str = ""


class LifeOfFacts(RuleBasedStateMachine):
    """The store beside a list of `ModelFact`, in order of acceptance."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="memory-store-"))
        self.clock = Clock()
        self.store = MemoryStore.open(self.folder / "memory.db", now=self.clock)
        self.facts: list[ModelFact] = []
        self.requests: dict[str, tuple[NewFact, Accepted]] = {}
        self.ledger: list[str] = []  # the fact of each version
        self.expected_events: list[tuple[EventKind, str]] = []

    def teardown(self) -> None:
        if hasattr(self, "store"):
            assert integrity.problems(self.store.connection) == []
            self.store.close()
            shutil.rmtree(self.folder)

    # -- Teaching ----------------------------------------------------------------------------

    @rule(question=QUESTIONS, answer=ANSWERS, request_id=REQUEST_IDS, fact_id=FACT_IDS)
    def teach(
        self, question: str, answer: str, request_id: str | None, fact_id: str | None
    ) -> None:
        new = NewFact(question=question, answer=answer, request_id=request_id, fact_id=fact_id)
        earlier = self.requests.get(request_id) if request_id else None
        same = self.find_same(question, answer)
        taken = fact_id in [fact.id for fact in self.facts]
        refused = earlier[0] != new if earlier else taken and (same is None or same.id != fact_id)
        if refused:
            with pytest.raises(FactExistsError):
                self.store.teach(new)
            return
        accepted = self.store.teach(new)
        if earlier:
            first = earlier[1]
            now = self.store.fact(first.fact.id)
            assert accepted == replace(first, fact=now, repeated=True)
            return
        assert accepted.event_sequence == len(self.expected_events)
        held = same.id if same else None
        live = self.newest_live(question)
        assert accepted.replaces == (live.id if live and not same else "")
        assert accepted.created == (held is None)
        if held is None:
            assert fact_id in (None, accepted.fact.id)
            self.facts.append(ModelFact(accepted.fact.id, question, answer))
            self.expected_events.append((EventKind.ACCEPTED, accepted.fact.id))
        else:
            assert accepted.fact.id == held
        if request_id:
            self.requests[request_id] = (new, accepted)

    def newest_live(self, question: str) -> ModelFact | None:
        for fact in reversed(self.facts):
            if fact.state in LIVE and fact.question.lower() == question.lower():
                return fact
        return None

    def find_same(self, question: str, answer: str) -> ModelFact | None:
        live = self.newest_live(question)
        return live if live and live.answer.strip() == answer.strip() else None

    # -- Learning ----------------------------------------------------------------------------

    @rule()
    def claim(self) -> None:
        queued = [fact for fact in self.facts if fact.state is FactState.QUEUED]
        claimed = self.store.claim()
        assert (claimed.id if claimed else None) == (queued[0].id if queued else None)
        if claimed:
            self.move(queued[0], FactState.LEARNING)
            assert claimed.question == queued[0].question

    def learning_facts(self) -> list[ModelFact]:
        return [fact for fact in self.facts if fact.state is FactState.LEARNING]

    def pick(self, choice: int) -> ModelFact:
        found = self.learning_facts()
        return found[choice % len(found)]

    @precondition(lambda self: self.learning_facts())
    @rule(choice=CHOICES)
    def learn(self, choice: int) -> None:
        fact, base = self.pick(choice), len(self.ledger)
        record_learned(
            self.store, new_update(fact.id, base), learning(), [new_probe(self.facts[0].id)]
        )
        self.ledger.append(fact.id)
        self.supersede_before(fact)
        self.move(fact, FactState.LEARNED)

    @precondition(lambda self: self.learning_facts())
    @rule(choice=CHOICES, offset=st.sampled_from([-1, 1]))
    def learn_on_another_version(self, choice: int, offset: int) -> None:
        with pytest.raises(LedgerConflictError):
            record_learned(
                self.store, new_update(self.pick(choice).id, len(self.ledger) + offset), learning()
            )

    @precondition(lambda self: self.learning_facts())
    @rule(choice=CHOICES)
    def know(self, choice: int) -> None:
        fact = self.pick(choice)
        record_known(self.store, fact.id, learning())
        self.supersede_before(fact)
        self.move(fact, FactState.KNOWN)

    @precondition(lambda self: self.learning_facts())
    @rule(choice=CHOICES)
    def resist(self, choice: int) -> None:
        fact = self.pick(choice)
        record_resisted(self.store, fact.id, "limit", learning())
        self.move(fact, FactState.RESISTED)

    @precondition(lambda self: self.learning_facts())
    @rule(choice=CHOICES)
    def fail(self, choice: int) -> None:
        fact = self.pick(choice)
        self.store.record_failure(fact.id, "NaN", MAX_ATTEMPTS)
        self.count_failure(fact)

    def count_failure(self, fact: ModelFact) -> None:
        fact.attempts += 1
        if fact.attempts < MAX_ATTEMPTS:
            fact.state = FactState.QUEUED
            self.expected_events.append((EventKind.RETRIED, fact.id))
        else:
            self.move(fact, FactState.QUARANTINED)

    @precondition(lambda self: self.learning_facts())
    @rule(choice=CHOICES)
    def release(self, choice: int) -> None:
        fact = self.pick(choice)
        self.store.release(fact.id)
        fact.state = FactState.QUEUED

    @precondition(lambda self: len(self.facts) > len(self.learning_facts()))
    @rule(choice=CHOICES, how=st.integers(0, 4))
    def change_a_fact_that_is_not_claimed(self, choice: int, how: int) -> None:
        others = [fact for fact in self.facts if fact.state is not FactState.LEARNING]
        fact_id = others[choice % len(others)].id
        with pytest.raises(WrongStateError):
            [
                lambda: record_learned(
                    self.store, new_update(fact_id, len(self.ledger)), learning()
                ),
                lambda: record_known(self.store, fact_id, learning()),
                lambda: record_resisted(self.store, fact_id, "", learning()),
                lambda: self.store.record_failure(fact_id, "", MAX_ATTEMPTS),
                lambda: self.store.release(fact_id),
            ][how]()

    def supersede_before(self, newer: ModelFact) -> None:
        for fact in self.facts[: self.facts.index(newer)]:
            if fact.state in IN_WEIGHTS and fact.question.lower() == newer.question.lower():
                fact.superseded_by = newer.id
                self.move(fact, FactState.SUPERSEDED)

    def move(self, fact: ModelFact, to: FactState) -> None:
        assert to in TRANSITIONS[fact.state]
        fact.state = to
        self.expected_events.append((EventKind(to.value), fact.id))

    # -- Stopping ----------------------------------------------------------------------------

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        """Closes the store, or goes on with its files as a killed process would leave them."""
        folder = self.folder
        if crash:
            folder = Path(tempfile.mkdtemp(prefix="memory-store-"))
            for name in ("memory.db", "memory.db-wal"):
                shutil.copy(self.folder / name, folder / name)
        self.store.close()
        if crash:
            shutil.rmtree(self.folder)
        self.folder = folder
        self.store = MemoryStore.open(folder / "memory.db", now=self.clock)
        claimed = self.learning_facts()
        assert self.store.release_claims(MAX_ATTEMPTS) == len(claimed)
        for fact in claimed:
            self.count_failure(fact)

    # -- What always holds -------------------------------------------------------------------

    @invariant()
    def the_facts_are_those_of_the_model(self) -> None:
        stored = self.store.facts(limit=10**6)
        assert [fact.position for fact in stored] == [*range(1, len(self.facts) + 1)]
        assert [
            (f.id, f.question, f.answer, f.state, f.failed_attempts, f.superseded_by)
            for f in stored
        ] == [
            (f.id, f.question, f.answer, f.state, f.attempts, f.superseded_by) for f in self.facts
        ]
        assert [bool(fact.reason) for fact in stored] == [
            fact.state in (FactState.RESISTED, FactState.QUARANTINED) for fact in self.facts
        ]

    @invariant()
    def counts_and_lists_agree(self) -> None:
        counted = Counter(fact.state for fact in self.facts)
        assert count_by_state(self.store.connection) == {
            state: counted[state] for state in FactState
        }
        both = [FactState.QUEUED, FactState.SUPERSEDED]
        expected = [fact.id for fact in self.facts if fact.state in both]
        assert ids(self.store.facts(states=both, limit=10**6)) == expected

    @invariant()
    def the_ledger_has_no_gaps(self) -> None:
        rows = ledger_rows(self.store.connection)
        assert self.store.model_version() == len(self.ledger)
        assert [(row.model_version, row.fact_id) for row in rows] == [
            (version, fact_id) for version, fact_id in enumerate(self.ledger, start=1)
        ]

    @invariant()
    def events_tell_the_whole_story_once(self) -> None:
        events = self.store.events(limit=10**6)
        assert [event.sequence for event in events] == [*range(1, len(events) + 1)]
        assert [(event.kind, event.fact_id) for event in events] == self.expected_events
        learned = [event for event in events if event.kind is EventKind.LEARNED]
        assert [(event.model_version, event.fact_id) for event in learned] == [
            (version, fact_id) for version, fact_id in enumerate(self.ledger, start=1)
        ]

    @invariant()
    def older_facts_are_in_the_weights(self) -> None:
        if self.facts:
            fact = self.store.fact(self.facts[-1].id)
            expected = {
                other.id
                for other in self.facts
                if other.state in IN_WEIGHTS and other.question.lower() != fact.question.lower()
            }
            assert set(ids(companions(self.store.connection, fact, 100))) == expected
            assert len(companions(self.store.connection, fact, 2)) == min(2, len(expected))


TestLifeOfFacts = LifeOfFacts.TestCase
TestLifeOfFacts.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,  # an fsync takes as long as the disk likes
    suppress_health_check=[HealthCheck.too_slow],
)
