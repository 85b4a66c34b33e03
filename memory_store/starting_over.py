"""Serving an earlier version because later ones cannot be reached; what followed is queued again.

The ledger keeps the rows that cannot be replayed, as history. A row of the kind `rollback` moves
the head to the version that can be reached, and the facts that only later versions held are learned
again like any other, in their order, by the algorithm of today.
"""

from __future__ import annotations

from memory_store import facts, ledger, operations, reviews
from memory_store.lines import line_of
from memory_store.store import MemoryStore
from memory_store.taking_back import TRIED, all_facts
from memory_store.verdicts import verdicts_on
from memory_store.vocabulary import EventKind, FactState, LedgerKind, NewUpdate, Update


def start_over(store: MemoryStore, end: NewUpdate, why: str) -> tuple[Update, int]:
    """Moves the head to an earlier version, and queues again what was learned after it.

    Facts that were forgotten stay so. Operations that have begun begin anew: what they built stands
    on rows that may be out of reach, too.

    Args:
        store: the memory.
        end: the row that moves the head, without steps, on the version that is reached.
        why: for the event, a clause.

    Returns:
        The row, and how many facts were queued again.
    """
    with store.transaction():
        at = store.now()
        line = line_of(store.connection, end.base_version)
        verdicts = verdicts_on(store, line, [fact.id for fact in all_facts(store, TRIED)])
        row = ledger.append(store.connection, LedgerKind.ROLLBACK, end, at)
        keys = set()
        queued = 0
        for fact in all_facts(store, TRIED):
            if fact.state is FactState.FORGOTTEN:
                continue
            if fact.erased:
                if fact.id not in verdicts:  # these weights never held it
                    forgotten = FactState.FORGOTTEN
                    facts.change_state(store.connection, fact.id, forgotten, at)
                continue
            keys.add(facts.question_key(fact.question))
            if fact.id in verdicts:
                state, reason = verdicts[fact.id]
                if state is not fact.state:
                    facts.restate(store.connection, fact.position, state, at, reason=reason)
            else:
                facts.queue_again(store.connection, fact.position, at)
                message = f"learned again from version {end.base_version}"
                store.emit(EventKind.REQUEUED, at, fact_id=fact.id, message=message)
                queued += 1
        facts.settle_superseded(store.connection, keys, at)
        reviews.settle(store, line, reviews.taught_again(store))
        operations.begin_anew(store.connection)
        message = f"to version {end.base_version}, since {why}; {queued} facts are learned again"
        store.emit(EventKind.ROLLED_BACK, at, message=message)
        return row, queued
