"""The verdicts of facts on a line of the ledger: learned, known, resisted or quarantined."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from memory_store.encoding import write_json
from memory_store.lines import Line
from memory_store.store import MemoryStore
from memory_store.vocabulary import FactState


def verdicts_on(
    store: MemoryStore, line: Collection[int] | Line, fact_ids: Sequence[str]
) -> dict[str, tuple[FactState, str]]:
    """State and reason, by id, of the facts that were tried on a line of the ledger.

    An attempt without a row of its own was on the line if the weights that it began with were.
    """
    chosen = write_json(list(fact_ids))
    found = store.connection.execute(
        "SELECT fact_id, kind AS verdict, message AS reason, model_version FROM json_each(?)"
        " CROSS JOIN events ON events.fact_id = value"
        " WHERE kind IN ('known', 'resisted', 'quarantined')"
        " UNION ALL"
        " SELECT facts.id, verdict, relearned.reason, relearned.model_version FROM json_each(?)"
        " CROSS JOIN facts ON facts.id = value JOIN operations ON proof IS NOT NULL"
        " JOIN relearned ON operation_id = operations.id AND relearned.position = facts.position"
        " WHERE verdict <> 'learned'",
        [chosen, chosen],
    )
    verdicts = {
        row["fact_id"]: (FactState(row["verdict"]), row["reason"])
        # The last one counts: a fact that a branch gave up may have been queued again.
        for row in sorted(found, key=lambda row: int(row["model_version"]))
        if row["model_version"] in line
    }
    taught = store.connection.execute(
        "SELECT fact_id, model_version, (EXISTS (SELECT 1 FROM reviews"
        "  WHERE retaught_version = updates.model_version AND outcome = 'retaught')"
        " OR EXISTS (SELECT 1 FROM reviewed_again AS again"
        "  WHERE again.model_version = updates.model_version AND again.outcome = 'retaught'))"
        " AS again FROM json_each(?) CROSS JOIN updates ON updates.fact_id = value"
        " WHERE updates.kind IN ('teach', 'relearn') ORDER BY model_version",
        [chosen],
    )
    for row in taught:
        # A fact that was known and taught again by a review keeps its verdict.
        if row["model_version"] in line and not (row["again"] and row["fact_id"] in verdicts):
            verdicts[row["fact_id"]] = (FactState.LEARNED, "")
    return verdicts
