"""The weights of an earlier version: whether they were served, and whether they saw a fact."""

from __future__ import annotations

from memory_store.encoding import write_json
from memory_store.errors import WrongStateError
from memory_store.lines import line_of
from memory_store.store import MemoryStore


def require_served(store: MemoryStore, version: int) -> None:
    """Checks that a version was served, or is on the way to one that was.

    Raises:
        WrongStateError: it is on a branch that was never finished.
    """
    rows = store.connection.execute(
        "SELECT kind = 'relearn' AS on_branch, (SELECT min(model_version) FROM updates"
        "  WHERE kind = 'forget' AND model_version > row.model_version) AS end"
        " FROM updates AS row WHERE model_version = ?",
        [version],
    )
    if not rows or not rows[0]["on_branch"]:
        return
    # Operations follow one another, so this branch was finished only by the first end after it.
    if rows[0]["end"] and version in line_of(store.connection, rows[0]["end"]):
        return
    served = line_of(store.connection, store.model_version())
    raise WrongStateError(
        f"Version {version} is on a branch that is not finished, or was given up: it was never"
        f" served. Roll back to one of these versions: 0, {served}."
    )


def was_touched_before(store: MemoryStore, fact_id: str, version: int) -> bool:
    """Whether the weights of a version were taught a fact, or may have rehearsed it."""
    rows = store.connection.execute(
        "SELECT model_version AS version, kind FROM updates WHERE fact_id = ?1"
        # A fact that was known was never taught, but later ones rehearsed it.
        " UNION ALL SELECT model_version, kind FROM events WHERE fact_id = ?1 AND kind = 'known'"
        " UNION ALL SELECT relearned.model_version, verdict FROM facts JOIN relearned"
        "  USING (position) WHERE facts.id = ?1 AND verdict = 'known'",
        [fact_id],
    )
    before = [(row["version"], row["kind"]) for row in rows if row["version"] <= version]
    if not before:
        return False
    line = line_of(store.connection, version)
    if any(kind in ("teach", "relearn") and at in line for at, kind in before):
        return True
    known = [at for at, kind in before if kind == "known"]
    if not known:
        return False
    # Nothing rehearses it from the row on that ended its forgetting.
    ended = [row["version"] for row in rows if row["kind"] == "forget"]
    rehearsed = store.connection.execute(
        "SELECT model_version FROM updates WHERE model_version > ? AND model_version <= ?"
        " AND instr(steps, ?) > 0",
        [min(known), min([version, *ended]), write_json(fact_id)],
    )
    return any(row["model_version"] in line for row in rehearsed)
