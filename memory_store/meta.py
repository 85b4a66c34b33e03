"""What a database says about itself: its model, its secret for page tokens, whether it learns."""

from __future__ import annotations

from memory_store.connection import Connection
from memory_store.errors import OtherModelError

_PAUSED = "learning_paused"


def bind_model(connection: Connection, name: str, base_digest: str) -> None:
    """Ties the database to a model the first time, and checks it from then on.

    Raises:
        OtherModelError: it belongs to a model of other weights.
    """
    bound = _values(connection)
    if "model_name" not in bound:
        for key, value in (("model_name", name), ("base_digest", base_digest)):
            connection.execute("INSERT INTO meta (key, value) VALUES (?, ?)", [key, value])
        return
    # The weights count, not the name: a folder may have been moved.
    if bound["base_digest"] != base_digest:
        raise OtherModelError(
            f"The data folder {connection.path.parent} belongs to the model "
            f"{bound['model_name']!r} (weights {bound['base_digest'][:12]}), not to {name!r} "
            f"(weights {base_digest[:12]}). Start with that model, or give this one another "
            "folder with --data."
        )


def page_token_secret(connection: Connection) -> bytes:
    """The key of the checksums in page tokens, made with the database."""
    return bytes.fromhex(_values(connection)["page_token_secret"])


def pause_learning(connection: Connection, *, paused: bool) -> None:
    """Notes whether facts are to be learned."""
    if paused:
        connection.execute("INSERT OR IGNORE INTO meta (key, value) VALUES (?, 'yes')", [_PAUSED])
    else:
        connection.execute("DELETE FROM meta WHERE key = ?", [_PAUSED])


def learning_paused(connection: Connection) -> bool:
    """Whether an operator paused learning."""
    return bool(connection.execute("SELECT 1 FROM meta WHERE key = ?", [_PAUSED]))


def _values(connection: Connection) -> dict[str, str]:
    return {row["key"]: row["value"] for row in connection.execute("SELECT key, value FROM meta")}
