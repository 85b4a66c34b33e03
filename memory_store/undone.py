"""Which versions of the weights a rollback undid: what was measured of them says nothing of now."""

from __future__ import annotations

from dataclasses import dataclass

from memory_store.connection import Connection

# So many rollbacks are looked at; earlier ones undid what nobody has asked about since.
ROLLBACKS = 100


@dataclass(frozen=True, slots=True)
class Undone:
    """Versions between two others, both left out.

    Attributes:
        after: the version that is served again.
        before: the row of the ledger that serves it.
    """

    after: int
    before: int

    def __contains__(self, version: int) -> bool:
        """Whether the rollback undid it."""
        return self.after < version < self.before


def by_rollbacks(connection: Connection) -> list[Undone]:
    """What the rollbacks on the line of the head undid, the newest first; none overlap."""
    rows = connection.execute(
        "SELECT to_version, json_extract(proof, '$.model_version') AS row_version FROM operations"
        " WHERE kind = 'rollback' AND state = 'done' AND proof IS NOT NULL"
        " ORDER BY id DESC LIMIT ?",
        [ROLLBACKS],
    )
    found: list[Undone] = []
    for row in rows:
        if row["row_version"] is None or (found and row["row_version"] > found[-1].after):
            continue  # a later one undid this rollback too
        found.append(Undone(after=row["to_version"], before=row["row_version"]))
    return found
