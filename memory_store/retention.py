"""Retention of facts, from recorded probes: the model is not asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from memory_store import schedule
from memory_store.encoding import read_time
from memory_store.facts import count_by_state
from memory_store.store import MemoryStore
from memory_store.undone import Undone, by_rollbacks
from memory_store.vocabulary import HELD, Fact, FactRetention, RetentionPoint


def last_probes(store: MemoryStore, max_facts: int, max_probes: int) -> list[FactRetention]:
    """The last probes of held facts' own questions.

    Args:
        store: the memory.
        max_facts: the most facts, at least one; they are spread over the order of acceptance.
        max_probes: the most probes of each.
    """
    with store.transaction():
        undone = by_rollbacks(store.connection)
        return [
            FactRetention(
                fact_id=fact.id,
                age=schedule.age(store.connection, fact.position),
                points=_points(store, fact.id, max_probes, undone),
            )
            for fact in _spread(store, max_facts)
        ]


def _spread(store: MemoryStore, limit: int) -> list[Fact]:
    """Held facts; a spread of them if there are more than `limit`."""
    last, step = store.connection.number("SELECT max(position) FROM facts"), 1
    counts = count_by_state(store.connection)
    if sum(counts[state] for state in HELD) <= limit:
        return store.facts(limit=limit, states=HELD)
    # Doubled, so that the same facts are chosen until there are twice as many.
    while last > limit * step:
        step *= 2
    found: dict[int, Fact] = {}
    for place in range(0, last, step):
        # The first held fact from there on: reading all facts would take too long.
        for fact in store.facts(after_position=place, limit=1, states=HELD):
            found[fact.position] = fact
    return list(found.values())


def _points(
    store: MemoryStore, fact_id: str, limit: int, undone: Sequence[Undone]
) -> tuple[RetentionPoint, ...]:
    """The last probes of one fact, without those of weights that a rollback undid."""
    left_out = " AND NOT (model_version > ? AND model_version < ?)" * len(undone)
    rows = store.connection.execute(
        "SELECT model_version, log_probability, probed_at FROM probes"
        f" WHERE fact_id = ? AND kind IN ('retention', 'forgetting'){left_out}"
        " ORDER BY id DESC LIMIT ?",
        [fact_id, *(bound for span in undone for bound in (span.after, span.before)), limit],
    )
    return tuple(
        RetentionPoint(
            model_version=row["model_version"],
            probability=math.exp(row["log_probability"]),
            probed_at=read_time(row["probed_at"]),
        )
        for row in rows
    )
