"""Erases the text of a fact at once, before the weights that hold it are rebuilt.

A tombstone remains: a row without text. If the served weights may hold the fact, it is `superseded`
until they are rebuilt: then nothing rehearses, reviews or probes it, but its operation still has
work to do.

Rows of the ledger that taught or rehearsed the fact cannot be replayed without its text. Until the
rebuilt weights are served, a start needs a snapshot of a later version. Without one, the nearest
version before those rows is served, and the rest is learned again.
"""

from __future__ import annotations

from memory_store import erasure, facts
from memory_store.store import MemoryStore
from memory_store.tables import OPEN
from memory_store.vocabulary import Fact, FactState, Operation, OperationKind

REASON = "its text was erased; the weights are being rebuilt without it"
# States of facts that the served weights may hold.
_MAY_BE_HELD = (FactState.LEARNED, FactState.KNOWN, FactState.SUPERSEDED)


def erase_requested(store: MemoryStore, operation: Operation) -> bool:
    """Erases the text of the fact of an operation that asks for it, unless it is gone already.

    A fact that is being learned keeps its text until the attempt has ended, because its findings
    would bring the text back. Then call this again.

    Returns:
        Whether the text is gone.
    """
    if not operation.erase or operation.kind is not OperationKind.FORGET:
        return False
    with store.transaction():
        fact = store.fact(operation.fact_id)
        if fact.erased:
            return True
        if fact.state is FactState.LEARNING:
            return False
        if fact.state not in (FactState.SUPERSEDED, FactState.FORGOTTEN):
            connection, at = store.connection, store.now()
            if fact.state in _MAY_BE_HELD:
                facts.change_state(connection, fact.id, FactState.SUPERSEDED, at, reason=REASON)
            elif _on_a_branch(store, fact):
                facts.restate(connection, fact.position, FactState.SUPERSEDED, at, reason=REASON)
            else:
                facts.change_state(connection, fact.id, FactState.FORGOTTEN, at, reason=REASON)
        erasure.erase(store, fact)
        return True


def _on_a_branch(store: MemoryStore, fact: Fact) -> bool:
    """Whether another operation has learned it on a branch that may be served soon."""
    found = store.connection.execute(
        "SELECT 1 FROM operations JOIN relearned ON operation_id = operations.id AND"
        f" relearned.position = ? WHERE {OPEN}"
        " AND branch_version IS NOT NULL"  # otherwise the branch was dropped
        " AND verdict IN ('learned', 'known') LIMIT 1",
        [fact.position],
    )
    return bool(found)


def keys_it_superseded(store: MemoryStore, fact_id: str) -> set[str]:
    """Question keys of the facts that a fact superseded; its own text may be erased."""
    rows = store.connection.execute(
        "SELECT DISTINCT question_key FROM facts WHERE superseded_by = ? AND superseded_by <> ''",
        [fact_id],
    )
    return {row["question_key"] for row in rows}
