"""What a database says about itself: the model it belongs to, and its secret for page tokens."""

from __future__ import annotations

from memory_store.connection import Connection
from memory_store.errors import OtherModelError


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


def _values(connection: Connection) -> dict[str, str]:
    return {row["key"]: row["value"] for row in connection.execute("SELECT key, value FROM meta")}
