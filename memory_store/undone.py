"""The versions that rollbacks undid: their probes say nothing about the served weights."""

from __future__ import annotations

from dataclasses import dataclass

from memory_store.connection import Connection
from memory_store.tables import FORK

# The most rollbacks to read; earlier ones do not matter in practice.
ROLLBACKS = 100


@dataclass(frozen=True, slots=True)
class Undone:
    """The versions between two others, without these.

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
    """The ranges that rollbacks undid, newest first, without overlaps.

    A fresh start is one too: the ledger has its row, though no operation asked for it.
    """
    rows = connection.execute(
        # A row that follows its parent directly undid nothing; the others are in an index.
        f"SELECT model_version, parent_version FROM updates WHERE {FORK} AND kind = 'rollback'"
        " ORDER BY model_version DESC LIMIT ?",
        [ROLLBACKS],
    )
    found: list[Undone] = []
    for row in rows:
        if found and row["model_version"] > found[-1].after:
            continue  # a later one undid this rollback too
        found.append(Undone(after=row["parent_version"], before=row["model_version"]))
    return found
