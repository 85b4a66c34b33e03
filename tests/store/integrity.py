"""Checks that a database file is whole."""

from __future__ import annotations

from memory_store.connection import Connection


def problems(connection: Connection) -> list[str]:
    """All that is wrong with the file, one problem an entry. Reads the whole file."""
    structure = connection.execute("PRAGMA integrity_check")
    found = [str(row[0]) for row in map(tuple, structure) if row[0] != "ok"]
    orphans = connection.execute("PRAGMA foreign_key_check")
    found += [f"a row of {row['table']} names a missing fact" for row in orphans]
    miscounted = connection.execute(
        "SELECT state FROM state_counts AS counted WHERE count <>"
        " (SELECT count(*) FROM facts WHERE facts.state = counted.state)"
    )
    return found + [f"the count of {row['state']} facts is wrong" for row in miscounted]
